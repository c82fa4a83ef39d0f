"""The objectives table: cumulative cells in, tiers of slices in memory and in state pages.

One thread folds, as soon as something has come, and shows what has come of it. Who reads takes what was shown last, on
the event loop, and waits for no fold. Pages are taken between two folds, a partition at a time, and made into bytes by
a thread of their own.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams import metrics
from streams.core.packed import Packed
from streams.core.rows import Steps
from streams.core.series import SeriesIndex
from streams.core.summaries import Shown
from streams.core.table import Chunk
from streams.engine.app import App, nothing_is_done
from streams.engine.changelog import ReadLog
from streams.engine.intake import Intake
from streams.engine.pages import OPEN, Write, chunk_part, page_key, take_chunk, take_open
from streams.engine.threads import step_back
from streams.engine.transport import Consumer, Poll, ResumePoint, topic_partitions
from streams.processors.dead_letters import Letter, send_letters
from streams.processors.series_telling import SeriesTeller
from streams.processors.slo_parts import SERIES_MOST, Part, PartFolder
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS, SloRecovery

ResultT = TypeVar("ResultT")

# Polls wait while this many are not yet folded.
MAX_PENDING = 1_000

log = structlog.get_logger("fleetbeat.objectives")


class NotKeptError(LookupError):
    """A partition of `slo-partials` is not one of ours."""


class NotHeardError(LookupError):
    """The group has not heard of this worker for so long that its partitions may be another one's."""


@dataclass(slots=True)
class Snapshot:
    """Pages of one partition, taken between two folds: chunks are written before what stands for them."""

    partition: int
    applied: int
    chunks: list[tuple[bytes, Write]] = field(default_factory=list)
    opens: list[tuple[bytes, Write]] = field(default_factory=list)
    tombstones: list[bytes] = field(default_factory=list)
    loose: list[tuple[Chunk, Steps]] = field(default_factory=list)

    def pages(self) -> "Pages":
        """As bytes."""
        return Pages(
            [(self.partition, key, write()) for key, write in self.chunks],
            [(self.partition, key, write()) for key, write in self.opens],
            [(chunk, Packed.of(rows), rows) for chunk, rows in self.loose],
        )


@dataclass(frozen=True, slots=True)
class Pages:
    """(partition, key, value) of records; `packed`: (chunk, packed, rows) of chunks that need not be loose any more."""

    chunks: list[tuple[int, bytes, bytes]]
    opens: list[tuple[int, bytes, bytes]]
    packed: list[tuple[Chunk, Packed, Steps]] = field(compare=False)

    def pack(self) -> None:
        """To be called where the tables are folded."""
        for chunk, packed, rows in self.packed:
            chunk.pack(packed, rows)
        self.packed.clear()


