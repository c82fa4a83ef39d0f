"""The bytes of a segment: a header, then records, each with a header of its own. Pure.

A record's header has a checksum besides the payload's: with a damaged payload the next record is still found, and only
one is lost. With a damaged header the next one is searched for; numbers in headers tell how many were lost between.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PAYLOAD_BYTES = 128 * 1024
BOOT_BYTES = 16

_MAGIC = b"fbspool1"
_SEGMENT = struct.Struct(f">8sQQQ{BOOT_BYTES}s")
_MARK = b"\xfb\xe7"
_RECORD = struct.Struct(">2sIQQI")
_CHECK = struct.Struct(">I")
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CHECK.size
RECORD_HEADER_BYTES = _RECORD.size + _CHECK.size


def checksum(data: bytes) -> int:
    """CRC-32."""
    return zlib.crc32(data)


@dataclass(frozen=True, slots=True)
class Era:
    """A run of the operating system, within which monotonic times can be compared; `id` is BOOT_BYTES long."""

    id: bytes
    wall_ms: int
    monotonic_ms: int
    """Both of one moment, so that ages are known roughly after the machine has restarted."""


@dataclass(frozen=True, slots=True)
class Record:
    """A payload with its number in the spool and when it was taken, in monotonic ms of its segment's era."""

    number: int
    taken_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no records, up to where the next one begins; `next_number` is None when there is no next one."""

    next_number: int | None


def segment_header(first: int, era: Era) -> bytes:
    """The first bytes of a segment whose records are numbered from `first` on."""
    body = _SEGMENT.pack(_MAGIC, first, era.wall_ms, era.monotonic_ms, era.id)
    return body + _CHECK.pack(checksum(body))


def read_segment_header(data: bytes) -> tuple[int, Era] | None:
    """(number of the first record, era); None when it is damaged."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    body = data[: _SEGMENT.size]
    magic, first, wall_ms, monotonic_ms, era_id = _SEGMENT.unpack(body)
    if magic != _MAGIC or _CHECK.unpack_from(data, _SEGMENT.size)[0] != checksum(body):
        return None
    return first, Era(era_id, wall_ms, monotonic_ms)


def record_bytes(number: int, taken_ms: int, payload: bytes) -> bytes:
    """A record as it stands in a segment."""
    head = _RECORD.pack(_MARK, len(payload), number, taken_ms, checksum(payload))
    return head + _CHECK.pack(checksum(head)) + payload


@dataclass(frozen=True, slots=True)
class _Head:
    size: int
    number: int
    taken_ms: int
    payload_check: int


def _head_at(data: bytes, offset: int) -> _Head | None:
    if len(data) < offset + RECORD_HEADER_BYTES:
        return None
    head = data[offset : offset + _RECORD.size]
    mark, size, number, taken_ms, payload_check = _RECORD.unpack(head)
    (head_check,) = _CHECK.unpack_from(data, offset + _RECORD.size)
    if mark != _MARK or size > MAX_PAYLOAD_BYTES or head_check != checksum(head):
        return None
    return _Head(size, number, taken_ms, payload_check)


def number_of(data: bytes) -> int | None:
    """What record begins with these bytes; None when none does."""
    head = _head_at(data, 0)
    return None if head is None else head.number


def scan(data: bytes, offset: int = 0) -> Iterator[tuple[int, Record | Damage]]:
    """(offset behind it, record or damage) of everything from `offset` on. `data` goes to the end of the segment.

    Every step moves forward, so it ends on any bytes.
    """
    while offset < len(data):
        head = _head_at(data, offset)
        if head is None or offset + RECORD_HEADER_BYTES + head.size > len(data):
            offset, head = _next_head(data, offset + 1)
            yield offset, Damage(None if head is None else head.number)
            continue
        begin = offset + RECORD_HEADER_BYTES
        offset = begin + head.size
        payload = data[begin:offset]
        if checksum(payload) == head.payload_check:
            yield offset, Record(head.number, head.taken_ms, payload)
        else:
            yield offset, Damage(head.number + 1)


def _next_head(data: bytes, offset: int) -> tuple[int, _Head | None]:
    """Where the next sound header of a record that is there as a whole begins; the end of `data` when there is none."""
    while (offset := data.find(_MARK, offset)) >= 0:
        head = _head_at(data, offset)
        if head is not None and offset + RECORD_HEADER_BYTES + head.size <= len(data):
            return offset, head
        offset += 1
    return len(data), None
