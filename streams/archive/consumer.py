"""Kafka's side of the archive: which partitions, from where, how far behind."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata

from schemas.kafka import Brokers, client_settings
from schemas.kafka.reasons import forbidden_topics, why_not
from streams.archive.blocks import Chunk, RawChunk, Route
from streams.raw import RawBatch, UnreadableBatchError, hand_on_raw
from streams.topic_ids import fetch_topic_ids

LOG_APPEND_TIME = 1
POLL_RECORDS = 20_000
_RETRY_S = 1.0
# aiokafka asks for a group's coordinator for ever.
_ANSWER_S = 10.0
_log = structlog.get_logger(__name__)

Records = Sequence[Any]  # of aiokafka.ConsumerRecord, or of RawBatch
Partitions = Mapping[str, set[int]]


class GivenUpError(Exception):
    """Nobody wants the result any more: the partitions were taken away, or the archive has to end."""


class UnsuitableTopicError(RuntimeError):
    """A topic is not as the archive needs it; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The log of a partition holds offsets from `begin` up to, not including, `end`."""

    begin: int
    end: int


def chunk_of(partition: int, records: Records) -> Chunk | RawChunk:
    """Batches as they are, records as lists. Raises UnsuitableTopicError when their times are not the broker's."""
    first = records[0]
    if isinstance(first, RawBatch):
        for batch in records:
            if not batch.append_time:
                raise _not_append_time(batch.tp.topic, partition, batch.base_offset)
        return RawChunk(partition, records)
    if first.timestamp_type != LOG_APPEND_TIME:
        raise _not_append_time(first.topic, partition, first.offset)
    return Chunk(
        partition,
        [record.offset for record in records],
        [record.timestamp for record in records],
        [record.key for record in records],
        [record.value for record in records],
    )


def _one_by_one(records: Records, last: int) -> Iterator[Any]:
    for each in records:
        if not isinstance(each, RawBatch):
            yield each
        elif each.base_offset <= last:
            # of one that cannot be read no row was planned, and its letter was sent before the plan
            with suppress(UnreadableBatchError):
                yield from each.records()


def _not_append_time(topic: str, partition: int, offset: int) -> UnsuitableTopicError:
    return UnsuitableTopicError(
        f"{topic}/{partition} at offset {offset}: the record has the producer's time; expected "
        "message.timestamp.type=LogAppendTime: run `fleetbeat topics apply` before anything is produced"
    )


