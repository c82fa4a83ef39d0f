"""One topic's way from Kafka into its table: adopt partitions, collect records, store them in batches."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.archive.blocks import KEPT_DAYS, Chunk, Rejected, Route, Shaped
from streams.archive.consumer import Bounds, GivenUpError, Records, Source, UnsuitableTopicError, chunk_of
from streams.archive.ingest import Refused, Settled
from streams.archive.letters import DeadLetters, letters_of
from streams.archive.metrics import ArchiveMetrics
from streams.archive.plans import Complete, Doubled, Expiring, Incomplete, Plan, Verdict
from streams.archive.storing import Connect, Letter, StartOverError, Storing
from streams.archive.waiting import Waiting
from streams.topic_ids import UNKNOWN

_RETRY_S = 1.0
REFUSED_DETAIL = 1_000
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is stored, and how much may wait for it.

    A batch is stored when there are `enough_records`, or after `wait_s`; of a busy topic, with `busy_records` by then,
    after `busy_wait_s`, since each insert makes a part in every table, and fewer ones cost half as much. It takes what
    waits, up to about `batch_records`: of a backlog batches are large, since the engine writes each row again with
    every merge, and a few large parts are merged less often. A lane holds at most `records` or `bytes` and one poll
    more, beside the batch being stored and the next one, which is shaped meanwhile.
    """

    enough_records: int = 300_000
    busy_records: int = 20_000
    batch_records: int = 300_000
    wait_s: float = 1.0
    busy_wait_s: float = 3.0
    records: int = 700_000
    bytes: int = 64 << 20


