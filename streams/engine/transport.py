"""Faust's Kafka transport in batches: one event is all that a poll brought for a partition.

Faust spends about 140 µs on every message, wherever it comes from; batching before it pays that once per poll.
Its commit bookkeeping is unsafe for such events (a gap hides the record behind it), so the processors of batch topics
say themselves from where a restart must read again: `Consumer.resume_points`. Faust acknowledges each event at once
and keeps nothing. The commit's metadata is a number of the processor's own, which `committed` gives back, or its words.

Faust's seek after a rebalance is replaced too: it passes over commits of offset 0, and takes so long that other
commits may come between. Polls say where they begin, so that whoever takes them notices what is missing or repeated
(`streams.engine.intake`).
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from aiokafka.errors import CommitFailedError, NoError, RebalanceInProgressError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaTP
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.engine.commit_notes import Note
from streams.engine.identities import Identities
from streams.raw import RawBatch, hand_on_raw
from streams.topic_ids import TopicIdentity

LOG_APPEND_TIME = 1
# aiokafka goes on for as long as the answer may change, as of a topic that is deleted, or a broker that is silent; and
# rebalances and stops wait for a commit. Without it more is read again, and that is all.
COMMIT_S = 5.0
# Goes on while the machine sleeps, as the group's clock does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# A member that hears this is still one: the group waits for it to join again.
_STILL_A_MEMBER = {NoError.errno, RebalanceInProgressError.errno}


class ResumePoint(NamedTuple):
    """Commit `offset`, with `frontier` (append time, ms) as metadata."""

    offset: int
    frontier: int


class TextPoint(NamedTuple):
    """Commit `offset`, with words of the processor's own as metadata (`streams.engine.positions` gives them back)."""

    offset: int
    text: str


class Passed(NamedTuple):
    """Polls held every record before `position`, the last one before `records_to`; marks of transactions are none."""

    records_to: int
    position: int


