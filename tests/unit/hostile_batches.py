"""Batches that a broker takes and no client of ours sends."""

import struct

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from streams.raw import RawBatch, RawRecords
from streams.unpacking import MAX_UNPACKED_BYTES
from tests.unit.raw_batches import message_set

ZSTD = 4


def bomb(tp: TopicPartition, first: int, append_ms: int, *, records: int = 8) -> RawBatch:
    """A few kilobytes that are more than any batch may be, unpacked."""
    zeros = b"\0" * (MAX_UNPACKED_BYTES // records)
    built = DefaultRecordBatchBuilder(2, ZSTD, 0, -1, -1, -1, 2 * MAX_UNPACKED_BYTES)
    for ahead in range(records):
        built.append(ahead, append_ms, b"n", zeros, [])
    return _of_broker(tp, bytearray(built.build()), first, append_ms)


def with_bytes(record: ConsumerRecord[bytes, bytes], old: bytes, new: bytes) -> RawBatch:
    """A batch of one, not packed, in which some bytes are others of the same length."""
    data = bytearray(message_set([record], 0))
    place = data.index(old)
    data[place : place + len(new)] = new
    return _of_broker(TopicPartition(record.topic, record.partition), data, record.offset, record.timestamp)


def with_count(batch: RawBatch, count: int) -> RawBatch:
    """The same, which says that it has so many records."""
    data = bytearray(batch.data)
    struct.pack_into(">i", data, 57, count)
    return _of_broker(batch.tp, data, batch.base_offset, batch.time_ms)


def _of_broker(tp: TopicPartition, data: bytearray, first: int, append_ms: int) -> RawBatch:
    struct.pack_into(">q", data, 0, first)
    struct.pack_into(">h", data, 21, struct.unpack_from(">h", data, 21)[0] | 8)
    struct.pack_into(">q", data, 35, append_ms)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
    (batch,) = RawRecords(tp, bytes(data), first)
    return batch


def as_produced(batch: RawBatch) -> bytes:
    """As a client sends it, which is not the one to say when it was appended."""
    data = bytearray(batch.data)
    struct.pack_into(">h", data, 21, struct.unpack_from(">h", data, 21)[0] & ~8)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
    return bytes(data)
