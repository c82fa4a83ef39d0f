"""The peers' windows as their changelogs in Kafka hold them: what they would have again after a crash."""

import json
import re
import struct
from collections.abc import Iterator
from typing import TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord

from tests.bench.contest.racing import SOURCE
from tests.bench.contest.windows import Windows, from_lists

Record: TypeAlias = ConsumerRecord[bytes, bytes]

_STREAMS_HEAD = struct.Struct(">qqqi")  # total, good, sum_us, first bucket; then ints
_STREAMS_KEY = struct.Struct(">qi")  # start in ms, a number that is always 0
_QUIX_KEY = struct.Struct(">cQcQ")  # |start|end in ms


async def latest(brokers: str, owner: str, partitions: int) -> list[Record]:
    """The last record under each key of the changelog of windows whose name holds `owner`, tombstones left out."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        topics = [
            topic for topic in await consumer.topics() if owner in topic and {"changelog", "windows"} <= _words(topic)
        ]
        if len(topics) != 1:
            raise LookupError(f"changelogs of {owner}: {topics}; expected one")
        tps = [TopicPartition(topics[0], partition) for partition in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        found: dict[tuple[int, bytes], Record] = {}
        waiting = {tp for tp in tps if ends[tp]}
        while waiting:
            for records in (await consumer.getmany(*waiting, timeout_ms=500)).values():
                found |= {(record.partition, record.key or b""): record for record in records}
            waiting = {tp for tp in waiting if await consumer.position(tp) < ends[tp]}
        return [record for record in found.values() if record.value is not None]
    finally:
        await consumer.stop()


async def require_committed(brokers: str, group: str, partitions: int) -> None:
    """Raises RuntimeError unless the group has committed all of the source topic."""
    tps = [TopicPartition(SOURCE, partition) for partition in range(partitions)]
    admin, consumer = AIOKafkaAdminClient(bootstrap_servers=brokers), AIOKafkaConsumer(bootstrap_servers=brokers)
    await admin.start()
    await consumer.start()
    try:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await consumer.stop()
        await admin.close()
    lacking = {tp.partition: (found[tp].offset if tp in found else None, ends[tp]) for tp in tps if ends[tp]}
    lacking = {partition: pair for partition, pair in lacking.items() if pair[0] != pair[1]}
    if lacking:
        raise RuntimeError(f"{group}: (committed, end) by partition {lacking}; expected equal")


def _words(topic: str) -> set[str]:
    return set(re.split("[-_]+", topic))


def kafka_streams(records: list[Record]) -> Windows:
    """Of a window store whose values are Counts.java's."""
    return from_lists(_streams_rows(records))


def _streams_rows(records: list[Record]) -> Iterator[tuple[str, int, list[int]]]:
    for record in records:
        key, value = record.key or b"", record.value or b""
        start_ms, _ = _STREAMS_KEY.unpack(key[-_STREAMS_KEY.size :])
        buckets = struct.unpack(f">{(len(value) - _STREAMS_HEAD.size) // 4}i", value[_STREAMS_HEAD.size :])
        yield key[: -_STREAMS_KEY.size].decode(), start_ms // 1_000, [*_STREAMS_HEAD.unpack_from(value), *buckets]


def quix(records: list[Record]) -> Windows:
    """Of a windowed store of one aggregation called `counts`; the store's own bookkeeping is passed over."""
    return from_lists(_quix_rows(records))


def _quix_rows(records: list[Record]) -> Iterator[tuple[str, int, list[int]]]:
    for record in records:
        family = dict(record.headers).get("__column_family__", b"default")
        if family != b"default":
            continue
        key = record.key or b""
        _, start_ms, _, _ = _QUIX_KEY.unpack(key[-_QUIX_KEY.size :])
        (counts,) = json.loads(record.value or b"").values()
        yield key[: -_QUIX_KEY.size].decode(), start_ms // 1_000, counts


def faust(records: list[Record]) -> Windows:
    """Of a windowed table: keys are JSON [pair, [start, end in s]]."""
    return from_lists(_faust_rows(records))


def _faust_rows(records: list[Record]) -> Iterator[tuple[str, int, list[int]]]:
    for record in records:
        pair, (start_s, _) = json.loads(record.key or b"")
        yield pair, int(start_s), json.loads(record.value or b"")
