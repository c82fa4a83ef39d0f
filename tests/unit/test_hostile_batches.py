"""What breaks a reader of batches is a dead letter, and its neighbours are stored and counted."""

from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from streams import pieces
from streams.archive.blocks import RawChunk, Shaper, routes
from streams.engine.transport import RawPoll
from streams.processors.source_reading import SourceReader
from streams.raw import MAX_RECORDS, RawBatch, UnreadableBatchError
from tests.unit.hostile_batches import bomb, with_bytes, with_count
from tests.unit.raw_batches import raw_batches
from tests.unit.test_blocks_poison import GOOD, row_of

NOW = 1_767_225_600_000
TOPIC = "probe-results"
TP = TopicPartition(TOPIC, 0)
RESULTS = next(route for route in routes() if route.topic == TOPIC)
COLUMNS = ("ts", "latency_us")


def good(first: int, count: int = 9, headers: tuple[Any, ...] = ()) -> list[ConsumerRecord[bytes, bytes]]:
    key, value = row_of(GOOD)
    return [ConsumerRecord(TOPIC, 0, first + at, NOW, 1, key, value, None, 0, 0, headers) for at in range(count)]


def test_a_batch_that_is_too_large_unpacked_is_one_letter_and_its_neighbours_are_rows() -> None:
    batches = [*raw_batches(good(0)), bomb(TP, 9, NOW), *raw_batches(good(17))]
    shaped = Shaper(RESULTS).shape([RawChunk(0, batches)])
    assert shaped.left == ()
    assert shaped.frame["kafka_offset"].to_list() == [*range(9), *range(17, 26)]
    (plan,) = shaped.plans
    assert (plan.first, plan.last, plan.rows) == (0, 25, 18)
    (rejected,) = shaped.rejected
    assert (rejected.reason, rejected.offset, rejected.append_ms, rejected.value) == ("unreadable-batch", 16, NOW, None)
    assert rejected.detail == "a batch of 8 records, offsets 9 to 16: more than 33554432 bytes unpacked"


def test_the_worker_reads_on_behind_a_batch_that_cannot_be_read() -> None:
    batches = [*raw_batches(good(0)), bomb(TP, 9, NOW), *raw_batches(good(17))]
    found = SourceReader(TOPIC, COLUMNS).read([RawPoll(batches, 0)])
    assert found.frame["_row"].to_list() == [*range(9), *range(10, 19)]
    assert [(reject.reason, record.offset) for reject, record in zip(found.rejects, found.rejected, strict=True)] == [
        ("unreadable-batch", 16)
    ]
    (batch,) = found.batches
    assert batch.offsets.tolist() == [*range(9), 16, *range(17, 26)]


@pytest.mark.parametrize("count", [1, 8], ids=["read as a record", "read as a batch"])
def test_a_header_whose_name_is_no_utf8_hides_no_record(count: int) -> None:
    (record,) = good(5, 1, headers=(("abc", b"x"),))
    with patch.object(pieces, "WORTH_IT", count):
        found = SourceReader(TOPIC, COLUMNS).read([RawPoll([with_bytes(record, b"abc", b"a\xffc")], 5)])
    assert (found.frame.height, found.rejects) == (1, [])


def test_a_header_whose_name_is_no_utf8_is_shown_as_far_as_it_is() -> None:
    (record,) = good(5, 1, headers=(("abc", b"x"), ("d", None)))
    (found,) = with_bytes(record, b"abc", b"a\xffc").records()
    assert found.headers == (("a\ufffdc", b"x"), ("d", None))
    assert (found.offset, found.timestamp, found.key, found.value) == (5, NOW, record.key, record.value)


@pytest.mark.parametrize("count", [2, MAX_RECORDS, MAX_RECORDS + 1, (1 << 31) - 1])
def test_a_batch_that_lies_about_how_many_records_it_has_is_unreadable(count: int) -> None:
    lie = with_count(raw_batches(good(0, 3))[0], count)
    with pytest.raises(UnreadableBatchError):
        list(lie.records())
    for worth_it in (1, MAX_RECORDS << 20):
        with patch.object(pieces, "WORTH_IT", worth_it):
            shaped = Shaper(RESULTS).shape([RawChunk(0, [lie])])
        assert [each.reason for each in shaped.rejected] == ["unreadable-batch"]
        assert (shaped.frame.height, shaped.plans[0].last) == (0, 2)


def test_what_there_is_no_room_for_is_shaped_next(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [RawChunk(0, [*_batches(0), *_batches(9)]), RawChunk(1, [*_batches(0)]), RawChunk(2, [*_batches(0)])]
    whole = Shaper(RESULTS).shape(chunks)
    monkeypatch.setattr(pieces.Room.__init__, "__defaults__", (1,))  # of which one batch is more than enough
    shaper, waiting, found = Shaper(RESULTS), chunks, list[tuple[int, int]]()
    steps = 0
    while waiting:
        shaped = shaper.shape(waiting)
        found += shaped.frame.select("kafka_partition", "kafka_offset").rows()
        waiting, steps = list(shaped.left), steps + 1
    assert steps == 4
    assert found == whole.frame.select("kafka_partition", "kafka_offset").rows()


def _batches(first: int) -> list[RawBatch]:
    return raw_batches(good(first))


def test_what_the_worker_has_no_room_for_is_read_next(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SourceReader(TOPIC, COLUMNS)
    monkeypatch.setattr(pieces.Room.__init__, "__defaults__", (1,))
    found = reader.read([RawPoll([*_batches(0), *_batches(9)], 0), RawPoll(_batches(18), 18)])
    assert found.batches[0].offsets.tolist() == list(range(9))
    assert [(poll.partition, poll.first, poll.next) for poll in found.left] == [(0, 9, 18), (0, 18, 27)]