class ObjectivesProcessor:
    """Owns a `Part` for each assigned partition of `slo-partials`. Only one thread touches its tables, in order."""

    def __init__(self, app: App, read: ReadLog, index: SeriesIndex, series_most: int = SERIES_MOST) -> None:
        """`read` gives all that a topic holds; of a partition at most `series_most` plain series are kept apart."""
        self.parts: dict[int, Part] = {}
        self.recovered = False
        self.index = index
        self._app = app
        self._folder = PartFolder(index, series_most)
        self._series = SeriesTeller()
        self._recovery = SloRecovery(app, read, self._folder, self.in_thread)
        self._intake = Intake(app, PARTIALS)
        self._thread = ThreadPoolExecutor(1, "objectives")
        self._page_thread = ThreadPoolExecutor(1, "pages", step_back)
        self._read_thread = ThreadPoolExecutor(1, "reads")
        self._pending: deque[Poll] = deque()  # filled by the event loop, emptied by the thread
        self._arrived = asyncio.Event()
        self._letters: deque[Letter] = deque()  # filled by the thread, emptied by the event loop
        self._owner = ""
        self._epoch = 0
        self._generation = -1

    def lose_all(self) -> None:
        """A rebalance has begun: nothing is answered, and nothing saved, until recovery is complete."""
        self._epoch += 1
        self.recovered = False
        self._intake.lose_all()
        self._pending = deque()  # the thread may be emptying the other one

    async def recover(self, owned: Iterable[int]) -> None:
        """Every partition is sought to its commit: build the tables of newly owned ones, drop those of others.

        Tables are kept when the group has not met since without us: nobody else can have changed their pages.
        """
        epoch, owned = self._epoch, set(owned)
        started = time.monotonic()
        generation = self._app.consumer_generation_id
        followed = generation == self._generation + 1
        topic_id = self._consumer.identity(PARTIALS).topic_id
        mine = {p: part for p, part in self.parts.items() if p in owned and part.origin.topic_id == topic_id}
        kept = mine if followed else {}
        self.parts = kept  # what is built anew should not be in memory twice
        built = await self._recovery.build(owned - kept.keys())
        for part in built.values():
            await self.in_thread(part.show)
        if epoch != self._epoch:
            return
        self.parts = kept | built
        self._owner = uuid.uuid4().hex[:12]
        self._generation = generation
        self.recovered = True
        seconds = round(time.monotonic() - started, 3)
        log.info("tables recovered", partitions=sorted(built), kept=sorted(kept), seconds=seconds)

    async def bound(self, series_most: int) -> None:
        """From now on a partition keeps so many plain series apart."""
        await self.in_thread(self._folder.bound, series_most)

    async def process(self, stream: AsyncIterable[Poll]) -> None:
        """Faust's entry: each event is what one poll brought for one partition."""
        async for poll in stream:
            epoch = self._epoch
            records = await self._intake.take(poll)
            if not records or epoch != self._epoch:
                continue
            self._pending.append(records)
            self._arrived.set()
            while len(self._pending) > MAX_PENDING and epoch == self._epoch and not nothing_is_done(self._app):
                await (self.in_thread(self._fold_pending) if self.recovered else asyncio.sleep(0.01))

    async def due(self, after_s: float) -> None:
        """Returns as soon as something has come that is not yet folded, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self._arrived.wait()
        self._arrived.clear()

    async def fold(self) -> None:
        """Take in what was received, and show it."""
        if self.recovered:
            await self.in_thread(self._fold_pending)

    async def save(self) -> None:
        """Write the pages of everything that has changed, await every ack, then move the commit."""
        epoch = self._epoch
        if not self.recovered:
            return
        with metrics.SNAPSHOT_SECONDS.time():
            await self.fold()
            snapshots, written = await self._taken(epoch)
            if snapshots:
                await self._consumer.confirm(PARTIALS)
            letters = [self._letters.popleft() for _ in range(len(self._letters))]
            await asyncio.gather(*await send_letters(self._app, letters))
            # Also when partitions are taken away meanwhile: their chunks do not count as changed any more.
            await self._write([page for pages in written for page in pages.chunks])
            if epoch != self._epoch:
                return
            await self._write([page for pages in written for page in pages.opens])
            if epoch != self._epoch:
                return
        for snapshot in snapshots:
            self._consumer.resume_points[TP(PARTIALS, snapshot.partition)] = ResumePoint(snapshot.applied + 1, 0)
        await self._write([(s.partition, key, None) for s in snapshots for key in s.tombstones])

    async def _taken(self, epoch: int) -> tuple[list[Snapshot], list[Pages]]:
        """Of every partition that is still ours; between two of them there may be folds."""
        owned = topic_partitions(self._consumer.assignment(), PARTIALS)
        snapshots: list[Snapshot] = []
        written: list[Pages] = []
        for partition, part in [*self.parts.items()]:
            if epoch != self._epoch:
                break
            if partition in owned and part.applied > part.saved:
                for table in part.tables.values():
                    await self.in_thread(table.seal)  # most of a snapshot's work, with folds in between
                snapshot = await self.in_thread(self._snapshot, partition, part)
                snapshots.append(snapshot)
                pages = await self._on(self._page_thread, snapshot.pages)
                await self.in_thread(pages.pack)
                written.append(pages)
        await self.in_thread(self._series.tell, [*self.parts.values()], self.index)
        return snapshots, written

    def read(self, partition: int, step: Callable[[Shown], ResultT]) -> ResultT:
        """Run a short `step` on what is shown of a partition: on the event loop, it waits for nothing.

        Raises NotKeptError and NotHeardError.
        """
        return step(self._shown(partition))

    async def read_apart(self, partition: int, step: Callable[[Shown], ResultT]) -> ResultT:
        """The same for a `step` that takes long, on a thread of its own.

        Raises NotHeardError also when the worker stood still in the meantime.
        """
        epoch, shown = self._epoch, self._shown(partition)
        found = await self._on(self._read_thread, step, shown)
        # A rebalance may have come and gone meanwhile; then the group has heard of us, but the answer is of before.
        if epoch != self._epoch or not self._consumer.holds_assignment():
            raise NotHeardError(partition)
        return found

    def _shown(self, partition: int) -> Shown:
        part = self.parts.get(partition)
        if part is None:
            raise NotKeptError(partition)
        if not self.recovered or not self._consumer.holds_assignment():
            raise NotHeardError(partition)
        return part.shown

    async def in_thread(self, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - passed on
        """Run a step between folds: the tables stand still for it."""
        return await self._on(self._thread, step, *args)

    async def _on(self, thread: ThreadPoolExecutor, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - as above
        return await asyncio.get_running_loop().run_in_executor(thread, step, *args)

    def _fold_pending(self) -> None:
        pending, by_partition = self._pending, dict[int, list[ConsumerRecord[bytes, bytes]]]()
        if not self.recovered:  # asked for before a rebalance: these polls are for tables that are not there yet
            return
        while pending:
            poll = pending.popleft()
            by_partition.setdefault(poll[0].partition, []).extend(poll)
        for partition, records in by_partition.items():
            if self.index.crowded:
                self._folder.forget_series(self.parts.values())
            part = self.parts.get(partition)
            if part is not None:  # else it was lost meanwhile, and its new owner reads these
                with metrics.BATCH_SECONDS.labels("objectives").time():
                    self._letters.extend(self._folder.fold(part, records))
                    part.show()

    def _snapshot(self, partition: int, part: Part) -> Snapshot:
        snapshot = Snapshot(partition, part.applied)
        for family, table in part.tables.items():
            table.seal()
            for chunk_key, chunk in table.dirty_chunks():
                key = self._claim(part, family, chunk_part(chunk_key), snapshot)
                snapshot.chunks.append((key, take_chunk(chunk, part.origin, self.index)))
                chunk.dirty = False
            for chunk_key in table.expired:
                snapshot.tombstones += part.keys.pop((family, chunk_part(chunk_key)), ())
            table.expired.clear()
            key = self._claim(part, family, OPEN, snapshot)
            snapshot.opens.append((key, take_open(table, part.origin, self.index)))
            snapshot.loose += table.packable()
        part.saved = snapshot.applied
        part.show()
        return snapshot

    def _claim(self, part: Part, family: str, name: str, snapshot: Snapshot) -> bytes:
        """The key of our own page; other owners' pages of the same part are deleted after ours are acknowledged."""
        key = page_key(family, name, self._owner)
        snapshot.tombstones += part.keys.get((family, name), set()) - {key}
        part.keys[family, name] = {key}
        return key

    async def _write(self, pages: Sequence[tuple[int, bytes, bytes | None]]) -> None:
        acks = [await self._send(PAGES_TOPIC, key, value, partition) for partition, key, value in pages]
        await asyncio.gather(*acks)
        metrics.PAGES.labels("page").inc(sum(value is not None for *_, value in pages))
        metrics.PAGES.labels("tombstone").inc(sum(value is None for *_, value in pages))
        metrics.PAGE_BYTES.inc(sum(len(value) for *_, value in pages if value is not None))

    async def _send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None) -> Any:  # noqa: ANN401 - Faust's future
        return await self._app.producer.send(topic, key, value, partition, None, None)

    @property
    def _consumer(self) -> Consumer:
        return self._app.consumer  # type: ignore[return-value]
