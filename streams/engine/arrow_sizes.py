"""How large an Arrow IPC stream says that it is, read off before anything is set aside for it.

Every compressed buffer begins with the length of what it holds. Polars unpacks no more than that, but all of that: a
hundred kilobytes can hold a gigabyte of zeros.
"""

import struct
from collections.abc import Iterator

_CONTINUATION = 0xFFFFFFFF
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of a Message
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # fields of a RecordBatch
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_U32, _I32, _U16, _I64 = (struct.Struct(f"<{kind}") for kind in "IiHq")
_PLACE = struct.Struct("<qq")  # of a buffer: offset and length
_MOST_BUFFERS = 10_000


def unpacked_bytes(data: bytes) -> int:
    """What all buffers say that they hold. Raises ValueError for what is no stream of record batches."""
    try:
        return sum(_batches(data))
    except (struct.error, IndexError) as cause:
        raise ValueError(f"no Arrow stream: {cause}") from cause


def _batches(data: bytes) -> Iterator[int]:
    at = 0
    while at + 8 <= len(data) and _U32.unpack_from(data, at)[0] == _CONTINUATION:
        size = _I32.unpack_from(data, at + 4)[0]
        if size <= 0:
            return
        message = _root(data, at + 8)
        body = at + 8 + size
        length = _scalar(data, message, _BODY_LENGTH, _I64)
        if length < 0 or body + length > len(data):
            raise ValueError(f"a body of {length} bytes at {body} of {len(data)}")
        kind = data[place] if (place := _field(data, message, _HEADER_TYPE)) else 0
        if kind == _DICTIONARY_BATCH:
            raise ValueError("a dictionary; expected columns of their own")
        if kind == _RECORD_BATCH:
            yield _batch(data, _pointed(data, _field(data, message, _HEADER)), body, length)
        at = body + length


def _batch(data: bytes, batch: int, body: int, length: int) -> int:
    vector = _pointed(data, _field(data, batch, _BUFFERS))
    count = _U32.unpack_from(data, vector)[0]
    if count > _MOST_BUFFERS:
        raise ValueError(f"{count} buffers; expected at most {_MOST_BUFFERS}")
    compressed, total = bool(_field(data, batch, _COMPRESSION)), 0
    for number in range(count):
        offset, size = _PLACE.unpack_from(data, vector + 4 + number * _PLACE.size)
        if offset < 0 or size < 0 or offset + size > length:
            raise ValueError(f"a buffer of {size} bytes at {offset} of a body of {length}")
        said = _I64.unpack_from(data, body + offset)[0] if compressed and size else size
        if said < -1:
            raise ValueError(f"a buffer of {said} bytes")
        total += size if said == -1 else said  # -1: this one is not compressed
    rows = _scalar(data, batch, _LENGTH, _I64)
    if rows < 0:
        raise ValueError(f"{rows} rows")
    return max(total, rows)  # a column of nulls has rows and no buffers


def _root(data: bytes, at: int) -> int:
    return _within(data, at + int(_U32.unpack_from(data, at)[0]))


def _pointed(data: bytes, place: int) -> int:
    if not place:
        raise ValueError("a message without its parts")
    return _root(data, place)


def _scalar(data: bytes, table: int, field: int, kind: struct.Struct) -> int:
    place = _field(data, table, field)
    return int(kind.unpack_from(data, place)[0]) if place else 0


def _field(data: bytes, table: int, field: int) -> int:
    """Where a field of a flatbuffers table is; 0 when it is not there."""
    fields = _within(data, table - int(_I32.unpack_from(data, table)[0]))
    slot = 4 + 2 * field
    if slot >= _U16.unpack_from(data, fields)[0]:
        return 0
    offset = int(_U16.unpack_from(data, fields + slot)[0])
    return _within(data, table + offset) if offset else 0


def _within(data: bytes, place: int) -> int:
    if not 0 <= place < len(data):
        raise ValueError(f"a part at {place} of {len(data)} bytes")
    return place