class NotAppendTimeError(RuntimeError):
    """A topic stamps records with the producers' clocks, on which lateness cannot be decided."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(
            f"topic {topic}: record {partition}/{offset} carries its producer's time; "
            "expected message.timestamp.type=LogAppendTime (run `fleetbeat topics apply`)"
        )


class Poll(list[ConsumerRecord[bytes, bytes]]):
    """The records of one partition in one poll; `begin` is where they go on from.

    That is the offset after the poll before, or the one that was sought; None before any seek of this assignment.
    """

    def __init__(self, records: Iterable[ConsumerRecord[bytes, bytes]], begin: int | None) -> None:
        super().__init__(records)
        self.begin = begin

    @property
    def partition(self) -> int:
        """Of all records; an empty poll has none."""
        partition: int = self[0].partition
        return partition

    @property
    def first(self) -> int:
        """The offset of the first record."""
        offset: int = self[0].offset
        return offset

    @property
    def next(self) -> int:
        """The offset after the last record."""
        offset: int = self[-1].offset + 1
        return offset

    @property
    def append_ms(self) -> int:
        """When the last record was appended."""
        timestamp: int = self[-1].timestamp
        return timestamp

    def since(self, offset: int) -> "Poll":
        """The records from an offset on."""
        return Poll((record for record in self if record.offset >= offset), self.begin)


class RawPoll:
    """The same as batches (`streams.raw`); its length is that of all records, also those ahead of `first`."""

    def __init__(self, batches: Sequence[RawBatch], begin: int | None, first: int | None = None) -> None:
        self.batches = tuple(batches)
        self.begin = begin
        self.partition = batches[0].tp.partition
        self.first = max(batches[0].base_offset, first or 0, begin or 0)
        self.next = batches[-1].next_offset
        self.append_ms = batches[-1].time_ms

    def __len__(self) -> int:
        return sum(batch.count for batch in self.batches)

    def since(self, offset: int) -> "RawPoll | Poll":
        """The records from an offset on."""
        wanted = [batch for batch in self.batches if batch.next_offset > offset]
        return RawPoll(wanted, self.begin, offset) if wanted else Poll((), None)


class Batch:
    """What Faust takes for one message: a poll, as `value`."""

    __slots__ = (
        "checksum",
        "headers",
        "key",
        "offset",
        "partition",
        "serialized_key_size",
        "serialized_value_size",
        "timestamp",
        "timestamp_type",
        "topic",
        "value",
    )

    def __init__(self, tp: TP, poll: Poll | RawPoll) -> None:
        self.topic, self.partition, self.offset = tp.topic, tp.partition, poll.next - 1
        self.timestamp = poll.append_ms
        self.timestamp_type = LOG_APPEND_TIME
        self.headers: list[Any] = []
        self.key = self.checksum = None
        self.value = poll
        self.serialized_key_size = self.serialized_value_size = 0


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Commits with metadata, seeks to it, and knows when the group last heard of us."""

    committed: dict[TP, ResumePoint]
    heard_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.committed = {}
        self.heard_s = float("-inf")
        self._handed: dict[TP, int] = {}
        self.passed: dict[TP, Passed] = {}

    async def on_start(self) -> None:
        """Faust's, and then: take raw batches, and remember when requests were sent that the group has answered."""
        await super().on_start()
        if topics := self.app.raw_topics:  # type: ignore[attr-defined]
            hand_on_raw(self._ensure_consumer(), topics)
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - no public way to heartbeats
        send = coordinator._send_req  # noqa: SLF001 - as above

        async def send_and_remember(request: Any) -> Any:  # noqa: ANN401 - any request of the group's protocol
            sent_s = clock_s()
            answer = await send(request)
            if isinstance(request, HeartbeatRequest | SyncGroupRequest) and answer.error_code in _STILL_A_MEMBER:
                self.heard_s = sent_s
            return answer

        coordinator._send_req = send_and_remember  # noqa: SLF001 - as above

    def forget_position(self) -> None:
        """Until the next seek nobody knows what polls go on from."""
        self._handed, self.passed = {}, {}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the commits; the partitions' new positions, without those of topics that have no commits."""
        return cast("Mapping[TP, int]", await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        parent = cast("Consumer", self.consumer)
        ids = await parent.identities.ask(consumer._client)  # noqa: SLF001 - no public way to new requests
        found = await consumer._coordinator.fetch_committed_offsets(list(assigned))  # noqa: SLF001 - no public way to metadata
        notes = {TP(tp.topic, tp.partition): (meta.offset, Note.read(meta.metadata)) for tp, meta in found.items()}
        points = {
            tp: ResumePoint(offset, note.number)
            for tp, (offset, note) in notes.items()
            if offset >= 0 and parent.identities.still_means(tp, offset, note, ids)
        }
        # From here on there is no await: no poll comes in between.
        offsets: dict[TP, int] = {}
        for kafka_tp in assigned & consumer.assignment():
            tp = TP(kafka_tp.topic, kafka_tp.partition)
            if tp in points or parent.batched(tp):
                # Where retention has deleted what is sought, aiokafka goes to the earliest that is left.
                offsets[tp] = points[tp].offset if tp in points else 0
                consumer.seek(kafka_tp, offsets[tp])
        parent.identities.ids = ids
        self.committed, self._handed, self.passed = points, dict(offsets), {}
        return offsets

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Faust's signature
        batched = cast("Consumer", self.consumer).batched
        polled = await super()._fetch_records(*args, **kwargs)
        found = {
            tp: [self._batch(tp, records)] if batched(tp) else records for tp, records in polled.items() if records
        }
        self._note_passed()
        return found

    def _batch(self, tp: TP, records: list[Any]) -> Batch:
        begin = self._handed.get(tp)
        poll = RawPoll(records, begin) if isinstance(records[0], RawBatch) else Poll(records, begin)
        if begin is not None:
            self._handed[tp] = poll.next
        return Batch(tp, poll)

    def _note_passed(self) -> None:
        """Here all that was fetched so far is in polls: what positions are ahead of those by has no records."""
        subscription = self._ensure_consumer()._subscription.subscription  # noqa: SLF001 - the public way would wait
        if subscription is None or subscription.assignment is None:
            return
        for tp, handed in self._handed.items():
            state = subscription.assignment.state_value(KafkaTP(tp.topic, tp.partition))
            if state is not None and state.has_valid_position:
                self.passed[tp] = Passed(handed, state.position)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Only what differs from Faust's: the metadata, and no crash when the group has moved on.
        # Offset and metadata must be of one point: it may have moved since Faust asked for the offset, and a frontier
        # newer than its offset would make late what is read again.
        parent = cast("Consumer", self.consumer)
        points = parent.resume_points
        assigned = self.assignment()
        wanted = {
            KafkaTP(tp.topic, tp.partition): _with_note(parent.identities, tp, points.get(tp), offset)
            for tp, offset in offsets.items()
            if tp in assigned and (tp in points or not parent.batched(tp))  # else it was taken away meanwhile
        }
        if not wanted:
            return False
        try:
            async with asyncio.timeout(COMMIT_S):
                await self._ensure_consumer().commit(wanted)
        except TimeoutError:
            self.log.warning("commit not acknowledged within %g s: %s", COMMIT_S, sorted(wanted))
            return False
        except CommitFailedError as error:
            self.log.warning("commit refused, the group has rebalanced: %s", error)
            return False
        except Exception as error:
            self.log.exception("commit failed")
            await self.crash(error)
            return False
        return True


class Consumer(driver.Consumer):
    """Commits `resume_points` for the topics in `app.batch_topics`, and seeks to what was committed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Faust's signature
        super().__init__(*args, **kwargs)
        self.resume_points: dict[TP, ResumePoint | TextPoint] = {}
        self.identities = Identities(self.app)
        self._assigned_in = 0  # the number of the rebalance that the assignment is from

    @property
    def committed(self) -> dict[TP, ResumePoint]:
        """What the last seek went to; partitions without a commit are read from their beginning."""
        return self._own_thread.committed

    def identity(self, topic: str) -> TopicIdentity:
        """What a topic was at the last seek; what was polled since is of it if `confirm` agrees."""
        return self.identities.of(topic)

    async def confirm(self, topic: str) -> None:
        """What was polled of a topic until now is of the one that was sought. Raises TopicRecreatedError."""
        await self.identities.confirm(topic)

    @property
    def outdated(self) -> bool:
        """Whether another rebalance has begun since partitions were assigned."""
        return self._assigned_in != self.app.rebalancing_count

    def holds_assignment(self) -> bool:
        """Whether the group has heard of us so lately that it cannot have given our partitions to others."""
        return clock_s() - self._own_thread.heard_s < self.app.conf.broker_session_timeout

    def batched(self, tp: TP) -> bool:
        """Whether a topic is polled in batches."""
        return tp.topic in self.app.batch_topics  # type: ignore[attr-defined]

    @property
    def _own_thread(self) -> ConsumerThread:
        return cast("ConsumerThread", self._thread)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def highwater(self, tp: TP) -> int | None:  # type: ignore[override]  # Faust's own is None before the first fetch
        """The end of a partition's log as last heard; None for one that is not assigned to us, or no longer."""
        try:
            return super().highwater(tp)
        except (AssertionError, AttributeError, ConsumerNotStarted):
            return None  # the first two are aiokafka's answers: its thread may lose the partition while it looks

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self.batched(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self.batched(tp):
            return super()._new_offset(tp)
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        point = self.resume_points.get(tp)
        return None if point is None else point.offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ANN401 - Faust's signature
        pending = set(self._acked) | set(self.resume_points)
        return (tp for tp in pending if topics is None or tp in topics or tp.topic in topics)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Super waits for the batch in hand and commits. Then all partitions are sought back, so rollups start anew."""
        await super().on_partitions_revoked(revoked)
        self.resume_points.clear()
        self._own_thread.forget_position()
        self.app.on_lost()  # type: ignore[attr-defined]

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Super starts what ends in a seek."""
        self._assigned_in = self.app.rebalancing_count
        await super().on_partitions_assigned(assigned, generation_id)


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = Consumer


def require_append_time(records: Iterable[ConsumerRecord[bytes, bytes]] | Iterable[RawBatch]) -> None:
    """Raises NotAppendTimeError unless the broker stamped every record."""
    for each in records:
        if isinstance(each, RawBatch):
            if not each.append_time:
                raise NotAppendTimeError(each.tp.topic, each.tp.partition, each.base_offset)
        elif each.timestamp_type != LOG_APPEND_TIME:
            raise NotAppendTimeError(each.topic, each.partition, each.offset)


def clock_s() -> float:
    """Seconds that pass for everyone, also for who does not run."""
    return time.clock_gettime(_CLOCK)


def _with_note(identities: Identities, tp: TP, point: ResumePoint | TextPoint | None, offset: int) -> OffsetAndMetadata:
    if point is None:
        return OffsetAndMetadata(offset, "")
    text = point.text if isinstance(point, TextPoint) else str(point.frontier)
    return OffsetAndMetadata(point.offset, identities.note(tp.topic, text))


def topic_partitions(tps: Iterable[TP], topic: str) -> set[int]:
    """The partitions of one topic among many."""
    return {tp.partition for tp in tps if tp.topic == topic}
