"""Kafka record batches (format 2) from columns of keys and values; the broker gives offsets and append times."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka.codec import lz4_encode
from aiokafka.record.util import calc_crc32c

from agents.simulate.pieces import Piece, constant, join, longs, total_size

# The broker takes at most 1 MiB a batch; uncompressed records stay below that, whatever compression makes of them.
MAX_RECORDS_BYTES = 960 << 10
MAX_RECORDS = 4_096
_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12  # base offset and length itself
_BEFORE_CHECKED = 21  # what the checksum leaves out
_CRC_AT = 17
_LZ4 = 3
# Level 1: a sixth of the time of the client's own level 9 for a tenth more bytes.
_LZ4_LEVEL = 1
_RECORD_OVERHEAD = 16
_OFFSETS = longs(np.arange(MAX_RECORDS))


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records ready for the wire but for the producer's state; `created_ms` is wall time."""

    payload: bytes
    records: int
    compressed: bool
    created_ms: int

    def wire(self, producer_id: int, producer_epoch: int, base_sequence: int) -> bytearray:
        """The batch as a produce request carries it."""
        out = bytearray(_HEADER.size) + self.payload
        _HEADER.pack_into(
            out,
            0,
            0,
            len(out) - _BEFORE_LENGTH,
            -1,
            2,
            0,
            _LZ4 if self.compressed else 0,
            self.records - 1,
            self.created_ms,
            self.created_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            self.records,
        )
        struct.pack_into(">I", out, _CRC_AT, calc_crc32c(memoryview(out)[_BEFORE_CHECKED:]))
        return out


def record_batch(key: Piece, value: Sequence[Piece], records: int, created_ms: int) -> RecordBatch:
    """One batch of records, at most MAX_RECORDS, whose keys and values are given as pieces."""
    body = [
        constant(b"\0\0"),  # attributes; timestamp as in the header
        _OFFSETS.cut(slice(records)),
        longs(total_size([key])),
        key,
        longs(total_size(value)),
        *value,
        constant(b"\0"),  # no headers
    ]
    raw = join([longs(total_size(body)), *body], records).tobytes()
    packed = lz4_encode(raw, _LZ4_LEVEL)
    if len(packed) < len(raw):
        return RecordBatch(packed, records, compressed=True, created_ms=created_ms)
    return RecordBatch(raw, records, compressed=False, created_ms=created_ms)


def slices(first: int, end: int, widest_bytes: int) -> Iterator[slice]:
    """Cuts the rows from `first` to before `end`, of at most `widest_bytes` (key and value), into batches."""
    size = max(1, min(MAX_RECORDS, MAX_RECORDS_BYTES // (widest_bytes + _RECORD_OVERHEAD)))
    for start in range(first, end, size):
        yield slice(start, min(start + size, end))
