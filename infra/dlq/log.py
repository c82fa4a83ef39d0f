"""Reading whole topics from Kafka: letters, and the notes about their replay."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError

from infra import InfraError
from infra.dlq.letters import Origin
from schemas.codec import DecodeError, decode
from schemas.dead_letters import TOPIC as LETTERS
from schemas.kafka import Brokers, client_settings
from schemas.records import DeadLetter, DeadLetterReplay
from schemas.traces import kept_headers

REPLAYS = "dead-letter-replays"
POLL_MS = 500
_POLL_RECORDS = 2_000
# A letter is appended after its original, by a broker whose clock may be behind that of the original's.
_CLOCKS_MS = 300_000

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LetterAt:
    """A letter and where it stands in `dead-letters`; `told_ms` is its own append time, `headers` are the record's."""

    letter: DeadLetter
    partition: int
    offset: int
    told_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Notes:
    """What is known about replays: those that are done, and those that were begun and no more is known."""

    done: dict[Origin, DeadLetterReplay] = field(default_factory=dict)
    begun: dict[Origin, DeadLetterReplay] = field(default_factory=dict)

    def add(self, note: DeadLetterReplay) -> None:
        """Takes in a note; those of one origin come in order."""
        origin = Origin.of(note)
        if note.state == "DONE":
            self.begun.pop(origin, None)
            self.done[origin] = note
        elif origin not in self.done:
            self.begun[origin] = note


async def read_letters(brokers: Brokers, since_ms: int | None, progress: Progress) -> AsyncGenerator[LetterAt]:
    """Every letter that may be about a record appended since then. Raises InfraError."""
    async with _reader(brokers, LETTERS, "read_uncommitted") as consumer:
        starts = {}
        if since_ms is not None:
            times = dict.fromkeys(consumer.assignment(), max(since_ms - _CLOCKS_MS, 0))
            starts = await consumer.offsets_for_times(times)
            ends = await consumer.end_offsets(list(times))
            starts = {place: found.offset if found else ends[place] for place, found in starts.items()}
        async for record in _records(
            consumer, starts, lambda read, of: progress(f"reading {LETTERS}: {read:,} of {of:,}")
        ):
            letter = _decoded(record)
            if isinstance(letter, DeadLetter):
                headers = tuple(kept_headers(record.headers))
                yield LetterAt(letter, record.partition, record.offset, record.timestamp, headers)


async def read_notes(brokers: Brokers, progress: Progress) -> Notes:
    """What `dead-letter-replays` says; of transactions only those that were committed. Raises InfraError."""
    notes = Notes()
    async with _reader(brokers, REPLAYS, "read_committed") as consumer:
        async for record in _records(consumer, {}, lambda read, of: progress(f"reading {REPLAYS}: {read:,} of {of:,}")):
            note = _decoded(record)
            if isinstance(note, DeadLetterReplay):
                notes.add(note)
    return notes


async def read_from(brokers: Brokers, starts: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord]:
    """The records of some partitions from the given offsets to the present end, in whatever transaction they are."""
    if not starts:  # a consumer that is stopped right after its start raises CancelledError (aiokafka 0.14)
        return
    async with _reader(brokers, None, "read_uncommitted") as consumer:
        consumer.assign(list(starts))
        async for record in _records(consumer, starts, lambda *_: None):
            yield record


async def partitions_of(brokers: Brokers, topics: Collection[str]) -> set[TopicPartition]:
    """Those that the topics have; a client that is asked about others waits for them in vain."""
    admin = AIOKafkaAdminClient(**client_settings(brokers))
    try:
        await admin.start()
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    return {TopicPartition(topic["topic"], each["partition"]) for topic in described for each in topic["partitions"]}


async def begin_offsets(brokers: Brokers, places: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
    """First offset and end of each partition's log."""
    if not places:  # as above
        return {}
    async with _reader(brokers, None, "read_uncommitted") as consumer:
        begins = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
    return {place: (begins[place], ends[place]) for place in places}


@asynccontextmanager
async def _reader(brokers: Brokers, topic: str | None, isolation: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions of the topic, in no group."""
    consumer = AIOKafkaConsumer(
        *([topic] if topic else []),
        **client_settings(brokers),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
    )
    try:
        await consumer.start()
        yield consumer
    except UnknownTopicOrPartitionError as cause:
        raise InfraError(f"there is no topic {topic}; `fleetbeat topics apply` creates it") from cause
    finally:
        await consumer.stop()


async def _records(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], read_so_far: Callable[[int, int], None]
) -> AsyncIterator[ConsumerRecord]:
    """Records up to where the logs end now, each partition in order."""
    places = list(consumer.assignment())
    begins = await consumer.beginning_offsets(places)
    ends = await consumer.end_offsets(places)
    for place in places:
        consumer.seek(place, max(starts.get(place, 0), begins[place]))
    positions = {place: max(starts.get(place, 0), begins[place]) for place in places}
    of = sum(max(ends[place] - positions[place], 0) for place in places)
    read = 0
    while waiting := [place for place in places if positions[place] < ends[place]]:
        polled = await consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=_POLL_RECORDS)
        for place, records in polled.items():
            for record in records:
                if record.offset < ends[place]:
                    read += 1
                    yield record
        read_so_far(read, of)
        # Not the last record's offset: the marks of transactions take offsets and are never seen.
        positions = {place: await consumer.position(place) for place in places}


def _decoded(record: ConsumerRecord) -> object:
    """The record; None for one that nobody of ours wrote."""
    try:
        return decode(record.value)
    except DecodeError:
        return None
