"""The replayer's side of Kafka: one fenced producer, and looks into the partitions it sends to."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.partitioner import DefaultPartitioner

from infra import InfraError
from infra.dlq import log
from schemas.kafka import Brokers, client_settings

# One for all: who starts a replay ends every other one, also one that was frozen and wakes up later.
TRANSACTIONAL_ID = "fleetbeat-dlq-replay"
REPLAY_OF = "fleetbeat-replay-of"
Place = tuple[str, int]  # topic and partition
Headers = tuple[tuple[str, bytes], ...]
# What another reader with read_committed waits at most for a replayer that died.
_TRANSACTION_TIMEOUT_MS = 30_000


class TakenOverError(InfraError):
    """Another replay has begun meanwhile."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record on its way."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


class Wire:
    """Sends within transactions only; made by `fenced`."""

    def __init__(self, brokers: Brokers, producer: AIOKafkaProducer) -> None:
        self._brokers = brokers
        self._producer = producer
        self._partitioner = DefaultPartitioner()

    async def partition_of(self, topic: str, key: bytes | None) -> int:
        """Where any producer with murmur2 puts the key."""
        partitions = sorted(await self._producer.partitions_for(topic))
        return int(self._partitioner(key, partitions, partitions))

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The ends of partitions' logs, transactions still open included."""
        bounds = await self._bounds(places)
        return {place: end for place, (_, end) in bounds.items()}

    async def begins(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offsets that partitions still hold; without those that are gone."""
        asked = {TopicPartition(*place) for place in places}
        there = await log.partitions_of(self._brokers, {place.topic for place in asked})
        bounds = await self._bounds(asked & there)
        return {place: begin for place, (begin, _) in bounds.items()}

    async def replays_since(self, starts: Mapping[Place, int]) -> AsyncIterator[tuple[str, int, int]]:
        """(place of the original, partition, offset) of every replay in the partitions from `starts` on."""
        places = {TopicPartition(*place): offset for place, offset in starts.items()}
        async for record in log.read_from(self._brokers, places):
            for name, value in record.headers:
                if name == REPLAY_OF:
                    yield value.decode(errors="replace"), record.partition, record.offset

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """All that is put within it is committed at its end."""
        return self._producer.transaction()  # type: ignore[no-any-return]

    async def put(self, records: Sequence[Outgoing]) -> list[int]:
        """Sends and returns the offsets, once every replica in sync has the records."""
        acks = [
            await self._producer.send(
                record.topic, record.value, key=record.key, partition=record.partition, headers=list(record.headers)
            )
            for record in records
        ]
        return [(await ack).offset for ack in acks]

    async def _bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        found = await log.begin_offsets(self._brokers, [TopicPartition(*place) for place in places])
        return {(place.topic, place.partition): bounds for place, bounds in found.items()}


@asynccontextmanager
async def fenced(brokers: Brokers) -> AsyncIterator[Wire]:
    """A wire after whose start no earlier one can write any more. Raises TakenOverError when a later one has begun."""
    producer = AIOKafkaProducer(
        **client_settings(brokers),
        transactional_id=TRANSACTIONAL_ID,
        transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
        acks="all",
        compression_type="lz4",
    )
    try:
        await producer.start()
        yield Wire(brokers, producer)
    except ProducerFenced as cause:
        raise TakenOverError(
            "another replay has begun, or Kafka waited too long for this one; run it again for the rest"
        ) from cause
    finally:
        await producer.stop()
