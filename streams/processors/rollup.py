"""The rollup: events in, cumulative cells out. Keeps no changelog; a restart replays the open cells.

Faust hands over what polls brought; several times a second all of it, over all partitions, is counted and published in
one step, so that what a step costs does not depend on how many partitions there are or how small polls come in. While
the brokers acknowledge one flush, the next one is counted; it is sent when the one before it is acknowledged.

Each source topic has a rollup of its own. They share nothing: records of slo-partials name the topic, and nothing that
is said of one is said of the other.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from faust.types import TP

from schemas.records import Source
from streams import metrics
from streams.core.live import Live, LiveCounts, complete_since_ms
from streams.core.replays import Replays
from streams.core.rollup import Flush, Rollup
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.core.sources import COUNTS, PROBES
from streams.core.versions import Known, Timeline
from streams.core.weights import WANTED, weigh
from streams.engine.app import App, nothing_is_done
from streams.engine.intake import Intake
from streams.engine.partials import write_partials
from streams.engine.partitioning import partition_of
from streams.engine.transport import Consumer, Poll, RawPoll, ResumePoint
from streams.processors.dead_letters import Letters, send_letters
from streams.processors.signature_gate import SIGNED_COLUMNS, SignatureGate, Signatures
from streams.processors.slo_recovery import PARTIALS
from streams.processors.source_reading import SourceReader, fresh_letters

ResultT = TypeVar("ResultT")

# By topic: what makes rows of its records, and the columns that it needs.
_SHAPES: Mapping[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], Sequence[str]]] = {
    PROBES: (lambda events: events, (*LABELS, "ts", "success", "latency_us")),
    COUNTS: (weigh, WANTED),
}

# This often a flush goes to every owner, with or without cells for it. Only then are cells that its frontiers seal done
# with: an owner that has not heard of the frontier would take what a restart rebuilds of such a cell for newer.
TELL_ALL_EVERY_S = 1.0
# A step begins this long after the one before, or as soon as so many records wait.
STEP_EVERY_S = 0.25
STEP_RECORDS = 60_000
# Polls wait while this many records are not yet counted.
MAX_PENDING = 120_000
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
    letters: Letters = field(default_factory=list)
    left: list[Poll | RawPoll] = field(default_factory=list)
    """There was no room for it in this step."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What is on its way, and since which rebalance."""

    epoch: int
    rollup: Rollup
    replays: Replays
    outcome: _Outcome


