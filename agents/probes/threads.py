"""Calls that can block for ever, such as statvfs() on a dead NFS server, kept off the event loop and off each other."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class SideThread(Generic[ResultT]):
    """One probe's blocking call, at most one at a time.

    Each has a thread of its own: in a pool, those that hang would starve the others. It is a daemon, so that the agent
    stops without it, and the next call waits until it is done: a dead mount costs one thread, however often it is
    probed.
    """

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self._pending: asyncio.Future[ResultT] | None = None

    async def call(self) -> ResultT:
        """What the work returns; raises what it raises. Cancelled, it leaves a thread that hangs to itself."""
        while self._pending is not None and not self._pending.done():
            await asyncio.wait([self._pending])
        loop = asyncio.get_running_loop()
        self._pending = loop.create_future()
        context = copy_context()  # what it logs belongs to the run
        thread = threading.Thread(target=context.run, args=(self._run, loop, self._pending), daemon=True, name="probe")
        thread.start()
        return await asyncio.shield(self._pending)

    def _run(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[ResultT]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the agent has stopped meanwhile
            try:
                result = self._work()
            except Exception as cause:  # noqa: BLE001 - it is the caller's
                loop.call_soon_threadsafe(_refuse, answer, cause)
            else:
                loop.call_soon_threadsafe(answer.set_result, result)


def _refuse(answer: asyncio.Future[ResultT], cause: Exception) -> None:
    answer.set_exception(cause)
    answer.exception()  # seen: a probe that was cancelled never asks for it
