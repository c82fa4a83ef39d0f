"""Merges of the embedded store give way to questions and inserts, as long as they keep up."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import structlog

from streams.archive.embedded import Handle, SqlError
from streams.archive.metrics import ArchiveMetrics

# Of the fullest partition. The engine holds up inserts at 1,000.
MANY_PARTS = 150
FEW_PARTS = 75

_MERGES = b"MergeMutate\n"  # as the engine calls its threads
_PLACE_EVERY_S = 1.0
_ASK_EVERY_S = 5.0
_ANSWER_S = 5.0
_PARTS = """
    SELECT max(parts) FROM (
        SELECT count() AS parts FROM system.parts WHERE active GROUP BY database, table, partition_id)"""

_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What can be asked for its parts."""

    def handle(self) -> AbstractContextManager[Handle]:
        """A new connection."""


def give_way(parts: int, *, before: bool) -> bool:
    """Whether merges still do, or do again: until there are many parts, and then not before there are few."""
    return parts < MANY_PARTS if before else parts <= FEW_PARTS


def why_not() -> str | None:
    """What keeps merges of this process from giving way; None when nothing does.

    A thread may always enter SCHED_IDLE. Whether it may leave is up to capabilities, limits and sandboxes, so a thread
    that is good for nothing else tries it.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no SCHED_IDLE, only Linux has"
    normal = os.sched_getscheduler(os.getpid())
    if normal not in {os.SCHED_OTHER, os.SCHED_BATCH}:
        return f"the process is in scheduling class {normal}, expected SCHED_OTHER or SCHED_BATCH"
    refused: list[OSError] = []

    def enter_and_leave() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setscheduler(0, normal, os.sched_param(0))
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=enter_and_leave)
    thread.start()
    thread.join()
    if refused:
        return (
            f"a thread may not leave SCHED_IDLE again ({refused[0].strerror}); expected LimitNICE=+0 in a systemd "
            "unit, ulimits: nice: 20 in a container, or CAP_SYS_NICE"
        )
    return None


class MergeThreads:
    """The threads of this process that merge, and the scheduling class that they are in.

    Nothing else of this process is in SCHED_IDLE. So a thread that is, but does not merge, is taken out too: it has
    other work now, or a merge has started it, and a thread begins in the class of the one that started it.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._ended = False

    def place(self, *, idle: bool) -> None:
        """Puts them there, or back. A millisecond for fifty threads, most of it for reading their names."""
        with self._turn:
            if not self._ended:
                self._place(idle=idle)

    def end(self) -> None:
        """Puts them back for good, whatever is on its way on another thread."""
        with self._turn:
            self._ended = True
            self._place(idle=False)

    def _place(self, *, idle: bool) -> None:
        if sys.platform != "linux":
            return
        normal = os.sched_getscheduler(os.getpid())
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended
                thread = int(task.name)
                is_idle = os.sched_getscheduler(thread) == os.SCHED_IDLE
                wants_idle = idle and (task / "comm").read_bytes() == _MERGES
                if is_idle != wants_idle:
                    os.sched_setscheduler(thread, os.SCHED_IDLE if wants_idle else normal, os.sched_param(0))


class GivingWay:
    """Decides by the engine's parts, and places its threads. Without an answer they have their normal priority."""

    def __init__(self, engine: Engine, metrics: ArchiveMetrics, *, allowed: bool) -> None:
        self._engine = engine
        self._metrics = metrics
        self._threads = MergeThreads() if allowed else None
        self._keep_up = True
        self._idle = False
        self._told = False

    async def run(self) -> None:
        """Until cancelled; the threads are as before then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._decide_again())
                if self._threads is not None:
                    tasks.create_task(self._place_again(self._threads))
        finally:
            if self._threads is not None:
                self._threads.end()
            self._metrics.merges_give_way.set(0)

    async def decide(self) -> None:
        """Asks the engine once. When its answer is late, it may be a merge that it waits for: none gives way then."""
        asked = asyncio.ensure_future(asyncio.to_thread(self._ask))
        in_time, _ = await asyncio.wait([asked], timeout=_ANSWER_S)
        if not in_time:
            self._without_answer(f"none within {_ANSWER_S:g} s")
        try:
            parts = await asked
        except (SqlError, OSError) as error:
            self._without_answer(str(error)[:300])
            return
        self._metrics.parts.set(parts)
        self._keep_up = give_way(parts, before=self._keep_up)
        if in_time:
            self._idle = self._keep_up
            self._told = False

    async def _decide_again(self) -> None:
        while True:
            await self.decide()
            await asyncio.sleep(_ASK_EVERY_S)

    async def _place_again(self, threads: MergeThreads) -> None:
        while True:
            idle = self._idle
            await asyncio.to_thread(threads.place, idle=idle)
            self._metrics.merges_give_way.set(idle)
            await asyncio.sleep(_PLACE_EVERY_S)

    def _ask(self) -> int:
        with self._engine.handle() as handle:
            return int(handle.query(_PARTS).data)

    def _without_answer(self, why: str) -> None:
        self._idle = False
        if not self._told:
            self._told = True
            _log.warning("parts-unknown", why=why, merges="at normal priority until there is an answer")


@asynccontextmanager
async def giving_way(
    engine: Engine, metrics: ArchiveMetrics, why_not: Callable[[], str | None] = why_not
) -> AsyncIterator[None]:
    """Within it merges give way where they may; at its end their threads are as they were."""
    reason = why_not()
    if reason is not None:
        _log.info("merges-at-normal-priority", why=reason)
    task = asyncio.create_task(GivingWay(engine, metrics, allowed=reason is None).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
