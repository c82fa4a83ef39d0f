"""Records of a batch one by one, whatever the names of their headers are.

aiokafka wants these to be UTF-8, which brokers do not ask for: one such record would hide all of its batch. Slow, in
Python; for batches that aiokafka cannot read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiokafka.record.util import decode_varint

from schemas.record_batches import RecordBatch


class LooseRecordsError(ValueError):
    """A record does not end where it says, or the last one ahead of the end."""


@dataclass(frozen=True, slots=True)
class LooseRecord:
    """`ahead`: by how much its offset is above the batch's; what is no UTF-8 in names of headers is replaced."""

    ahead: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def loose_records(content: RecordBatch) -> Iterator[LooseRecord]:
    """Raises LooseRecordsError."""
    cursor = _Cursor(content.records)
    for _ in range(content.count):
        try:
            length = cursor.number()
            end = cursor.at + length
            cursor.at += 1  # attributes, of which there are none
            cursor.number()  # the time, which the broker's replaces
            record = LooseRecord(cursor.number(), cursor.part(), cursor.part(), cursor.headers())
        except (IndexError, ValueError) as cause:
            raise LooseRecordsError(f"a record goes on beyond byte {len(content.records)}, the last one") from cause
        if cursor.at != end:
            raise LooseRecordsError(f"a record ends at byte {cursor.at}; it says {end}")
        yield record
    if cursor.at != len(content.records):
        raise LooseRecordsError(
            f"the last of {content.count} records ends at byte {cursor.at} of {len(content.records)}"
        )


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data

    def number(self) -> int:
        found, self.at = decode_varint(self._data, self.at)
        return int(found)

    def part(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        begin, self.at = self.at, self.at + size
        if self.at > len(self._data):
            raise IndexError(self.at)
        return self._data[begin : self.at]

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [((self.part() or b"").decode(errors="replace"), self.part()) for _ in range(self.number())]
