"""The rollup: probe results in, cumulative cells out. Keeps no changelog; a restart replays the open cells.

Faust hands over what polls brought; several times a second all of it, over all partitions, is counted and published in
one step, so that what a step costs does not depend on how many partitions there are or how small polls come in.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.blocks import BlockReader, Reject
from schemas.records import Source
from streams import metrics
from streams.core.rollup import Flush, Rollup, SourceBatch
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.core.versions import Known, Timeline
from streams.engine.app import App
from streams.engine.intake import Intake
from streams.engine.partials import write_partials
from streams.engine.partitioning import partition_of
from streams.engine.transport import Consumer, Poll, ResumePoint, require_append_time
from streams.processors.dead_letters import TOPIC as DEAD_LETTERS
from streams.processors.dead_letters import dead_letters

Records = list[ConsumerRecord[bytes, bytes]]
ResultT = TypeVar("ResultT")

SOURCE = "probe-results"
PARTIALS = "slo-partials"
# This often a flush goes to every owner, with or without cells for it. Only then are cells that its frontiers seal done
# with: an owner that has not heard of the frontier would take what a restart rebuilds of such a cell for newer.
TELL_ALL_EVERY_S = 1.0
# Polls wait while this many records are not yet counted.
MAX_PENDING = 60_000
PENDING_POLL_S = 0.01


@dataclass(slots=True)
class _Outcome:
    """What a step has to send.

    `silent` records carry cells but no frontier and are acknowledged first: a frontier must not come without its cells.
    """

    flush: Flush
    silent: list[tuple[int, bytes]]
    telling: list[tuple[int, bytes]]
    told_all: bool
    letters: list[tuple[bytes | None, bytes]] = field(default_factory=list)


class RollupProcessor:
    """Counts the assigned partitions of `probe-results`. All block work runs on one thread, in order."""

    def __init__(self, app: App, judge: Judge, index: SeriesIndex, partitions: int, known: Known) -> None:
        self._app = app
        self._known = known
        self._judge = judge
        self._index = index
        self._partitions = partitions
        self._reader = BlockReader(SOURCE, [*LABELS, "ts", "success", "latency_us"])
        self._thread = ThreadPoolExecutor(1, "rollup")
        self._rollup = Rollup(judge)
        self._intake = Intake(app, SOURCE)
        self._epoch = 0
        self._pending: list[Records] = []
        self._pending_count = 0
        self._published: dict[int, int] = {}
        self._told_all_s = 0.0
        self._untold = False  # the last flush has not been sent to every owner
        self._owners: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def lose_all(self) -> None:
        """A rebalance seeks every partition back to its commit: what was counted since would count twice."""
        self._epoch += 1
        self._intake.lose_all()
        self._rollup = Rollup(self._judge)
        self._published = {}
        self._untold = False
        self._clear_pending()

    async def process(self, stream: AsyncIterable[Poll]) -> None:
        """Faust's entry: each event is what one poll brought for one partition."""
        async for poll in stream:
            epoch = self._epoch
            records = await self._intake.take(poll)
            if not records or epoch != self._epoch:
                continue
            self._pending.append(records)
            self._pending_count += len(records)
            metrics.PENDING.set(self._pending_count)
            # A rebalance waits until this poll is let go of, and nothing is counted meanwhile.
            while self._pending_count > MAX_PENDING and epoch == self._epoch and not self._app.rebalancing:  # noqa: ASYNC110 - of three events, one of them Faust's
                await asyncio.sleep(PENDING_POLL_S)

    async def step(self) -> None:
        """Count what is pending, publish it and, once all of it is acknowledged, move the commit.

        Nothing is counted while it is uncertain which objectives judge it.
        """
        if not self._pending and not (self._untold and self._must_tell_all()):
            return
        timeline = self._known()
        if timeline is None:
            return
        epoch, rollup, polls = self._epoch, self._rollup, self._pending
        self._clear_pending()
        for records in polls:
            self._open(rollup, records[0].partition)
        with metrics.BATCH_SECONDS.labels("rollup").time():
            outcome = await self._in_thread(self._count, rollup, polls, timeline)
        if epoch != self._epoch:
            return
        with metrics.FLUSH_SECONDS.time():
            await asyncio.gather(*[await self._send(PARTIALS, None, value, target) for target, value in outcome.silent])
            acks = [await self._send(PARTIALS, None, value, target) for target, value in outcome.telling]
            acks += [await self._send(DEAD_LETTERS, key, value, None) for key, value in outcome.letters]
            await asyncio.gather(*acks)
        if epoch != self._epoch:
            return
        if outcome.told_all:
            await self._in_thread(rollup.settle, outcome.flush)
        if epoch != self._epoch:
            return
        for partition, progress in outcome.flush.progress.items():
            self._published[partition] = progress.applied_offset
            self._consumer.resume_points[TP(SOURCE, partition)] = ResumePoint(*rollup.resume_point(partition))
        metrics.OPEN_ROWS.set(rollup.open_rows())

    def read_to(self, partition: int) -> int | None:
        """The offset after the last one that is counted and published; None before the first."""
        offset = self._published.get(partition)
        return None if offset is None else offset + 1

    def _must_tell_all(self) -> bool:
        return time.monotonic() - self._told_all_s >= TELL_ALL_EVERY_S

    def _clear_pending(self) -> None:
        self._pending = []
        self._pending_count = 0

    def _open(self, rollup: Rollup, partition: int) -> None:
        if partition in rollup.progress:
            return
        point = self._consumer.committed.get(TP(SOURCE, partition))
        rollup.open(partition, point.frontier if point else 0)

    def _count(self, rollup: Rollup, polls: list[Records], timeline: Timeline) -> _Outcome:
        if timeline is not self._judge.timeline:
            self._judge.follow(timeline)
        records = [record for poll in polls for record in poll]
        require_append_time(records)
        seen = (rollup.events, rollup.late, rollup.clamped)
        applied = {partition: progress.applied_offset for partition, progress in rollup.progress.items()}
        block = self._reader.read([record.key for record in records], [record.value for record in records])
        flush = rollup.step([_source_batch(poll) for poll in polls], block.frame)
        metrics.EVENTS.labels(SOURCE).inc(rollup.events - seen[0])
        metrics.LATE.labels(SOURCE).inc(rollup.late - seen[1])
        metrics.CLAMPED.labels(SOURCE).inc(rollup.clamped - seen[2])
        rejects = [r for r in block.rejects if records[r.row].offset > applied[records[r.row].partition]]
        tell_all = self._must_tell_all()
        self._untold = not tell_all
        if tell_all:
            self._told_all_s = time.monotonic()
        silent, telling = self._partials(flush, tell_all=tell_all)
        return _Outcome(flush, silent, telling, tell_all, self._letters(records, rejects))

    def _letters(self, records: Records, rejects: list[Reject]) -> list[tuple[bytes | None, bytes]]:
        for reject in rejects:
            metrics.REJECTED.labels(SOURCE, reject.reason).inc()
        return dead_letters(records, rejects, "worker")

    def _partials(self, flush: Flush, *, tell_all: bool) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        """(partition, framed record) for every owner of a touched cell, or for all: without frontiers, and with."""
        sources = [Source(p, progress.applied_offset, progress.frontier) for p, progress in flush.progress.items()]
        rows = pl.concat([flush.plain, flush.objectives])
        targets = pl.Series("_target", self._owners_of(rows["series"]))
        by_target = rows.with_columns(targets).partition_by("_target", as_dict=True, include_key=False)
        silent, telling = list[tuple[int, bytes]](), list[tuple[int, bytes]]()
        for target in range(self._partitions):
            cells = by_target.get((target,))
            if cells is not None or tell_all:
                *others, last = write_partials(
                    SOURCE, "", sources, rows.clear() if cells is None else cells, self._index
                )
                silent += [(target, value) for value in others]
                telling.append((target, last))
        metrics.PARTIAL_BYTES.inc(sum(len(value) for _, value in silent + telling))
        return silent, telling

    def _owners_of(self, series: pl.Series) -> npt.NDArray[np.int64]:
        new = self._index.names[len(self._owners) :]
        owners = [partition_of(owner_key(name), self._partitions) for name in new]
        self._owners = np.concatenate((self._owners, np.array(owners, dtype=np.int64)))
        owned: npt.NDArray[np.int64] = self._owners[series.to_numpy()]
        return owned

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


def _source_batch(records: Records) -> SourceBatch:
    count = len(records)
    offsets = np.fromiter(map(attrgetter("offset"), records), np.int64, count)
    append_ms = np.fromiter(map(attrgetter("timestamp"), records), np.int64, count)
    return SourceBatch(records[0].partition, offsets, append_ms)
