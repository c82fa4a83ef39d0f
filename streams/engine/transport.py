"""Faust's Kafka transport in batches: one event is all that a poll brought for a partition.

Faust spends about 140 µs on every message, wherever it comes from; batching before it pays that once per poll.
Its commit bookkeeping is unsafe for such events (a gap hides the record behind it), so the processors of batch topics
say themselves from where a restart must read again: `Consumer.resume_points`. Faust acknowledges each event at once
and keeps nothing. The commit's metadata carries a number of the processor's own, which `committed` gives back.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from aiokafka.errors import CommitFailedError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaTP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

LOG_APPEND_TIME = 1


class ResumePoint(NamedTuple):
    """Commit `offset`, with `frontier` (append time, ms) as metadata."""

    offset: int
    frontier: int


class NotAppendTimeError(RuntimeError):
    """A topic stamps records with the producers' clocks, on which lateness cannot be decided."""


class Batch:
    """What Faust takes for one message: the records of one partition in one poll, as `value`."""

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

    def __init__(self, records: list[ConsumerRecord[bytes, bytes]]) -> None:
        last = records[-1]
        self.topic, self.partition, self.offset = last.topic, last.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.headers: list[Any] = []
        self.key = self.checksum = None
        self.value = records
        self.serialized_key_size = self.serialized_value_size = 0


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Commits with metadata, and reads it back."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Only what differs from Faust's: the metadata, and no crash when the group has moved on.
        # Offset and metadata must be of one point: it may have moved since Faust asked for the offset, and a frontier
        # newer than its offset would make late what is read again.
        points = cast("Consumer", self.consumer).resume_points
        assigned = self.assignment()
        wanted = {
            KafkaTP(tp.topic, tp.partition): _with_metadata(points.get(tp), offset)
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if not wanted:
            return False
        try:
            await self._ensure_consumer().commit(wanted)
        except CommitFailedError as error:
            self.log.warning("commit refused, the group has rebalanced: %s", error)
            return False
        except Exception as error:
            self.log.exception("commit failed")
            await self.crash(error)
            return False
        return True

    async def committed_points(self) -> dict[TP, ResumePoint]:
        """What the group last committed for the assigned partitions."""
        return cast("dict[TP, ResumePoint]", await self.call_thread(self._committed_points))

    async def _committed_points(self) -> dict[TP, ResumePoint]:
        consumer = self._ensure_consumer()
        found = await consumer._coordinator.fetch_committed_offsets(list(consumer.assignment()))  # noqa: SLF001 - no public way to metadata
        return {
            TP(tp.topic, tp.partition): ResumePoint(meta.offset, int(meta.metadata) if meta.metadata.isdecimal() else 0)
            for tp, meta in found.items()
            if meta.offset >= 0
        }


class Consumer(driver.Consumer):
    """Batches the topics in `app.batch_topics`; commits `resume_points` for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Faust's signature
        super().__init__(*args, **kwargs)
        self.resume_points: dict[TP, ResumePoint] = {}
        self.committed: dict[TP, ResumePoint] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _batched(self, tp: TP) -> bool:
        return tp.topic in self.app.batch_topics  # type: ignore[attr-defined]

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ANN401, ASYNC109 - Faust's signature
        polled = await super()._getmany(active_partitions, timeout)
        return {tp: [Batch(records)] if records and self._batched(tp) else records for tp, records in polled.items()}

    def highwater(self, tp: TP) -> int | None:  # type: ignore[override]  # Faust's own is None before the first fetch
        """The end of a partition's log as last heard; None for one that is not, or no longer, assigned to us."""
        try:
            return super().highwater(tp)
        except AssertionError:  # aiokafka's answer; asking first would be no use, as its thread may lose the partition
            return None

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self._batched(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self._batched(tp):
            return super()._new_offset(tp)
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        point = self.resume_points.get(tp)
        return None if point is None else point.offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ANN401 - Faust's signature
        pending = set(self._acked) | set(self.resume_points)
        return (tp for tp in pending if topics is None or tp in topics or tp.topic in topics)

    async def perform_seek(self) -> None:
        """Seek every partition back to what was committed, and remember its metadata."""
        await super().perform_seek()
        self.committed = await cast("ConsumerThread", self._thread).committed_points()

    async def fetch_committed(self) -> dict[TP, ResumePoint]:
        """What the group has committed for what is assigned, asked now: `committed` may be of an older assignment."""
        return await cast("ConsumerThread", self._thread).committed_points()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Super waits for the batch in hand and commits. Then all partitions are sought back, so rollups start anew."""
        await super().on_partitions_revoked(revoked)
        self.resume_points.clear()
        self.app.on_lost()  # type: ignore[attr-defined]


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = Consumer


def require_append_time(records: list[ConsumerRecord[bytes, bytes]]) -> None:
    """Raises NotAppendTimeError unless the broker stamped every record."""
    wrong = next((record for record in records if record.timestamp_type != LOG_APPEND_TIME), None)
    if wrong is not None:
        message = (
            f"topic {wrong.topic}: record {wrong.partition}/{wrong.offset} carries its producer's time; "
            "expected message.timestamp.type=LogAppendTime (run `fleetbeat topics apply`)"
        )
        raise NotAppendTimeError(message)


def _with_metadata(point: ResumePoint | None, offset: int) -> OffsetAndMetadata:
    return OffsetAndMetadata(offset, "") if point is None else OffsetAndMetadata(point.offset, str(point.frontier))


def topic_partitions(tps: Iterable[TP], topic: str) -> set[int]:
    """The partitions of one topic among many."""
    return {tp.partition for tp in tps if tp.topic == topic}
