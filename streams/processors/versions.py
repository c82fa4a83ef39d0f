"""Which objectives judge, as one worker knows it: reads the topic `objectives`, and announces what its file changes."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from streams import metrics
from streams.core.objectives import Objective
from streams.core.slices import SLICE_MS
from streams.core.versions import CONFIRMED_FOR_MS, Announce, Announcement, Outdated, Same, Timeline, propose
from streams.engine.announcements import LogShrunkError, SetUnreadableError, read_set, write_set
from streams.engine.transport import clock_s

CONFIRM_EVERY_S = 2.0
# One attempt; then the next one begins.
CONFIRM_TIMEOUT_S = 10.0
# A worker that for so long could not find out whether it judges by the newest set ends itself.
GIVE_UP_AFTER_S = 60.0

log = structlog.get_logger("fleetbeat.objectives")


class NotConfirmedError(RuntimeError):
    """Nobody knows whether the objectives that this worker has are still those in force."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the topic objectives could not be read to its end for {GIVE_UP_AFTER_S:.0f} s ({why}); "
            f"expected that every {CONFIRM_EVERY_S:.0f} s"
        )


class Log(Protocol):
    """The topic, as `streams.engine.announcements.AnnouncementLog` reads it."""

    async def read_to_end(self) -> list[ConsumerRecord[bytes, bytes]]:
        """What was appended since the last call, at least all that was there when this one began."""

    async def append(self, value: bytes) -> int:
        """The offset of the new record."""

    async def forget(self, keys: Collection[bytes]) -> None:
        """Tombstones."""


OpenLog = Callable[[], AbstractAsyncContextManager[Log]]


@dataclass(frozen=True, slots=True)
class Announced:
    """What came of a file: since when its objectives judge; `new` when it was announced for that."""

    new: bool
    objectives: int
    start_ms: int


class Versions:
    """The timeline of one worker, kept up with the topic by `confirm`. One event loop only."""

    def __init__(self, log: Log, host: str, now_s: Callable[[], float] = clock_s) -> None:
        """`now_s` goes on while the machine sleeps."""
        self._host = host
        self.timeline = Timeline(())
        self._log = log
        self._now_s = now_s
        self._announced: dict[bytes, Announcement] = {}
        self._confirmed_s = float("-inf")
        self._unusable: Exception | None = None  # the topic holds what cannot be judged by, or has lost something
        self._reading = asyncio.Lock()

    def known(self) -> Timeline | None:
        """The timeline, when it holds all sets that can judge what was fetched until now; else None."""
        fresh = self._now_s() - self._confirmed_s < CONFIRMED_FOR_MS / 1_000
        return self.timeline if fresh and self.timeline.eras and self._unusable is None else None

    async def confirm(self) -> None:
        """Read to the end of the topic. Raises KafkaError, TimeoutError, and what only an upgrade can heal."""
        async with self._reading:
            if self._unusable is not None:
                raise self._unusable
            asked_s = self._now_s()
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                    records = await self._log.read_to_end()
                if any([self._apply(record) for record in records]):  # noqa: C419 - all of them
                    self.timeline = self._timeline()
            except (KafkaError, TimeoutError):
                raise
            except Exception as error:
                # Whoever asks next must not go on behind it: the first to hear may be somebody who wanted a reload.
                self._unusable = error
                raise
            self._confirmed_s = asked_s

    async def follow(self) -> None:
        """Confirm again and again. Raises NotConfirmedError when that fails for too long."""
        failing_since_s: float | None = None
        while True:
            before = self.timeline
            try:
                await self.confirm()
                failing_since_s = None
            except (KafkaError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                failing_since_s = self._now_s() if failing_since_s is None else failing_since_s
                log.warning("the topic objectives cannot be read to its end", error=why)
                if self._now_s() - failing_since_s >= GIVE_UP_AFTER_S:
                    raise NotConfirmedError(why) from error
            if self.timeline is not before:
                last = self.timeline.eras[-1]
                log.info("objectives heard", objectives=len(last.objectives), start_ms=last.since_s * SLICE_MS)
            await asyncio.sleep(CONFIRM_EVERY_S)

    async def offer(self, objectives: tuple[Objective, ...], file_ms: int) -> Announced:
        """What a starting worker does with its file."""
        await self.confirm()
        match propose(objectives, file_ms, self._host, list(self._announced.values())):
            case Announce():
                return await self._announce(objectives)
            case Outdated(newer_ms):
                log.warning(
                    "another host has announced newer objectives: this file is not used; reload it to insist",
                    file_ms=file_ms,
                    newer_ms=newer_ms,
                )
                metrics.OBJECTIVES_FILE_USED.set(0)
                return self._standing()
            case Same():
                metrics.OBJECTIVES_FILE_USED.set(1)
                return self._standing()

    async def announce(self, objectives: tuple[Objective, ...]) -> Announced:
        """Make a file that somebody has changed, or asked to load, the newest set, unless it is that already."""
        await self.confirm()
        if self.timeline.newest != objectives:
            return await self._announce(objectives)
        metrics.OBJECTIVES_FILE_USED.set(1)
        return self._standing()

    async def _announce(self, objectives: tuple[Objective, ...]) -> Announced:
        value = write_set(objectives, self._host)
        async with asyncio.timeout(CONFIRM_TIMEOUT_S):
            offset = await self._log.append(value)
        await self.confirm()
        # Without an era of its own it took something back that has not started, or another worker has spoken since.
        last = self.timeline.eras[-1]
        start_ms = SLICE_MS * next((era.since_s for era in self.timeline.eras if era.offset == offset), last.since_s)
        metrics.OBJECTIVES_FILE_USED.set(self.timeline.newest == objectives)
        log.info("objectives announced", objectives=len(objectives), offset=offset, start_ms=start_ms)
        await self._prune(offset)
        return Announced(new=True, objectives=len(objectives), start_ms=start_ms)

    def _standing(self) -> Announced:
        last = self.timeline.eras[-1]
        return Announced(new=False, objectives=len(last.objectives), start_ms=last.since_s * SLICE_MS)

    async def _prune(self, offset: int) -> None:
        """What judges nothing any more is deleted when something new is said."""
        now_ms = next(a.append_ms for a in self._announced.values() if a.offset == offset)
        first = self.timeline.ended_before(now_ms)
        ended = [key for key, announcement in self._announced.items() if announcement.offset < first]
        if ended:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await self._log.forget(ended)

    def _timeline(self) -> Timeline:
        """Raises LogShrunkError when nothing is left to judge by."""
        if self.timeline.eras and not self._announced:
            raise LogShrunkError("every set in objectives was deleted; expected the one in force to stay")
        return Timeline(self._announced.values())

    def _apply(self, record: ConsumerRecord[bytes, bytes]) -> bool:
        """Whether the record changes anything. Raises NewerWriterError."""
        key = record.key or b""
        if record.value is None:
            return self._announced.pop(key, None) is not None
        try:
            announcement = read_set(record)
        except SetUnreadableError as error:  # every worker finds the same and goes on with what is in force
            metrics.OBJECTIVE_SETS_UNREADABLE.inc()
            log.warning("a record of objectives is no set and changes nothing", offset=record.offset, why=str(error))
            return False
        # A key that comes twice would lose its first announcement to compaction.
        return self._announced.setdefault(key, announcement) is announcement
