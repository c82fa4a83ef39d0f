"""Questions to the other workers: each is passed on once, to an address that the group itself has named."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

from streams import metrics
from streams.core.routing import Members
from streams.processors.queries import NotHereError

# Whoever sends this header is a worker, or wants to hear what this worker keeps itself: nothing is passed on again.
HOP = "Fleetbeat-Hop"
TIMEOUT_S = 2.0
MAX_AT_ONCE = 64
MAX_ANSWER_BYTES = 64 << 20
NOT_PASSED_ON = "; the question was passed on once, and is not passed on again"
NOBODY_ELSE = ", and the group names nobody to ask (does it have an address of its own? see --advertise)"
_OK, _NOT_FOUND, _UNAVAILABLE = 200, 404, 503

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What another worker answers: 200, or 404 where it knows no such thing."""

    found: bool
    body: Json


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for another worker; `about` is what an answer that has something must say of itself."""

    address: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


class Peers:
    """The other workers of the group. Every question raises NotHereError where there is no answer."""

    def __init__(self, members: Callable[[], Members], timeout_s: float = TIMEOUT_S) -> None:
        self._members = members
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._session: ClientSession | None = None

    @property
    def members(self) -> Members:
        """As the group has last agreed."""
        return self._members()

    async def ask(self, asked: Asked) -> Reply:
        """One question; whoever waits too long for its turn has no answer either."""
        begun_s = time.monotonic()
        outcome = "failed"
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                status, body = await self._get(asked)
            outcome = "answered" if status in (_OK, _NOT_FOUND) else "refused"
        except TimeoutError:
            outcome = "timeout"
            raise NotHereError(
                f"worker {asked.address} keeps this and has not answered within {self._timeout_s:g} s"
            ) from None
        except (ClientError, OSError, RecursionError, ValueError) as cause:
            why = str(cause) or type(cause).__name__
            raise NotHereError(f"worker {asked.address} keeps this and cannot be asked: {why}") from cause
        finally:
            metrics.FORWARDS.labels(outcome).inc()
            metrics.FORWARD_SECONDS.observe(time.monotonic() - begun_s)
        if outcome == "refused":
            said = body.get("error", "no reason given")
            raise NotHereError(
                f"worker {asked.address}: {said}"
                if status == _UNAVAILABLE
                else f"worker {asked.address} answered {status}: {said}; expected an answer, a worker of this version"
            )
        return Reply(status == _OK, body)

    async def ask_all(
        self, addresses: Collection[str], path: str, query: Mapping[str, str], about: Mapping[str, str] | None = None
    ) -> list[Reply]:
        """The same question to many: all of them answer, or NotHereError is raised."""
        asked = [Asked(address, path, query, about or {}) for address in addresses]
        return list(await asyncio.gather(*map(self.ask, asked)))

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, asked: Asked) -> tuple[int, Json]:
        """Raises ClientError, OSError, and ValueError for what is no JSON object."""
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=MAX_AT_ONCE),
                cookie_jar=DummyCookieJar(),
                timeout=ClientTimeout(total=None),
                headers={HOP: "1"},
            )
        url = URL(f"http://{asked.address}{asked.path}", encoded=True).with_query(dict(asked.query))
        async with self._session.get(url, allow_redirects=False) as answer:
            body = await _read(answer.content.iter_chunked(1 << 16))
            found = json.loads(body)
            if not isinstance(found, dict):
                raise ValueError(f"answered {body[:100]!r}; expected a JSON object")  # noqa: TRY004 - of its words, not of ours
            if answer.status == _NOT_FOUND and "error" not in found:
                raise ValueError(f"answered 404 {body[:100]!r}; expected what is not found")
            if answer.status == _OK and any(found.get(name) != what for name, what in asked.about.items()):
                raise ValueError(f"answered {body[:100]!r}; expected {dict(asked.about)}")
            return answer.status, found


async def _read(chunks: Any) -> bytes:  # noqa: ANN401 - aiohttp names no type for it
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError(f"answered more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def passed_on(request: web.Request) -> bool:
    """Whether this worker is to answer from what it keeps itself."""
    return HOP in request.headers
