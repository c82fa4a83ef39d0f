"""The agent's pages over HTTP: /metrics, /-/healthy, /-/ready, and POST /-/reload.

A few lines instead of a server's megabytes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

MAX_CLIENTS = 16
CLIENT_S = 5.0
# What a client asks for may take its time, as a large config does; a client may not.
ACTION_S = 60.0
MAX_HEAD_BYTES = 16 * 1024
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    allow: str = ""


Make = Callable[[], Awaitable[Page]]


class Server:
    """Answers GET, HEAD and POST on fixed paths, one request a connection. It may listen elsewhere while it runs."""

    def __init__(self, pages: dict[str, Make], actions: dict[str, Make] | None = None) -> None:
        self._makers = {path: (b"GET", make) for path, make in pages.items()}
        self._makers |= {path: (b"POST", make) for path, make in (actions or {}).items()}
        self._clients = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> str:
        """Listens there, and no longer elsewhere; returns the address as HOST:PORT.

        Raises OSError, and listens where it did.
        """
        server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        self.close()
        self._server = server
        at = self._server.sockets[0].getsockname()
        return f"[{at[0]}]:{at[1]}" if ":" in at[0] else f"{at[0]}:{at[1]}"

    def close(self) -> None:
        """Listens no longer; who is connected is answered."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(CLIENT_S) as limit:
                    asked = await reader.readuntil(b"\r\n\r\n")
                    page = await self._answer(asked, limit)
                    writer.write(_head(page) + (b"" if asked.startswith(b"HEAD ") else page.body))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that is slow, gone, or does not speak HTTP
        except asyncio.CancelledError:
            pass  # the agent ends; asyncio's streams would report a cancelled handler as a failure (3.11)
        finally:
            self._clients -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes, limit: asyncio.Timeout) -> Page:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        found = self._makers.get(path)
        if found is None:
            return Page(HTTPStatus.NOT_FOUND, "".join(f"{known}\n" for known in self._makers).encode())
        expected, make = found
        allowed = [b"GET", b"HEAD"] if expected == b"GET" else [expected]
        if method not in allowed:
            only = b", ".join(allowed)
            return Page(HTTPStatus.METHOD_NOT_ALLOWED, b"only %b\n" % only, allow=only.decode())
        if expected == b"POST":
            limit.reschedule(asyncio.get_running_loop().time() + ACTION_S)
        return await make()


def _head(page: Page) -> bytes:
    allow = f"Allow: {page.allow}\r\n" if page.allow else ""
    return (
        f"HTTP/1.1 {page.status} {page.status.phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n{allow}Connection: close\r\n\r\n"
    ).encode()
