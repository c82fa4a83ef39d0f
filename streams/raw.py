"""Record batches as the broker keeps them, in place of one object for each record.

aiokafka makes about 2 µs of Python of every record, in the thread that all polls come through. For the topics that ask
for it, its fetcher hands on whole batches here: checked against their checksum, still compressed. Whoever wants the
records decodes them by columns (`schemas.record_batches`) or, in doubt, one by one.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from schemas.record_batches import RecordBatch
from streams.fetches import let_fetches_end
from streams.loose_records import LooseRecordsError, loose_records
from streams.unpacking import UnpackingError, unpack

_HEADER = struct.Struct(">qiibIhiqqqhii")
_AHEAD_OF_LENGTH = 12  # base offset and length itself
_CHECKED_FROM = 21
_FORMAT = 2
_ATTRIBUTES_AT = 21
_CODEC, _APPEND_TIME, _CONTROL = 7, 8, 32
# As many as a MiB of the shortest heartbeats has, twice. One by one, records take a hundred times their bytes.
MAX_RECORDS = 1 << 18


# Offset, key, value and headers of a record.
_Parts = tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]


class UnreadableBatchError(Exception):
    """No record of a batch can be read, or more than any batch of ours has."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive records; `count` of them, or fewer where compaction has taken some out.

    `first`: the fetch asked for records from here on, which lies inside the batch when a seek has gone there.
    """

    tp: TopicPartition
    data: memoryview
    base_offset: int
    first: int
    next_offset: int
    count: int
    attributes: int
    time_ms: int

    def __len__(self) -> int:
        return self.count

    @property
    def append_time(self) -> bool:
        """Whether `time_ms` is the broker's time and that of every record."""
        return bool(self.attributes & _APPEND_TIME)

    def content(self) -> RecordBatch:
        """Unpacked. Raises UnreadableBatchError."""
        if self.count > MAX_RECORDS:
            raise UnreadableBatchError(f"{self.count} records; expected at most {MAX_RECORDS}")
        try:
            return RecordBatch(self.count, unpack(self.attributes & _CODEC, bytes(self.data[_HEADER.size :])))
        except UnpackingError as cause:
            raise UnreadableBatchError(str(cause)) from cause

    def records(self, content: RecordBatch | None = None) -> Iterator[ConsumerRecord[bytes, bytes]]:
        """One by one, as aiokafka's own consumer gives them; `content` is at hand or not.

        Raises UnreadableBatchError, before the first one.
        """
        content = content or self.content()
        for offset, key, value, headers in self._parts(content):
            sizes = (-1 if part is None else len(part) for part in (key, value))
            yield ConsumerRecord(
                *(self.tp.topic, self.tp.partition, offset, self.time_ms, int(self.append_time)),
                *(key, value, None, *sizes, tuple(headers)),
            )

    def _parts(self, content: RecordBatch) -> list[_Parts]:
        plain = bytearray(self.data[: _HEADER.size]) + content.records
        struct.pack_into(">H", plain, _ATTRIBUTES_AT, self.attributes & 0xFFFF & ~_CODEC)
        try:
            return [(each.offset, each.key, each.value, each.headers) for each in DefaultRecordBatch(bytes(plain))]
        except (CorruptRecordException, ValueError):
            pass
        try:
            return [
                (self.base_offset + each.ahead, each.key, each.value, each.headers) for each in loose_records(content)
            ]
        except LooseRecordsError as cause:
            raise UnreadableBatchError(str(cause)) from cause


class RawRecords:
    """Stands in for aiokafka's `PartitionRecords`: an iterator that gives batches, and where to go on from."""

    def __init__(self, tp: TopicPartition, message_set: bytes, fetch_offset: int) -> None:
        self.next_fetch_offset = fetch_offset
        self._tp = tp
        self._data = memoryview(message_set)
        self._at = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RawBatch:
        """Raises CorruptRecordException for what is no batch of format 2 with the right checksum."""
        while len(self._data) - self._at >= _HEADER.size:
            (base, length, _, form, crc, attributes, last, _, time_ms, *_, count) = _HEADER.unpack_from(
                self._data, self._at
            )
            end = self._at + _AHEAD_OF_LENGTH + length
            if end > len(self._data):
                break  # the broker cuts the last batch off where the answer is full
            data = self._data[self._at : end]
            if form != _FORMAT or calc_crc32c(data[_CHECKED_FROM:]) != crc:
                message = f"{self._tp}: batch {base} has format {form}, or a wrong checksum; expected format {_FORMAT}"
                self._at = len(self._data)  # nothing more of this answer: whoever goes on asks the broker again
                raise CorruptRecordException(message)
            self._at = end
            first = max(base, self.next_fetch_offset)
            wanted = base + last >= first
            self.next_fetch_offset = max(self.next_fetch_offset, base + last + 1)
            if wanted and not attributes & _CONTROL and count > 0:
                return RawBatch(self._tp, data, base, first, base + last + 1, count, attributes, time_ms)
        raise StopIteration


def hand_on_raw(consumer: Any, topics: frozenset[str]) -> None:  # noqa: ANN401 - parts of aiokafka's that are not public
    """Let a started consumer's fetcher give `RawBatch`es for these topics."""
    let_fetches_end(consumer)
    fetcher, client = consumer._fetcher, consumer._client  # noqa: SLF001 - no public way to a batch
    send, proceed = client.send, fetcher._proc_fetch_request  # noqa: SLF001 - as above
    answers: dict[TopicPartition, bytes] = {}

    async def send_and_keep(node_id: int, request: Any, **options: Any) -> Any:  # noqa: ANN401 - any request
        answer = await send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            for topic, partitions in answer.topics:
                if topic in topics:
                    answers.update((TopicPartition(topic, number), parts[-1]) for number, *parts in partitions)
        return answer

    async def proceed_and_replace(assignment: Any, node_id: int, request: Any) -> bool:  # noqa: ANN401 - as above
        try:
            # Between the answer and here nothing else runs: no record has been taken yet.
            return bool(await proceed(assignment, node_id, request))
        finally:
            for topic, partitions in request.topics:
                for partition, offset, _ in partitions:
                    tp = TopicPartition(topic, partition)
                    if (message_set := answers.pop(tp, None)) is not None:
                        _replace(fetcher._records.get(tp), RawRecords(tp, message_set, offset))  # noqa: SLF001 - as above

    client.send = send_and_keep
    fetcher._proc_fetch_request = proceed_and_replace  # noqa: SLF001 - as above


def _replace(result: Any, raw: RawRecords) -> None:  # noqa: ANN401 - as above
    records = result._partition_records if type(result) is FetchResult else None  # noqa: SLF001 - as above
    if isinstance(records, PartitionRecords) and records.next_fetch_offset == raw.next_fetch_offset:
        result._partition_records = raw  # noqa: SLF001 - as above