class Source:
    """One aiokafka consumer: of all partitions, or of those that the group gives it (`shared`)."""

    def __init__(self, brokers: Brokers, group: str, routes: Collection[Route], *, shared: bool) -> None:
        self._brokers = brokers
        self._topics = sorted(route.topic for route in routes)
        self._raw = frozenset(route.topic for route in routes if route.raw)
        self._shared = shared
        self._taken: Partitions = {}
        self._consumer = AIOKafkaConsumer(
            **client_settings(brokers),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            # a store that is down for long holds back polls; the partitions stay here meanwhile
            max_poll_interval_ms=3_600_000,
            rebalance_timeout_ms=60_000,
            # a batch is collected for longer anyway: few large answers cost broker and client less than many small ones
            fetch_max_wait_ms=100,
            fetch_min_bytes=1 << 20,
            max_poll_records=POLL_RECORDS,
            metadata_max_age_ms=60_000,  # partitions that are added are seen by then
        )

    async def start(
        self,
        assigned: Callable[[Partitions], None],
        revoked: Callable[[], Awaitable[None]],
    ) -> None:
        """Connects, waits for the topics, and reports partitions to `assigned`; `revoked` gives all of them back."""
        while True:
            try:
                await self._consumer.start()
                break
            except KafkaError as error:
                await self._told_why(error)
                await asyncio.sleep(_RETRY_S)
        hand_on_raw(self._consumer, self._raw)
        if self._shared:
            self._consumer.subscribe(topics=self._topics, listener=_Listener(assigned, revoked))
            return
        partitions = await self._await_topics()
        self.take(partitions)
        assigned(partitions)

    def take(self, partitions: Partitions) -> None:
        """From now on these are read, where no group gives them; all have to be sought."""
        self._consumer.assign([TopicPartition(topic, number) for topic in partitions for number in partitions[topic]])
        self._taken = partitions

    def added(self) -> Partitions | None:
        """All partitions, when topics have more than are taken; else, and where a group gives them, None."""
        there = {topic: self._consumer.partitions_for_topic(topic) or set() for topic in self._taken}
        if all(there[topic] <= taken for topic, taken in self._taken.items()):
            return None
        return {topic: taken | there[topic] for topic, taken in self._taken.items()}

    async def stop(self) -> None:
        """Leaves the group and disconnects."""
        await self._consumer.stop()

    async def poll(self, wanted: Iterable[TopicPartition]) -> dict[TopicPartition, Records]:
        """Records of the wanted partitions (at least one), or batches, after 200 ms at the latest."""
        return await self._consumer.getmany(*wanted, timeout_ms=200)  # type: ignore[no-any-return]

    async def bounds(self, topic: str, partitions: Collection[int]) -> dict[int, Bounds]:
        """What the logs hold now. Raises KafkaError."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        begins = await self._consumer.beginning_offsets(places)
        ends = await self._consumer.end_offsets(places)
        return {place.partition: Bounds(begins[place], ends[place]) for place in places}

    async def ends(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The next offsets that the logs will give. Raises KafkaError, TimeoutError."""
        return await asyncio.wait_for(self._consumer.end_offsets(places), _ANSWER_S)

    async def topic_ids(self) -> dict[str, str]:
        """Of the topics that exist; "" on a broker that has no ids. Raises KafkaError, TimeoutError."""
        client = self._consumer._client  # noqa: SLF001 - no public way to other requests
        return await asyncio.wait_for(fetch_topic_ids(client, self._topics), _ANSWER_S)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Goes on from `offset`."""
        self._consumer.seek(TopicPartition(topic, partition), offset)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Tells the group how far the store is. Only a hint: false when Kafka did not take it."""
        offsets = {place: OffsetAndMetadata(offset, "") for place, offset in positions.items()}
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), _ANSWER_S)
        except (KafkaError, TimeoutError) as error:
            _log.info("commit-refused", partitions=len(positions), error=repr(error))
            return False
        return True

    async def read_again(
        self, topic: str, partition: int, first: int, last: int, wanted: Callable[[], bool]
    ) -> Chunk | RawChunk | None:
        """The records from `first` to `last` that the log still holds; None when there is none.

        Raises KafkaError, and GivenUpError unless `wanted()`.
        """
        place = TopicPartition(topic, partition)
        consumer = AIOKafkaConsumer(
            **client_settings(self._brokers), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        records: list[Any] = []
        try:
            await consumer.start()
            hand_on_raw(consumer, self._raw)
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            begin = (await consumer.beginning_offsets([place]))[place]
            consumer.seek(place, max(first, begin))
            # offsets may be missing in the log, so the position says when the range is done
            while await consumer.position(place) < min(last + 1, end):
                if not wanted():
                    raise GivenUpError
                got = await consumer.getmany(place, timeout_ms=500, max_records=POLL_RECORDS)
                found = got.get(place, [])
                records += [each for each in _one_by_one(found, last) if first <= each.offset <= last]
        finally:
            await consumer.stop()
        return chunk_of(partition, records) if records else None

    async def _told_why(self, error: KafkaError) -> None:
        why = await why_not(self._brokers, error)
        _log.warning("kafka-unreachable", brokers=str(self._brokers), error=why, retry_s=_RETRY_S)

    async def _await_topics(self) -> dict[str, set[int]]:
        """All partitions by topic, once every topic is there."""
        told = False
        while True:
            try:
                there, hidden = await _partitions(self._brokers, self._topics)
            except KafkaError as error:
                await self._told_why(error)
            else:
                missing = sorted(set(self._topics) - there.keys())
                if not missing:
                    return there
                if not told:
                    why = forbidden_topics(self._brokers, hidden) if hidden else "run `fleetbeat topics apply`"
                    _log.warning("topics-missing", topics=missing, hint=why)
                    told = True
            await asyncio.sleep(_RETRY_S)


async def _partitions(brokers: Brokers, topics: Sequence[str]) -> tuple[dict[str, set[int]], list[str]]:
    """The partitions of those topics that exist, and the topics that we may not see. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**client_settings(brokers))
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    there = {
        topic["topic"]: {partition["partition"] for partition in topic["partitions"]}
        for topic in described
        if topic["error_code"] == 0 and topic["partitions"]
    }
    hidden = [topic["topic"] for topic in described if topic["error_code"] == TopicAuthorizationFailedError.errno]
    return there, hidden


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Every rebalance takes all partitions away and gives some back."""

    def __init__(self, assigned: Callable[[Partitions], None], revoked: Callable[[], Awaitable[None]]) -> None:
        self._assigned = assigned
        self._revoked = revoked

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Waits until nothing is written for them any more."""
        _log.info("partitions-revoked", count=len(revoked))
        await self._revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Hands them out by topic."""
        _log.info("partitions-assigned", count=len(assigned))
        by_topic: dict[str, set[int]] = {}
        for place in assigned:
            by_topic.setdefault(place.topic, set()).add(place.partition)
        self._assigned(by_topic)
