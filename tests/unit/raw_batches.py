"""Records as a broker keeps them: batches of format 2 with its offsets, its time and its checksum."""

import struct
from collections.abc import Sequence
from itertools import groupby

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from streams.raw import RawBatch, RawRecords

LZ4 = 3


def message_set(records: Sequence[ConsumerRecord[bytes, bytes]], codec: int = LZ4, *, base: int | None = None) -> bytes:
    """One batch, with the append time of the last record; `base` below the first offset leaves a gap."""
    begin = records[0].offset if base is None else base
    built = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for record in records:
        built.append(record.offset - begin, record.timestamp, record.key, record.value, list(record.headers))
    data = built.build()
    attributes = struct.unpack_from(">h", data, 21)[0] | 8
    struct.pack_into(">q", data, 0, begin)
    struct.pack_into(">h", data, 21, attributes)
    struct.pack_into(">q", data, 35, records[-1].timestamp)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
    return bytes(data)


def raw_batches(records: Sequence[ConsumerRecord[bytes, bytes]], codec: int = LZ4) -> list[RawBatch]:
    """A batch for each append time."""
    tp = TopicPartition(records[0].topic, records[0].partition)
    sets = [message_set(list(run), codec) for _, run in groupby(records, lambda record: record.timestamp)]
    return list(RawRecords(tp, b"".join(sets), records[0].offset))
