"""The objectives table: cumulative cells in, tiers of slices in memory and in state pages."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams import metrics
from streams.core.series import SeriesIndex
from streams.core.table import SloTable
from streams.engine.app import App
from streams.engine.intake import Intake
from streams.engine.pages import OPEN, chunk_part, page_key, write_chunk, write_open
from streams.engine.transport import Consumer, Poll, ResumePoint, topic_partitions
from streams.processors.dead_letters import TOPIC as DEAD_LETTERS
from streams.processors.series_telling import SeriesTeller
from streams.processors.slo_parts import OBJECTIVES, SERIES_MOST, Letters, Part, PartFolder
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS, ReadLog, SloRecovery

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
    """Pages of one partition, taken without an await in between: chunks are written before what stands for them."""

    partition: int
    applied: int
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    opens: list[tuple[bytes, bytes]] = field(default_factory=list)
    tombstones: list[bytes] = field(default_factory=list)


class ObjectivesProcessor:
    """Owns a `Part` for each assigned partition of `slo-partials`. All block work runs on one thread, in order."""

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
        self._pending: deque[Poll] = deque()  # filled by the event loop, emptied by the thread
        self._letters: Letters = []
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
        if epoch != self._epoch:
            return
        self.parts = kept | built
        self._owner = uuid.uuid4().hex[:12]
        self._generation = generation
        self.recovered = True
        seconds = round(time.monotonic() - started, 3)
        log.info("tables recovered", partitions=sorted(built), kept=sorted(kept), seconds=seconds)

    async def process(self, stream: AsyncIterable[Poll]) -> None:
        """Faust's entry: each event is what one poll brought for one partition. Folded when next saved or read."""
        async for poll in stream:
            epoch = self._epoch
            records = await self._intake.take(poll)
            if not records or epoch != self._epoch:
                continue
            self._pending.append(records)
            while len(self._pending) > MAX_PENDING and epoch == self._epoch and not self._app.rebalancing:
                await (self.in_thread(self._fold_pending) if self.recovered else asyncio.sleep(0.01))

    async def fold(self) -> None:
        """Take in what was received, so that frontiers and lag are known while pages wait."""
        if self.recovered:
            await self.in_thread(self._fold_pending)

    async def save(self) -> None:
        """Write the pages of everything that has changed, await every ack, then move the commit."""
        epoch = self._epoch
        if not self.recovered:
            return
        owned = topic_partitions(self._app.consumer.assignment(), PARTIALS)
        with metrics.SNAPSHOT_SECONDS.time():
            snapshots = await self.in_thread(self._snapshots, owned)
            if snapshots:
                await self._consumer.confirm(PARTIALS)
            letters, self._letters = self._letters, []
            await asyncio.gather(*[await self._send(DEAD_LETTERS, key, value, None) for key, value in letters])
            for stage in ("chunks", "opens"):
                await self._write([(s.partition, key, value) for s in snapshots for key, value in getattr(s, stage)])
                if epoch != self._epoch:
                    return
        for snapshot in snapshots:
            self._consumer.resume_points[TP(PARTIALS, snapshot.partition)] = ResumePoint(snapshot.applied + 1, 0)
        await self._write([(s.partition, key, None) for s in snapshots for key in s.tombstones])

    async def read(self, partition: int, step: Callable[[SloTable], ResultT]) -> ResultT:
        """Run `step` on the objectives' table of a partition, with all that was received.

        Raises NotKeptError, and NotHeardError also when the worker stood still in the meantime.
        """

        def run() -> ResultT:
            self._fold_pending()
            part = self.parts.get(partition)
            if part is None:
                raise NotKeptError(partition)
            return step(part.tables[OBJECTIVES])

        epoch = self._epoch
        found = await self.in_thread(run)
        # A rebalance may have come and gone meanwhile; then the group has heard of us, but the answer is of before.
        if epoch != self._epoch or not self._consumer.holds_assignment():
            raise NotHeardError(partition)
        return found

    async def in_thread(self, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - passed on
        """Run a step between folds: the tables stand still for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *args)

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
            if partition in self.parts:  # else it was lost meanwhile, and its new owner reads these
                with metrics.BATCH_SECONDS.labels("objectives").time():
                    self._letters += self._folder.fold(self.parts[partition], records)

    def _snapshots(self, owned: set[int]) -> list[Snapshot]:
        self._fold_pending()
        parts = [(p, part) for p, part in self.parts.items() if p in owned and part.applied > part.saved]
        snapshots = [self._snapshot(partition, part) for partition, part in parts]
        self._series.tell(self.parts.values(), self.index)
        return snapshots

    def _snapshot(self, partition: int, part: Part) -> Snapshot:
        snapshot = Snapshot(partition, part.applied)
        for family, table in part.tables.items():
            table.seal()
            for chunk_key, chunk in table.dirty_chunks():
                key = self._claim(part, family, chunk_part(chunk_key), snapshot)
                snapshot.chunks.append((key, write_chunk(chunk, part.origin, self.index)))
                chunk.dirty = False
            for chunk_key in table.expired:
                snapshot.tombstones += part.keys.pop((family, chunk_part(chunk_key)), ())
            table.expired.clear()
            key = self._claim(part, family, OPEN, snapshot)
            snapshot.opens.append((key, write_open(table, part.origin, self.index)))
            table.pack()
        part.saved = snapshot.applied
        return snapshot

    def _claim(self, part: Part, family: str, name: str, snapshot: Snapshot) -> bytes:
        """The key of our own page; other owners' pages of the same part are deleted after ours are acknowledged."""
        key = page_key(family, name, self._owner)
        snapshot.tombstones += part.keys.get((family, name), set()) - {key}
        part.keys[family, name] = {key}
        return key

    async def _write(self, pages: list[tuple[int, bytes, bytes | None]]) -> None:
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
