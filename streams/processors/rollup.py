"""The rollup: probe results in, cumulative cells out. Keeps no changelog; a restart replays the open cells."""

import asyncio
import time
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import polars as pl
import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.blocks import BlockReader, Reject
from schemas.records import Source
from streams import metrics
from streams.core.rollup import Flush, Rollup
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.engine.app import App
from streams.engine.partials import write_partials
from streams.engine.partitioning import partition_of
from streams.engine.transport import Consumer, ResumePoint, require_append_time
from streams.processors.dead_letters import TOPIC as DEAD_LETTERS
from streams.processors.dead_letters import dead_letters

Records = list[ConsumerRecord[bytes, bytes]]
ResultT = TypeVar("ResultT")

SOURCE = "probe-results"
PARTIALS = "slo-partials"
# A partition without cells of a flush still hears of the frontier this often, or its slices would never be sealed.
FRONTIER_EVERY_S = 1.0

log = structlog.get_logger("fleetbeat.rollup")


class RollupProcessor:
    """One `Rollup` for each assigned source partition; flushes them together."""

    def __init__(self, app: App, judge: Judge, index: SeriesIndex, partitions: int) -> None:
        self.rollups: dict[int, Rollup] = {}
        self._app = app
        self._judge = judge
        self._index = index
        self._partitions = partitions
        self._reader = BlockReader(SOURCE, [*LABELS, "ts", "success", "latency_us"])
        self._thread = ThreadPoolExecutor(1, "rollup")
        self._epoch = 0
        self._burying: set[int] = set()
        self._flushed: dict[int, int] = {}
        self._told_s = [0.0] * partitions
        self._owners = np.zeros(0, dtype=np.int64)

    def lose_all(self) -> None:
        """A rebalance seeks every partition back to its commit: what was rolled up since would count twice."""
        self._epoch += 1
        self.rollups = {}
        self._flushed = {}
        self._burying = set()

    async def process(self, stream: AsyncIterable[Records]) -> None:
        """Faust's entry: each event is what one poll brought for one partition."""
        async for records in stream:
            await self._count(records)

    async def flush(self) -> None:
        """Publish what has changed and, once acknowledged, move the commit."""
        epoch, rollups = self._epoch, self.rollups
        changed = {p: rollup for p, rollup in rollups.items() if rollup.applied_offset != self._flushed.get(p, -1)}
        if not changed:
            return
        with metrics.FLUSH_SECONDS.time():
            flushes, outgoing = await self._in_thread(self._take, changed)
            acks = [await self._send(PARTIALS, None, value, target) for target, value in outgoing]
            await asyncio.gather(*acks)
        if epoch != self._epoch:
            return
        points = await self._in_thread(self._settle, changed, flushes)
        if epoch != self._epoch:
            return
        for partition, flush in flushes.items():
            self._flushed[partition] = flush.applied_offset
            if partition not in self._burying and partition in points:
                self._consumer.resume_points[TP(SOURCE, partition)] = points[partition]
        metrics.OPEN_ROWS.set(sum(rollup.open_rows() for rollup in changed.values()))

    def idle(self, partition: int) -> bool:
        """Whether everything counted from a source partition has been published."""
        rollup = self.rollups.get(partition)
        return rollup is None or rollup.applied_offset == self._flushed.get(partition)

    async def _count(self, records: Records) -> None:
        epoch, partition = self._epoch, records[0].partition
        rollup = self.rollups.get(partition)
        if rollup is None:
            rollup = self.rollups[partition] = self._open(partition, records[0].offset)
        # Until dead letters are acknowledged the commit must not pass the records they are about.
        self._burying.add(partition)
        with metrics.BATCH_SECONDS.labels("rollup").time():
            rejects = await self._in_thread(self._roll_up, rollup, records)
        if epoch != self._epoch:
            return
        if rejects:
            letters = dead_letters(records, rejects, "worker")
            await asyncio.gather(*[await self._send(DEAD_LETTERS, key, value, None) for key, value in letters])
        if epoch == self._epoch:
            self._burying.discard(partition)

    def _open(self, partition: int, first_offset: int) -> Rollup:
        point = self._consumer.committed.get(TP(SOURCE, partition))
        if point is not None and first_offset > point.offset:
            missing = first_offset - point.offset
            metrics.HOLES.labels(SOURCE).inc(missing)
            log.error("records deleted before they were read", partition=partition, missing=missing, committed=point.offset)
        return Rollup(partition, self._judge, frontier=point.frontier if point else 0)

    def _roll_up(self, rollup: Rollup, records: Records) -> tuple[Reject, ...]:
        require_append_time(records)
        before = (rollup.events, rollup.late, rollup.clamped)
        applied = rollup.applied_offset
        offsets = np.fromiter(map(attrgetter("offset"), records), np.int64, len(records))
        append_ms = np.fromiter(map(attrgetter("timestamp"), records), np.int64, len(records))
        block = self._reader.read([record.key for record in records], [record.value for record in records])
        rollup.add(offsets, append_ms, block.frame)
        metrics.EVENTS.labels(SOURCE).inc(rollup.events - before[0])
        metrics.LATE.labels(SOURCE).inc(rollup.late - before[1])
        metrics.CLAMPED.labels(SOURCE).inc(rollup.clamped - before[2])
        rejects = tuple(reject for reject in block.rejects if records[reject.row].offset > applied)
        for reject in rejects:
            metrics.REJECTED.labels(SOURCE, reject.reason).inc()
        return rejects

    def _take(self, changed: dict[int, Rollup]) -> tuple[dict[int, Flush], list[tuple[int, bytes]]]:
        flushes = {partition: rollup.take() for partition, rollup in changed.items()}
        sources = [Source(p, flush.applied_offset, flush.frontier) for p, flush in flushes.items()]
        rows = pl.concat([frame for flush in flushes.values() for frame in (flush.plain, flush.objectives)])
        self._learn_owners()
        targets = pl.Series("_target", self._owners[rows["series"].to_numpy()])
        by_target = rows.with_columns(targets).partition_by("_target", as_dict=True, include_key=False)
        outgoing = []
        now_s = time.monotonic()
        for target in range(self._partitions):
            part = by_target.get((target,))
            if part is None and now_s - self._told_s[target] < FRONTIER_EVERY_S:
                continue
            self._told_s[target] = now_s
            cells = rows.clear() if part is None else part
            outgoing += [(target, value) for value in write_partials(SOURCE, "", sources, cells, self._index)]
        metrics.PARTIAL_BYTES.inc(sum(len(value) for _, value in outgoing))
        return flushes, outgoing

    def _learn_owners(self) -> None:
        new = self._index.names[len(self._owners) :]
        owners = [partition_of(owner_key(name), self._partitions) for name in new]
        self._owners = np.concatenate((self._owners, np.array(owners, dtype=np.int64)))

    @staticmethod
    def _settle(changed: dict[int, Rollup], flushes: dict[int, Flush]) -> dict[int, ResumePoint]:
        points = {}
        for partition, flush in flushes.items():
            changed[partition].settle(flush)
            point = changed[partition].resume_point()
            if point is not None:
                points[partition] = ResumePoint(*point)
        return points

    async def _send(self, topic: str, key: bytes | None, value: bytes, partition: int | None) -> Any:  # noqa: ANN401 - Faust's future
        return await self._app.producer.send(topic, key, value, partition, None, None)

    async def _in_thread(self, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - passed on
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *args)

    @property
    def _consumer(self) -> Consumer:
        return self._app.consumer  # type: ignore[return-value]


def owner_key(series: str) -> bytes:
    """The raw key whose partition owns a series: an objective's id, or a plain series' name."""
    if series.startswith("slo:"):
        return series.removeprefix("slo:").rpartition("@")[0].encode()
    return series.encode()
