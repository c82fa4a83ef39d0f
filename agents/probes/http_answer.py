"""One answer over HTTP/1.1 as it arrives: parsed by httptools, and cut off at caps for its head and all of it."""

import httptools

from agents.probes.base import Phase
from agents.probes.dial import Conversation
from agents.probes.watch import Watch

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 256
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SWITCHING = 101
_FIRST_FINAL = 200


class HttpAnswer(Conversation):
    """Status, headers (names in lower case, the last one of a name wins) and body; `heard` when there is enough.

    `max_bytes` caps what follows the head, chunk sizes and trailers included. Nothing is ever decompressed. Of a
    redirect that will be followed, and of an answer to HEAD, only the head is read.
    """

    def __init__(self, watch: Watch, max_bytes: int, *, is_head: bool, follows: bool, keeps_body: bool) -> None:
        super().__init__()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self._watch = watch
        self._max_bytes = max_bytes
        self._is_head = is_head
        self._follows = follows
        self._keeps_body = keeps_body
        self._parser = httptools.HttpResponseParser(self)
        self._received = 0
        self._header_count = 0
        self._has_head = False

    @property
    def redirect(self) -> str | None:
        """Where the answer sends us, when that is to be followed."""
        return self.headers.get("location") if self._follows and self.status in REDIRECTS else None

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self.heard.done():
            return
        if not self._received:
            self._watch.enter(Phase.TRANSFER)
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.enough()
        except httptools.HttpParserError as cause:
            self.fail("bad-answer", f"no HTTP: {cause}; it begins with {data[:40]!r}")
        if not self._has_head and self._received > MAX_HEAD_BYTES:
            self.fail("too-large", f"headers of more than {MAX_HEAD_BYTES} bytes")
        elif self._received > MAX_HEAD_BYTES + self._max_bytes:
            self._too_large()

    def on_message_begin(self) -> None:
        """Called by httptools, as are all of these."""
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which nobody needs."""
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            self.fail("too-large", f"more than {MAX_HEADERS} headers")
        elif not self._has_head:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there; perhaps it is all that is needed."""
        self.status = self._parser.get_status_code()
        if self.status < _FIRST_FINAL and self.status != _SWITCHING:
            return  # 100 Continue and 103 Early Hints: the answer is still to come
        self._watch.status_code = self.status
        self._has_head = True
        if self._is_head or self.redirect is not None:
            self.enough()
        elif int(self.headers.get("content-length", "0")) > self._max_bytes:
            self._too_large()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._keeps_body and not self.heard.done():
            self.body += body

    def on_message_complete(self) -> None:
        """The last byte is there, unless this was not the answer yet."""
        if self._has_head:
            self.enough()

    def closed(self) -> None:
        """The server hung up, which ends an answer that does not say how long it is."""
        if not self._received:
            self.fail("closed", "closed without an answer")
        elif not self._has_head or self.headers.keys() & {"content-length", "transfer-encoding"}:
            self.fail("closed", f"closed in the middle of the answer, after {self._received} bytes")
        else:
            self.enough()

    def _too_large(self) -> None:
        self.fail("too-large", f"more than {self._max_bytes} bytes; expected at most max_body_bytes")
