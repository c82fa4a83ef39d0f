"""The SQL address itself: how many connections it takes, and under which names it answers."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Self

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from schemas.listen import ListenAddress

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 512
"""Half of the files that a process may usually open: the other half is for the store and Kafka, whoever connects."""
_TELL_AGAIN_S = 60.0


class SqlListener:
    """Listens for a runner that was set up; a connection too many is closed at once, whether it logs in or not."""

    def __init__(self, server: asyncio.Server) -> None:
        """Use `open`."""
        self._server = server

    @classmethod
    async def open(cls, runner: web.AppRunner, address: ListenAddress, most: int = MAX_CONNECTIONS) -> Self:
        """Raises OSError when the port is taken."""
        handlers = runner.server
        if handlers is None:
            raise RuntimeError("a runner that was not set up")

        loop = asyncio.get_running_loop()
        told_s = -math.inf

        def protocol() -> asyncio.Protocol:
            nonlocal told_s
            if len(handlers.connections) < most:
                return handlers()
            if loop.time() - told_s >= _TELL_AGAIN_S:
                told_s = loop.time()
                _log.warning("sql_connections_full", connections=most)
            return _Closed()

        return cls(await loop.create_server(protocol, address.host, address.port))

    @property
    def port(self) -> int:
        """On which it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Takes no more connections; those that are open stay."""
        self._server.close()


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def only_for(hosts: frozenset[str]) -> Middleware:
    """Web pages cannot reach this address under a name of their own (DNS rebinding), nor send queries to it blindly."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if host_of(request.host) not in hosts:
            return web.Response(status=403, text=f"Host {request.host}: expected one of {', '.join(sorted(hosts))}\n")
        if request.headers.get("Sec-Fetch-Site") == "cross-site":  # so say browsers of what a page elsewhere sends
            return web.Response(status=403, text="Sec-Fetch-Site: cross-site: queries from web pages are refused\n")
        return await handler(request)

    return guard


def host_of(header: str) -> str:
    """The name without its port, in lower case: names of hosts have none."""
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()