class RollupProcessor:
    """Counts the assigned partitions of the topic that `judge` is for. All block work runs on one thread, in order."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        app: App,
        judge: Judge,
        index: SeriesIndex,
        partitions: int,
        known: Known,
        live: Collection[str] = (),
        signatures: Signatures | None = None,
    ) -> None:
        """`live`: ids of objectives with a ring."""
        self._source = source = judge.source
        self._weigh, columns = _SHAPES[source]
        self._app = app
        self._known = known
        self._judge = judge
        self._index = index
        self._partitions = partitions
        self._gate = None if signatures is None else SignatureGate(source, signatures)
        extra = () if signatures is None else SIGNED_COLUMNS
        self._reader = SourceReader(source, (*columns, *extra), signatures=signatures is not None)
        self._thread = ThreadPoolExecutor(1, "rollup")
        self._named = live
        self._live = Live(live)
        self._rollup, self._replays = Rollup(judge, self._live), Replays()
        self._intake = Intake(app, source)
        self._epoch = 0
        self._pending: list[Poll | RawPoll] = []
        self._pending_count = 0
        self._enough = asyncio.Event()
        self._published: dict[int, int] = {}
        self._told_all_s = 0.0
        self._begun_s = 0.0
        self._untold = False  # the last flush has not been sent to every owner
        self._owners: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def lose_all(self) -> None:
        """A rebalance seeks every partition back to its commit: what was counted since would count twice."""
        self._epoch += 1
        self._intake.lose_all()
        self._live = Live(self._named)
        self._rollup, self._replays = Rollup(self._judge, self._live), Replays()
        self._published = {}
        self._untold = False
        self._clear_pending()

    async def process(self, stream: AsyncIterable[Poll | RawPoll]) -> None:
        """Faust's entry: each event is what one poll brought for one partition."""
        async for poll in stream:
            epoch = self._epoch
            records = await self._intake.take(poll)
            if not records or epoch != self._epoch:
                continue
            self._pending.append(records)
            self._pending_count += len(records)
            metrics.PENDING.labels(self._source).set(self._pending_count)
            if self._pending_count >= STEP_RECORDS:
                self._enough.set()
            while self._pending_count > MAX_PENDING and epoch == self._epoch and not nothing_is_done(self._app):  # noqa: ASYNC110 - of four events, two of them Faust's
                await asyncio.sleep(PENDING_POLL_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Count and send until `stop`; returns when all that was counted is sent. Raises what sending raises."""
        sending: asyncio.Task[None] | None = None
        try:
            while not stop.is_set():
                await self._due()
                if self._app.rebalancing:
                    await asyncio.sleep(PENDING_POLL_S)
                    continue
                counted = await self._counted()
                if sending is not None and (counted is not None or sending.done()):
                    await sending
                    sending = None
                if counted is not None:
                    sending = asyncio.create_task(self._sent(counted))
                else:
                    await asyncio.sleep(PENDING_POLL_S)  # there may be enough that must not be counted yet
        finally:
            if sending is not None:
                await sending

    async def step(self) -> None:
        """Count what is pending, publish it and, once all of it is acknowledged, move the commit."""
        counted = await self._counted()
        if counted is not None:
            await self._sent(counted)

    async def _due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._begun_s + STEP_EVERY_S):
                await self._enough.wait()
        self._begun_s = asyncio.get_running_loop().time()

    async def _counted(self) -> _Counted | None:
        """What a step has to send; None when that is nothing. Nothing of it counts before it is acknowledged.

        Nothing is counted while it is uncertain which objectives judge it.
        """
        if not self._pending and not (self._untold and self._must_tell_all()):
            return None
        timeline = self._known()
        if timeline is None:
            return None
        epoch, rollup, replays, polls = self._epoch, self._rollup, self._replays, self._pending
        self._clear_pending()
        for poll in polls:
            self._open(rollup, replays, poll.partition)
        topic_id = self._consumer.identity(self._source).topic_id
        with metrics.BATCH_SECONDS.labels("rollup").time():
            counting = self._in_thread(self._count, rollup, replays, polls, timeline, topic_id)
            outcome, _ = await asyncio.gather(counting, self._consumer.confirm(self._source))
        if epoch != self._epoch:
            return None
        self._put_back(outcome.left)
        return _Counted(epoch, rollup, replays, outcome)

    async def _sent(self, counted: _Counted) -> None:
        """Publish and, once all is acknowledged, move the commit. Flushes are sent one after the other."""
        epoch, outcome = counted.epoch, counted.outcome
        if epoch != self._epoch:
            return
        with metrics.FLUSH_SECONDS.time():
            await asyncio.gather(*[await self._send(PARTIALS, None, value, target) for target, value in outcome.silent])
            acks = [await self._send(PARTIALS, None, value, target) for target, value in outcome.telling]
            acks += await send_letters(self._app, outcome.letters)
            await asyncio.gather(*acks)
        if epoch != self._epoch:
            return
        points = await self._in_thread(_settled, counted.rollup, counted.replays, outcome)
        if epoch != self._epoch:
            return
        for partition, point in points.items():
            self._published[partition] = outcome.flush.progress[partition].applied_offset
            self._consumer.resume_points[TP(self._source, partition)] = point

    def live(self, objective_id: str, from_ms: int, to_ms: int, step_ms: int) -> LiveCounts:
        """What this worker has counted of the last minute, in its own partitions. Raises KeyError without a ring."""
        own = [at for tp, at in self._consumer.committed.items() if tp.topic == self._source]
        since_ms = max((complete_since_ms(at.frontier) for at in own), default=0)
        return self._live.rings[objective_id].counts(from_ms, to_ms, step_ms, since_ms)

    def read_to(self, partition: int) -> int | None:
        """The offset after the last one that is counted and published; None before the first."""
        offset = self._published.get(partition)
        return None if offset is None else offset + 1

    def _must_tell_all(self) -> bool:
        return time.monotonic() - self._told_all_s >= TELL_ALL_EVERY_S

    def _clear_pending(self) -> None:
        self._pending = []
        self._pending_count = 0
        self._enough.clear()

    def _put_back(self, polls: list[Poll | RawPoll]) -> None:
        """The next step begins with these."""
        self._pending = polls + self._pending
        self._pending_count += sum(map(len, polls))

    def _open(self, rollup: Rollup, replays: Replays, partition: int) -> None:
        if partition in rollup.progress:
            return
        point = self._consumer.committed.get(TP(self._source, partition)) or ResumePoint(0, 0)
        rollup.open(partition, point.frontier)
        if self._gate is not None:
            replays.open(partition, *point)

    def _count(
        self, rollup: Rollup, replays: Replays, polls: list[Poll | RawPoll], timeline: Timeline, topic_id: str
    ) -> _Outcome:
        if timeline is not self._judge.timeline:
            self._judge.follow(timeline)
        seen = (rollup.events, rollup.late, rollup.clamped)
        begins = {partition: progress.applied_offset + 1 for partition, progress in rollup.progress.items()}
        reading = self._reader.read(polls)
        if self._gate is not None:
            reading = self._gate.check(reading, replays)
        flush = rollup.step(reading.batches, self._weigh(reading.frame))
        metrics.EVENTS.labels(self._source).inc(rollup.events - seen[0])
        metrics.LATE.labels(self._source).inc(rollup.late - seen[1])
        metrics.CLAMPED.labels(self._source).inc(rollup.clamped - seen[2])
        metrics.OPEN_ROWS.labels(self._source).set(rollup.open_rows())
        tell_all = self._must_tell_all()
        self._untold = not tell_all
        if tell_all:
            self._told_all_s = time.monotonic()
        silent, telling = self._partials(flush, topic_id, tell_all=tell_all)
        if self._index.crowded:
            rollup.forget_series(self._index)
            self._owners = self._owners[:0]
        letters = fresh_letters(self._source, reading, begins)
        return _Outcome(flush, silent, telling, tell_all, letters, reading.left)

    def _partials(
        self, flush: Flush, topic_id: str, *, tell_all: bool
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        """(partition, framed record) for every owner of a touched cell, or for all: without frontiers, and with."""
        sources = [Source(p, progress.applied_offset, progress.frontier) for p, progress in flush.progress.items()]
        rows = pl.concat([flush.plain, flush.objectives])
        targets = self._owners_of(rows["series"]).astype(np.int16)
        order = np.argsort(targets, kind="stable")
        rows, ends = rows[order], np.searchsorted(targets[order], np.arange(self._partitions + 1))
        silent, telling = list[tuple[int, bytes]](), list[tuple[int, bytes]]()
        for target in range(self._partitions):
            cells = rows[int(ends[target]) : int(ends[target + 1])]
            if not cells.is_empty() or tell_all:
                *others, last = write_partials(self._source, topic_id, sources, cells, self._index)
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


def _settled(rollup: Rollup, replays: Replays, outcome: _Outcome) -> dict[int, ResumePoint]:
    """From where a restart has to read, now that a flush is acknowledged. More may have been counted since."""
    if outcome.told_all:
        rollup.settle(outcome.flush)
    progress = outcome.flush.progress
    points = {partition: rollup.resume_point(partition, done) for partition, done in progress.items()}
    return {partition: ResumePoint(*replays.held_back(partition, *point)) for partition, point in points.items()}
