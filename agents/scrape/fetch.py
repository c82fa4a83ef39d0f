"""Pages over HTTP/1.1, on connections that are kept from one scrape to the next."""

import time
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from itertools import islice

from agents.probes.base import Outcome, Phase
from agents.probes.dial import Conversation, Target, dialled
from agents.probes.http_answer import HttpAnswer
from agents.probes.resolver import Resolver
from agents.probes.trust import read_secret
from agents.probes.url import Url
from agents.probes.watch import ProbeFailedError, ProbeInvalidError, Watch, watched
from agents.scrape.exposition import OPEN_METRICS, NotExpositionError
from agents.scrape.jobs import Job

# A connection is not kept for longer: its name may mean another host by then.
MAX_AGE_S = 300.0
BAD_PAGE = "bad-page"
_ACCEPT = f"text/plain;version=0.0.4,{OPEN_METRICS};version=1.0.0;q=0.5"
_TEXTS = ("text/plain", OPEN_METRICS)
_GZIP = 16 + zlib.MAX_WBITS

Samples = list[tuple[bytes, bytes]]
Write = Callable[[bytes], None]


class PageAnswer(HttpAnswer):
    """An answer that may be compressed. `is_last`: nothing can be asked on this connection again."""

    def __init__(self, watch: Watch, max_bytes: int) -> None:
        super().__init__(watch, max_bytes, is_head=False, follows=False, keeps_body=True)
        self.is_last = False
        self._inflate: zlib._Decompress | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a byte of it has come."""
        return self._received > 0

    def fail(self, reason: str, detail: str) -> None:
        """As in Conversation."""
        self.is_last = True
        super().fail(reason, detail)

    def enough(self) -> None:
        """As in Conversation; half a compressed page is none."""
        if self._inflate is not None and (not self._inflate.eof or self._inflate.unused_data):
            self.fail("bad-gzip", f"{len(self.body)} bytes in all; expected one whole stream")
        super().enough()

    def on_message_begin(self) -> None:
        """Called by httptools, as are all of these."""
        self.is_last |= self.heard.done()  # more than was asked for
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        super().on_headers_complete()
        encoding = self.headers.get("content-encoding", "identity")
        if encoding == "gzip":
            self._inflate = zlib.decompressobj(_GZIP)
        elif encoding != "identity":
            self.fail("content-encoding", f"{encoding}; expected gzip or none")

    def on_body(self, body: bytes) -> None:
        """A piece of the body. What it becomes is bounded, however small the piece is."""
        if self._inflate is None:
            super().on_body(body)
        elif not self.heard.done():
            try:
                super().on_body(self._inflate.decompress(body, self._max_bytes + 1 - len(self.body)))
            except zlib.error as cause:
                self.fail("bad-gzip", str(cause))
            if len(self.body) > self._max_bytes:
                self._too_large()

    def on_message_complete(self) -> None:
        """The last byte is there."""
        self.is_last |= not self._parser.should_keep_alive()
        super().on_message_complete()


class _Line(Conversation):
    """A connection, whose bytes go to the answer that is being waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: PageAnswer | None = None
        self.write: Write
        self.is_open = True
        self.opened_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self.answer is None or self.answer.heard.done():
            self.is_open = False  # nobody has asked for this
        else:
            self.answer.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.is_open = False
        if self.answer is not None:
            self.answer.connection_lost(exc)
        super().connection_lost(exc)


class Fetcher:
    """Asks one exporter, with one question at a time. Every address it connects to has been checked (`probes.dial`)."""

    def __init__(self, url: Url, job: Job, resolver: Resolver) -> None:
        file = job.file
        self._url = url
        self._job = job
        self._target = Target(
            url.host, url.port, file.family, file.tls if url.scheme == "https" else None, alpn=("http/1.1",)
        )
        self._resolver = resolver
        fields = {
            "Host": url.authority,
            "User-Agent": "fleetbeat",
            "Accept": _ACCEPT,
            "Accept-Encoding": "gzip" if file.gzip else "identity",
            "X-Prometheus-Scrape-Timeout-Seconds": f"{job.timeout_s:g}",
            **file.headers,
        }
        lines = [f"GET {url.target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items()), ""]
        self._head = "\r\n".join(lines).encode("ascii")
        self._line: _Line | None = None
        self._stack = AsyncExitStack()
        self.connections = 0

    async def scrape(self, deadline_s: float) -> tuple[Outcome, Samples | None]:
        """How it went, and the samples when there is a page; raises nothing but CancelledError."""
        samples: list[Samples] = []

        async def steps(watch: Watch) -> Outcome:
            try:
                samples.append(self._samples(await self._page(watch)))
            except NotExpositionError as cause:
                return watch.invalid(BAD_PAGE, str(cause))
            return watch.up()

        outcome = await watched(steps, deadline_s)
        return outcome, samples[0] if samples else None

    async def close(self) -> None:
        """Closes the connection that was kept."""
        self._line = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def _samples(self, answer: PageAnswer) -> Samples:
        """Raises ProbeFailedError, NotExpositionError."""
        if answer.status != HTTPStatus.OK:
            raise ProbeInvalidError("status", f"{answer.status}; expected 200")
        content_type = answer.headers.get("content-type", "").lower()
        if content_type and not content_type.startswith(_TEXTS):
            raise NotExpositionError(f"content-type {content_type[:80]!r}; expected {' or '.join(_TEXTS)}")
        most = self._job.file.max_series
        samples = list(islice(self._job.wanted.samples(bytes(answer.body), content_type), most + 1))
        if len(samples) > most:
            raise ProbeInvalidError("too-many-series", f"more than max_series, {most}")
        return samples

    async def _page(self, watch: Watch) -> PageAnswer:
        line = self._line
        if line is not None and line.is_open and time.monotonic() - line.opened_s < MAX_AGE_S:
            try:
                return await self._ask(line, watch)
            except ProbeFailedError:
                # The exporter may close what is idle, at the moment when we ask.
                if line.answer is None or line.answer.has_begun:
                    raise
                watch.note("the connection that was kept is closed; a new one is made")
        await self.close()
        line = _Line()
        transport = await self._stack.enter_async_context(dialled(self._target, line, self._resolver, watch))
        line.write = transport.write
        self.connections += 1
        self._line = line
        return await self._ask(line, watch)

    async def _ask(self, line: _Line, watch: Watch) -> PageAnswer:
        answer = line.answer = PageAnswer(watch, self._job.file.max_body_bytes)
        watch.enter(Phase.FIRST_BYTE)
        try:
            line.write(self._head + self._secrets())
            await answer.heard
        except BaseException:
            await self.close()
            raise
        if answer.is_last:
            await self.close()
        return answer

    def _secrets(self) -> bytes:
        files = self._job.file.header_files
        lines = (f"{name}: {read_secret(path, f'header_files.{name}')}\r\n" for name, path in files.items())
        return "".join(lines).encode("ascii") + b"\r\n"
