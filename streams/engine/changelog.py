"""A changelog from its beginning to its end, as fast as the broker gives it."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.kafka import Brokers, client_settings
from streams.engine.app import MAX_MESSAGE_BYTES
from streams.fetches import let_fetches_end

# A few large pages at once, so that their work in another thread begins while the next ones are fetched.
_MAX_RECORDS = 256
_POLL_MS = 1_000
_SILENT_POLLS = 30

# Everything that partitions of a topic hold, each in its order.
ReadLog = Callable[[str, Collection[int]], AsyncIterator[list[ConsumerRecord[bytes, bytes]]]]


class ChangelogSilentError(RuntimeError):
    """The broker gives nothing more, although the log goes on."""


async def read_changelog(
    brokers: Brokers, topic: str, partitions: Iterable[int], begins: Mapping[int, int] = MappingProxyType({})
) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
    """Everything that the partitions hold now, each in its order. Raises ChangelogSilentError and KafkaError.

    `begins`: for a partition the offset to begin at; without one its first.

    Faust's own recovery is not used: it carries on where an interrupted one stopped, so that pages can be passed over.
    """
    tps = [TopicPartition(topic, partition) for partition in partitions]
    consumer = AIOKafkaConsumer(
        **client_settings(brokers),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
    )
    await consumer.start()
    let_fetches_end(consumer)
    try:
        consumer.assign(tps)
        first, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        first = {tp: max(offset, begins.get(tp.partition, 0)) for tp, offset in first.items()}
        for tp in tps:
            consumer.seek(tp, first[tp])
        waiting = {tp for tp in tps if ends[tp] > first[tp]}
        silent = 0
        while waiting:
            polled = await consumer.getmany(*waiting, timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            silent = 0 if polled else silent + 1
            if silent > _SILENT_POLLS:
                places = {tp.partition: (await consumer.position(tp), ends[tp]) for tp in waiting}
                raise ChangelogSilentError(
                    f"{topic}: nothing for {_SILENT_POLLS} s at {places}; expected (at, end) equal"
                )
            for records in polled.values():
                yield records
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()
