"""The objectives table: cumulative cells in, tiers of slices in memory and in state pages."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.blocks import Reject
from schemas.codec import DecodeError
from streams import metrics
from streams.core.rollup import CELL_ROWS
from streams.core.series import SeriesIndex
from streams.core.table import Heading, SloTable
from streams.engine.app import App
from streams.engine.frames import FrameError
from streams.engine.pages import OPEN, PageTable, PartPages, chunk_part, load, page_key, write_chunk, write_open
from streams.engine.partials import heading, read_partial
from streams.engine.transport import Consumer, ResumePoint, require_append_time, topic_partitions
from streams.processors.dead_letters import TOPIC as DEAD_LETTERS
from streams.processors.dead_letters import dead_letters

Records = list[ConsumerRecord[bytes, bytes]]
ResultT = TypeVar("ResultT")

PARTIALS = "slo-partials"
OBJECTIVES, PLAIN = "objectives", "series"
# Polls wait while this many are not yet folded.
MAX_PENDING = 1_000

log = structlog.get_logger("fleetbeat.objectives")


class StateLostError(RuntimeError):
    """The commit says more was counted than the pages hold: going on would lose events silently."""

    def __init__(self, topic: str, partition: int, applied: int, committed: int) -> None:
        super().__init__(
            f"{topic} partition {partition}: the state pages end at offset {applied}, the commit is {committed}; "
            "expected pages up to the commit (was the pages topic recreated, or changed by hand?)"
        )


class NotKeptError(LookupError):
    """A partition of `slo-partials` is not one of ours."""


@dataclass(slots=True)
class Part:
    """The tables of one owned partition, and the changelog keys of their pages by (family, part)."""

    tables: dict[str, SloTable]
    keys: dict[tuple[str, str], set[bytes]]
    saved: int = -1

    @property
    def applied(self) -> int:
        """Everything up to and with this offset of `slo-partials` is in the tables."""
        return min(table.applied for table in self.tables.values())


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

    def __init__(self, app: App, pages: PageTable, index: SeriesIndex) -> None:
        self.parts: dict[int, Part] = {}
        self.recovered = False
        self.index = index
        self._app = app
        self._pages = pages
        self._thread = ThreadPoolExecutor(1, "objectives")
        self._pending: deque[Records] = deque()  # filled by the event loop, emptied by the thread
        self._letters: list[tuple[bytes | None, bytes]] = []
        self._judged = np.zeros(0, dtype=np.bool_)
        self._owner = ""
        self._epoch = 0

    def lose_all(self) -> None:
        """A rebalance has begun: nothing is answered, and nothing saved, until recovery is complete."""
        self._epoch += 1
        self.recovered = False
        self._pending.clear()

    async def recover(self, owned: Iterable[int]) -> None:
        """Recovery is complete: build the tables of newly owned partitions from their pages, drop the others."""
        epoch = self._epoch
        owned = set(owned)
        self._owner = uuid.uuid4().hex[:12]
        started = time.monotonic()
        points = await self._consumer.fetch_committed()
        committed = {tp.partition: point.offset for tp, point in points.items() if tp.topic == PARTIALS}
        # A part that another worker has committed past since we held it is out of date.
        parts = {p: part for p, part in self.parts.items() if p in owned and part.applied + 1 >= committed.get(p, 0)}
        for partition in owned - parts.keys():
            parts[partition] = await self.in_thread(self._build, partition)
            if parts[partition].applied + 1 < committed.get(partition, 0):
                raise StateLostError(PARTIALS, partition, parts[partition].applied, committed[partition])
        if epoch != self._epoch:
            return
        self.parts = parts
        self._pages.pages = {p: pages for p, pages in self._pages.pages.items() if p in owned}
        self.recovered = True
        log.info("tables recovered", partitions=sorted(owned), seconds=round(time.monotonic() - started, 3))

    async def process(self, stream: AsyncIterable[Records]) -> None:
        """Faust's entry: each event is what one poll brought for one partition. Folded when next saved or read."""
        async for records in stream:
            epoch = self._epoch
            self._pending.append(records)
            while len(self._pending) > MAX_PENDING and epoch == self._epoch and not self._app.rebalancing:
                await (self.in_thread(self._fold_pending) if self.recovered else asyncio.sleep(0.01))

    async def save(self) -> None:
        """Write the pages of everything that has changed, await every ack, then move the commit."""
        epoch = self._epoch
        if not self.recovered:
            return
        owned = topic_partitions(self._app.consumer.assignment(), PARTIALS)
        with metrics.SNAPSHOT_SECONDS.time():
            snapshots = await self.in_thread(self._snapshots, owned)
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
        """Run `step` on the objectives' table of a partition, with all that was received. Raises NotKeptError."""

        def run() -> ResultT:
            self._fold_pending()
            part = self.parts.get(partition)
            if part is None:
                raise NotKeptError(partition)
            return step(part.tables[OBJECTIVES])

        return await self.in_thread(run)

    async def in_thread(self, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - passed on
        """Run a step between folds: the tables stand still for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *args)

    def _build(self, partition: int) -> Part:
        pages = self._pages.pages.get(partition, PartPages())
        metrics.UNREADABLE_PAGES.inc(pages.unreadable)
        tables = {family: SloTable(histograms_in_hours=family == OBJECTIVES) for family in (OBJECTIVES, PLAIN)}
        for family, table in tables.items():
            load(table, pages.of(family), self.index)
        part = Part(tables, {name: set(keys) for name, keys in pages.keys.items()})
        part.saved = part.applied
        return part

    def _fold_pending(self) -> None:
        by_partition: dict[int, Records] = {}
        while self._pending:
            records = self._pending.popleft()
            by_partition.setdefault(records[0].partition, []).extend(records)
        for partition, records in by_partition.items():
            if partition in self.parts:  # else it was lost meanwhile, and its new owner reads these
                with metrics.BATCH_SECONDS.labels("objectives").time():
                    self._fold(self.parts[partition], records)

    def _fold(self, part: Part, records: Records) -> None:
        require_append_time(records)
        missing = records[0].offset - part.applied - 1
        if missing > 0 and part.applied >= 0:
            metrics.HOLES.labels(PARTIALS).inc(missing)
            log.error("records deleted before they were read", topic=PARTIALS, missing=missing, after=part.applied)
        heads: list[Heading] = []
        frames = [pl.DataFrame(schema={**CELL_ROWS, "offset": pl.Int64})]
        for row, record in enumerate(records):
            try:
                partial, rows = read_partial(record.value, self.index)
            except (DecodeError, FrameError) as error:
                self._letters += dead_letters(records, [_reject(row, error)], "worker")
                heads.append(Heading(record.offset, ()))
            else:
                frames.append(rows.with_columns(offset=pl.lit(record.offset, pl.Int64)))
                heads.append(heading(record.offset, partial))
        rows = pl.concat(frames)
        judged = pl.Series(self._judged_by_number()[rows["series"].to_numpy()], dtype=pl.Boolean)
        part.tables[OBJECTIVES].fold(heads, rows.filter(judged))
        part.tables[PLAIN].fold(heads, rows.filter(~judged))

    def _judged_by_number(self) -> npt.NDArray[np.bool_]:
        """For each series number, whether it is an objective's."""
        new = [name.startswith("slo:") for name in self.index.names[len(self._judged) :]]
        self._judged = np.concatenate((self._judged, np.array(new, dtype=np.bool_)))
        return self._judged

    def _snapshots(self, owned: set[int]) -> list[Snapshot]:
        self._fold_pending()
        return [self._snapshot(p, part) for p, part in self.parts.items() if p in owned and part.applied > part.saved]

    def _snapshot(self, partition: int, part: Part) -> Snapshot:
        snapshot = Snapshot(partition, part.applied)
        for family, table in part.tables.items():
            table.seal()
            for chunk_key, chunk in table.dirty_chunks():
                key = self._claim(part, family, chunk_part(chunk_key), snapshot)
                snapshot.chunks.append((key, write_chunk(chunk, self.index)))
                chunk.dirty = False
            for chunk_key in table.expired:
                snapshot.tombstones += part.keys.pop((family, chunk_part(chunk_key)), ())
            table.expired.clear()
            key = self._claim(part, family, OPEN, snapshot)
            snapshot.opens.append((key, write_open(table, "", self.index)))
        part.saved = snapshot.applied
        return snapshot

    def _claim(self, part: Part, family: str, name: str, snapshot: Snapshot) -> bytes:
        """The key of our own page; other owners' pages of the same part are deleted after ours are acknowledged."""
        key = page_key(family, name, self._owner)
        snapshot.tombstones += part.keys.get((family, name), set()) - {key}
        part.keys[family, name] = {key}
        return key

    async def _write(self, pages: list[tuple[int, bytes, bytes | None]]) -> None:
        topic = self._pages.changelog_topic_name
        acks = [await self._send(topic, key, value, partition) for partition, key, value in pages]
        await asyncio.gather(*acks)
        metrics.PAGES.labels("page").inc(sum(value is not None for *_, value in pages))
        metrics.PAGES.labels("tombstone").inc(sum(value is None for *_, value in pages))
        metrics.PAGE_BYTES.inc(sum(len(value) for *_, value in pages if value is not None))

    async def _send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None) -> Any:  # noqa: ANN401 - Faust's future
        return await self._app.producer.send(topic, key, value, partition, None, None)

    @property
    def _consumer(self) -> Consumer:
        return self._app.consumer  # type: ignore[return-value]


def _reject(row: int, error: DecodeError | FrameError) -> Reject:
    if isinstance(error, DecodeError):
        return Reject(row, error.reason, error.detail)
    return Reject(row, "bad-cells", str(error))
