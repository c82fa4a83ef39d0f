"""A network between archives and the server that fails as it is told to: an HTTP proxy on a thread of its own."""

import asyncio
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self

import aiohttp
from aiohttp import web

from infra.state import LOOPBACK
from tests.faults.driver.proxy import RESET
from tests.ports import free_port

# `reset-before`: the server never sees the request; `reset-after`: it did all, the answer is lost; `swallow`: the same,
# but the connection stays; `late`: the client hears nothing, the server gets the request `seconds` later.
Kind = Literal["reset-before", "reset-after", "swallow", "late", "slow", "error", "drip"]
_ANSWER_S = 120.0
_LARGEST_BYTES = 256 << 20
_DRIP_S = 0.2


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to requests whose text begins with `to`; to the next `times` of them, or to all."""

    kind: Kind
    to: bytes = b""
    times: int | None = None
    seconds: float = 5.0


class FaultProxy:
    """Passes requests on to `target` while its context lasts; `fault` holds for those that come in."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.done: Counter[str] = Counter()
        """How many requests each kind of fault has met."""
        self._target = f"http://{LOOPBACK}:{target}"
        self._fault: Fault | None = None
        self._left = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._late: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def break_with(self, fault: Fault | None) -> None:
        """From now on; None heals."""
        self._fault, self._left = fault, (fault.times or 0) if fault else 0

    def await_faults(self, kind: Kind, count: int, timeout_s: float) -> None:
        """Returns when so many requests have met that fault since the proxy began. Raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while self.done[kind] < count:
            assert time.monotonic() < deadline, f"{self.done[kind]} requests met {kind}; expected {count}"
            time.sleep(0.05)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=_ANSWER_S),
            connector=aiohttp.TCPConnector(limit=0),
        )
        application = web.Application(client_max_size=_LARGEST_BYTES)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()

    async def _end(self) -> None:
        self._fault = None
        for task in self._late:
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    def _next(self, text: bytes) -> Fault | None:
        fault = self._fault
        if fault is None or not text.lstrip().startswith(fault.to):
            return None
        if fault.times is not None:
            if self._left <= 0:
                return None
            self._left -= 1
        self.done[fault.kind] += 1
        return fault

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionError:  # whoever asked has died
            return _reset(request)
        fault = self._next(request.query.get("query", "").encode() + body[:4096])
        if fault is not None and (refusal := await self._before(fault, request, body)):
            return refusal
        try:
            status, answer, headers = await self._pass_on(request, body)
        except (aiohttp.ClientError, TimeoutError):
            return _reset(request)
        if fault is not None and fault.kind in {"reset-after", "swallow"}:
            while fault.kind == "swallow" and self._fault is fault:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.05)
            return _reset(request)
        if fault is not None and fault.kind == "drip":
            return await _drip(request, web.StreamResponse(status=status, headers=headers), answer)
        return web.Response(status=status, body=answer, headers=headers)

    async def _before(self, fault: Fault, request: web.Request, body: bytes) -> web.Response | None:
        """What the client gets in place of an answer; None when the request is passed on."""
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "error":
            return web.Response(status=500, text="Code: 999. DB::Exception: the proxy says so. (KEEPER_EXCEPTION)")
        if fault.kind == "late":
            task = asyncio.create_task(self._pass_on_late(request, body, fault.seconds))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        return _reset(request) if fault.kind in {"late", "reset-before"} else None

    async def _pass_on(self, request: web.Request, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            request.method, f"{self._target}{request.path_qs}", data=body, headers=headers
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return answer.status, await answer.read(), kept

    async def _pass_on_late(self, request: web.Request, body: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._pass_on(request, body)
        self.done["late-arrived"] += 1


_HOP = frozenset({"connection", "content-length", "transfer-encoding", "host", "keep-alive"})


def _reset(request: web.Request) -> web.Response:
    """RST to the client; what is returned goes nowhere."""
    if request.transport is not None:
        sock: socket.socket = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        request.transport.abort()
    return web.Response(status=500)


async def _drip(request: web.Request, response: web.StreamResponse, answer: bytes) -> web.StreamResponse:
    """A few bytes at a time."""
    await response.prepare(request)
    for place in range(0, len(answer), max(len(answer) // 20, 1)):
        await response.write(answer[place : place + max(len(answer) // 20, 1)])
        await asyncio.sleep(_DRIP_S)
    await response.write_eof()
    return response