class Lane:
    """One topic. Runs on the event loop, beside the loop that polls."""

    def __init__(  # noqa: PLR0913 - the parts it is made of
        self,
        route: Route,
        connect: Connect,
        source: Source,
        letters: DeadLetters,
        metrics: ArchiveMetrics,
        limits: Limits,
        *,
        claims: bool = False,
    ) -> None:
        self.topic = route.topic
        self.next: dict[int, int] = {}
        """By adopted partition: the offset after the last one that the store holds."""
        self._route = route
        self._source = source
        self._letters = letters
        self._metrics = metrics
        self._limits = limits
        self._storing = Storing(route, connect, metrics, claims=claims)
        self._wanted: set[int] = set()
        self._expected: dict[int, int] = {}
        self._gaps: list[tuple[int, int, int]] = []
        self._waiting = Waiting(route.topic, metrics)
        self._topic_id = UNKNOWN
        self._term = 0
        self._idle = asyncio.Event()
        self._changed = asyncio.Event()
        self._ends_at: float | None = None
        self._idle.set()

    @property
    def well(self) -> bool:
        """Whether every partition given to the lane is verified and the store takes what it is given."""
        return self.adopted and not self._storing.failing

    @property
    def adopted(self) -> bool:
        """Whether it is known of every partition given to the lane how far the store is."""
        return self._wanted == self.next.keys()

    def confirm(self, topic_id: str) -> None:
        """Which topic has the name now. Raises UnsuitableTopicError when it is not the one that is archived."""
        _require_same(self.topic, self._topic_id, topic_id)

    def follow(self, limits: Limits) -> None:
        """From now on batches are made by these."""
        self._limits = limits
        self._changed.set()

    def assign(self, partitions: set[int]) -> None:
        """Takes partitions on; they flow once their last plans are verified."""
        self._wanted = set(partitions)
        self._changed.set()

    async def revoke(self) -> None:
        """Gives all partitions back; on return nothing is written for them any more."""
        self._wanted.clear()
        self._forget()
        await self._idle.wait()

    def _forget(self) -> None:
        """All that is known of the partitions; those that are still wanted are adopted again."""
        self._term += 1
        self.next.clear()
        self._expected.clear()
        self._gaps.clear()
        self._waiting.take()
        self._changed.set()

    def places(self) -> list[TopicPartition]:
        """What may be polled for: nothing while too much waits."""
        if self._waiting.records >= self._limits.records or self._waiting.bytes >= self._limits.bytes:
            return []
        return [TopicPartition(self.topic, partition) for partition in self._expected]

    def offer(self, partition: int, records: Records) -> None:
        """Takes polled records, without an await in between. Raises UnsuitableTopicError."""
        expected = self._expected.get(partition)
        if expected is None:
            return
        # as lists at once: aiokafka's record objects are several times the size of what they carry
        chunk = chunk_of(partition, records)
        if chunk.first < expected:
            raise UnsuitableTopicError(_went_back(self.topic, partition, expected, chunk.first))
        if chunk.first > expected:
            self._gaps.append((partition, expected, chunk.first))
        self._expected[partition] = chunk.next
        self._waiting.add(chunk)
        self._changed.set()

    def end(self, within_s: float) -> None:
        """Asks `run` to store what waits, for at most that long, and to return."""
        self._ends_at = time.monotonic() + within_s
        self._changed.set()

    async def run(self) -> None:
        """Adopts and stores until `end` is called. Raises what an error in the program raises."""
        while self._ends_at is None or self._waiting:
            self._changed.clear()
            self._idle.clear()
            try:
                with contextlib.suppress(GivenUpError):
                    await self._step(self._term)
            except StartOverError:
                self._forget()
            finally:
                self._idle.set()
            if self._ends_at is None:
                await self._pause()
            elif time.monotonic() >= self._ends_at:
                return

    async def close(self) -> None:
        """Ends the client and the thread."""
        await self._storing.close()

    async def _step(self, term: int) -> None:
        if self._ends_at is None and self._wanted != self.next.keys():
            await self._adopt(term)
        while self._gaps:
            await self._look_for_hole(*self._gaps.pop(0))
        if self._waiting and self._due_in() <= 0:
            await self._store_waiting(term)

    async def _pause(self) -> None:
        """Until something changed or the next batch is due."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(self._due_in(), 0) if self._waiting else None)

    def _due_in(self) -> float:
        if self._waiting.records >= self._limits.enough_records or self._ends_at is not None:
            return 0
        busy = self._waiting.records >= self._limits.busy_records
        return self._waiting.since + (self._limits.busy_wait_s if busy else self._limits.wait_s) - time.monotonic()

    def _still(self, term: int) -> bool:
        return term == self._term and (self._ends_at is None or time.monotonic() < self._ends_at)

    async def _store_waiting(self, term: int) -> None:
        """Stores what is due, one batch after the other; the next one is shaped while one is stored."""
        ahead: asyncio.Task[tuple[Shaped, list[Letter]]] | None = self._shape_next()
        try:
            while ahead is not None and term == self._term:
                shaped, letters = await ahead
                if term == self._term:
                    self._waiting.put_back(shaped.left)
                more = self._waiting and self._due_in() <= 0 and not self._gaps
                ahead = self._shape_next() if more else None
                await self._store(shaped, letters, term)
        finally:
            # Given up: what was taken and not stored is read again by whoever goes on.
            if ahead is not None:
                ahead.cancel()

    def _shape_next(self) -> asyncio.Task[tuple[Shaped, list[Letter]]]:
        taken = self._waiting.take(self._limits.batch_records)
        taken.sort(key=lambda chunk: chunk.partition)  # stable: offsets stay in order
        return asyncio.create_task(self._storing.shape(taken))

    async def _store(self, shaped: Shaped, letters: list[Letter], term: int) -> None:
        # before the plan: once a batch is planned and stored nobody looks at its records again
        await self._letters.send(letters, lambda: self._still(term))
        shaped = replace(shaped, plans=tuple(replace(plan, topic_id=self._topic_id) for plan in shaped.plans))
        stored = await self._storing.store(shaped, lambda: self._still(term))
        await self._set_aside(shaped, stored.refused, term)
        if term != self._term:
            return
        self.next.update({plan.partition: plan.last + 1 for plan in shaped.plans})
        self._metrics.records.labels(self.topic).inc(shaped.records)
        self._metrics.rows.labels(self.topic).inc(shaped.frame.height - len(stored.refused))
        self._metrics.batches.labels(self.topic).inc()
        self._count_rejected(shaped.rejected)

    async def _set_aside(self, shaped: Shaped, refused: Sequence[Refused], term: int) -> None:
        """Keeps rows that ClickHouse refuses as dead letters, and only then goes on without them."""
        if not refused:
            return
        rejected = [each for row in refused for each in await self._as_rejected(row, term)]
        await self._letters.send(letters_of(self.topic, rejected), lambda: self._still(term))
        await self._storing.accept(shaped, refused, lambda: self._still(term))
        self._count_rejected(tuple(rejected))

    async def _as_rejected(self, row: Refused, term: int) -> list[Rejected]:
        """The record behind a row; none when Kafka no longer has it."""
        while True:
            if not self._still(term):
                raise GivenUpError
            try:
                found = await self._source.read_again(
                    *(self.topic, row.partition, row.offset, row.offset), lambda: self._still(term)
                )
                break
            except KafkaError as error:
                _log.warning("refused-row-not-read", topic=self.topic, error=repr(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
        detail = row.said[:REFUSED_DETAIL]
        if not isinstance(found, Chunk):
            return []
        places = zip(found.offsets, found.append_ms, found.keys, found.values, strict=True)
        return [Rejected("refused-by-store", detail, row.partition, *place) for place in places]

    def _count_rejected(self, rejected: tuple[Rejected, ...]) -> None:
        for reason, count in Counter(record.reason for record in rejected).items():
            self._metrics.rejected.labels(self.topic, reason).inc(count)
            example = next(record for record in rejected if record.reason == reason)
            where = f"{self.topic}/{example.partition}@{example.offset}"
            _log.warning(
                "records-rejected", topic=self.topic, reason=reason, count=count, first=where, detail=example.detail
            )

    async def _adopt(self, term: int) -> None:
        """Verifies the last plan of each partition and goes on after it."""
        try:
            positions = await self._positions(sorted(self._wanted), term)
        except (KafkaError, TimeoutError) as error:
            _log.warning("adoption-delayed", topic=self.topic, error=repr(error), retry_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)
            self._changed.set()
            return
        if term != self._term:
            return
        for partition, position in positions.items():
            self._source.seek(self.topic, partition, position)
        self._expected = dict(positions)
        self.next = positions
        _log.info("adopted", topic=self.topic, partitions=len(positions), records_stored_before=sum(positions.values()))

    async def _positions(self, partitions: list[int], term: int) -> dict[int, int]:
        """Where to go on. Raises GivenUpError, KafkaError, TimeoutError, UnsuitableTopicError."""
        topic_id = (await self._source.topic_ids()).get(self.topic, UNKNOWN)
        plans = await self._storing.last_plans(partitions, lambda: self._still(term))
        # only now: who had the partitions before may have read and planned until they were claimed
        bounds = await self._source.bounds(self.topic, partitions)
        for plan in plans.values():
            _require_same(self.topic, plan.topic_id, topic_id)
            if plan.last >= bounds[plan.partition].end:
                raise UnsuitableTopicError(
                    _went_back(self.topic, plan.partition, plan.last + 1, bounds[plan.partition].end)
                )
        self._topic_id = topic_id
        await self._verify(list(plans.values()), term)
        return {
            partition: self._position(partition, plans.get(partition), bounds[partition]) for partition in partitions
        }

    def _position(self, partition: int, plan: Plan | None, bounds: Bounds) -> int:
        if plan is None:
            # a store that is new, or was lost, has all that the log still holds, whatever the group has committed
            return bounds.begin
        if plan.last + 1 < bounds.begin:
            self._report_lost(partition, bounds.begin - plan.last - 1, "retention was faster than the archive")
        return max(plan.last + 1, bounds.begin)

    async def _verify(self, plans: list[Plan], term: int) -> None:
        if self._route.replacing:
            # what Kafka may have deleted need not be written again
            kept_from_ms = time.time() * 1000 - (KEPT_DAYS - 1) * 86_400_000
            plans = [plan for plan in plans if plan.received_to_ms >= kept_from_ms]
        verdicts = await self._storing.verify(plans, lambda: self._still(term))
        outcomes = [self._outcome(plan, verdicts.get(plan.partition, Complete()), term) for plan in plans]
        # all of them to their end: what goes on behind a new attempt would find its rows there, and report them lost
        found = await asyncio.gather(*outcomes, return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
            self._metrics.verified.labels(self.topic, outcome).inc()

    async def _outcome(self, plan: Plan, verdict: Verdict, term: int) -> str:
        match verdict:
            case Complete():
                return "complete"
            case Incomplete(missing):
                return await self._complete(plan, missing, term)
            case Expiring(kept_from_ms):
                outcome = await self._complete(plan, 0, term, kept_from_ms)
                await self._storing.no_longer_in_doubt(plan, lambda: self._still(term))
                return outcome
            case Doubled(extra):
                _log.error("plan-doubled", topic=self.topic, partition=plan.partition, first=plan.first, extra=extra)
                return "doubled"

    async def _complete(self, plan: Plan, missing: int, term: int, kept_from_ms: int = 0) -> str:
        """Reads the plan's records again and inserts the rows that are not there, of those received since."""
        chunk = await self._source.read_again(
            self.topic, plan.partition, plan.first, plan.last, lambda: self._still(term)
        )
        settled = Settled()
        if chunk is not None:
            shaped, _ = await self._storing.shape([chunk])
            # what has expired would come back, and be counted in the rollups once more
            frame = shaped.frame.filter(pl.col("received_at").dt.timestamp("ms") >= kept_from_ms)
            mine = replace(shaped, frame=frame, plans=(plan,))
            settled = await self._storing.settle(mine, lambda: self._still(term))
            await self._set_aside(mine, settled.refused, term)
        if self._route.replacing:
            return "rewritten"
        inserted, refused = settled.inserted, len(settled.refused)
        _log.info("plan-completed", topic=self.topic, partition=plan.partition, first=plan.first, inserted=inserted)
        if inserted + refused < missing and (lost := await self._still_missing(plan, term) - refused):
            self._report_lost(plan.partition, lost, "Kafka no longer has records of the last plan")
            # they are counted once, not at each rebalance
            await self._storing.no_longer_in_doubt(plan, lambda: self._still(term))
            return "lost"
        return "completed"

    async def _still_missing(self, plan: Plan, term: int) -> int:
        """Rows that are not there: an attempt of which the answer was lost may have added some."""
        verdict = (await self._storing.verify([plan], lambda: self._still(term))).get(plan.partition)
        return verdict.missing if isinstance(verdict, Incomplete) else 0

    async def _look_for_hole(self, partition: int, expected: int, found: int) -> None:
        """Offsets may be missing by compaction; retention, which takes what nobody has read, is another thing."""
        with contextlib.suppress(KafkaError):
            begin = (await self._source.bounds(self.topic, [partition]))[partition].begin
            if begin > expected:
                # by now it may have taken what was read
                lost = min(begin, found) - expected
                self._report_lost(partition, lost, "retention was faster than the archive")

    def _report_lost(self, partition: int, count: int, why: str) -> None:
        self._metrics.lost.labels(self.topic).inc(count)
        _log.error("records-lost", topic=self.topic, partition=partition, count=count, why=why)


def _require_same(topic: str, expected: str, found: str) -> None:
    """Of two ids of a topic that are known. Raises UnsuitableTopicError."""
    if UNKNOWN != expected != found != UNKNOWN:
        raise UnsuitableTopicError(
            f"{topic}: the topic was created anew, its id is {found}; expected {expected}, of which the store has "
            "records. Offsets mean other records now. Rename the old tables, or give the archive a new store"
        )


def _went_back(topic: str, partition: int, expected: int, found: int) -> str:
    return (
        f"{topic}/{partition}: the store holds records up to offset {expected - 1}, but the log goes on at {found}; "
        "expected the log that was archived so far: the topic was created anew, or the brokers lost records. "
        "Rename the old tables, or give the archive a new store"
    )
