"""The broker's batches make the same rows, plans and rejects in the archive as their records one by one."""

from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import pieces
from streams.archive.blocks import Chunk, RawChunk, Shaper, routes
from streams.archive.consumer import UnsuitableTopicError, chunk_of
from streams.archive.lane import Lane, Limits
from streams.archive.letters import DeadLetters
from streams.archive.metrics import ArchiveMetrics
from streams.raw import RawBatch, RawRecords
from tests.unit.raw_batches import message_set, raw_batches
from tests.unit.test_blocks_poison import GOOD, MIXES, Row, row_of

NOW = 1_767_225_600_000
ROUTES = {route.topic: route for route in routes()}
RESULTS = ROUTES["probe-results"]


def kept(rows: list[Row], times: list[int], partition: int = 0, first: int = 0) -> list[Any]:
    return [
        ConsumerRecord("probe-results", partition, offset, time, 1, key, value, None, 0, 0, ())
        for offset, ((key, value), time) in enumerate(zip(rows, times, strict=True), first)
    ]


def raw(records: list[Any], first: int) -> RawChunk:
    """As a fetch from offset `first` gives them."""
    tp = TopicPartition("probe-results", records[0].partition)
    data = b"".join(bytes(batch.data) for batch in raw_batches(records))
    return RawChunk(tp.partition, list(RawRecords(tp, data, first)))


def test_the_topics_of_nodes_come_as_batches() -> None:
    assert ROUTES["probe-results"].raw
    assert ROUTES["heartbeats"].raw
    assert not any(route.raw for route in ROUTES.values() if route.replacing)


@settings(deadline=None, max_examples=15)
@given(st.lists(MIXES.filter(len), min_size=1, max_size=3), st.integers(0, 9), st.data())
def test_batches_and_records_are_stored_alike(mixes: list[list[Row]], skip: int, data: st.DataObject) -> None:
    """Each mix is a partition; the archive may go on in the middle of a batch."""
    batched, listed = list[RawChunk](), list[Chunk]()
    for partition, rows in enumerate(mixes):
        times = [
            NOW + at for at in sorted(data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows))))
        ]
        records = kept(rows, times, partition, first=100)
        first = 100 + min(skip, len(rows) - 1)
        batched.append(raw(records, first))
        wanted = [record for record in records if record.offset >= first]
        columns = zip(*((each.offset, each.timestamp, each.key, each.value) for each in wanted), strict=True)
        listed.append(Chunk(partition, *map(list, columns)))
    shaper = Shaper(RESULTS)
    with patch.object(pieces, "WORTH_IT", data.draw(st.sampled_from([1, 3, 8]))):
        found, expected = shaper.shape(batched), shaper.shape(listed)
    assert found.frame.equals(expected.frame)
    assert (found.records, found.plans) == (expected.records, expected.plans)
    assert sorted(found.rejected, key=lambda each: (each.partition, each.offset)) == sorted(
        expected.rejected, key=lambda each: (each.partition, each.offset)
    )


def test_a_poll_of_batches_knows_where_it_begins_ends_and_what_it_holds() -> None:
    records = kept([row_of(GOOD)] * 6, [NOW, NOW, NOW, NOW + 1, NOW + 1, NOW + 1], first=10)
    chunk = chunk_of(0, raw(records, 11).batches)
    assert isinstance(chunk, RawChunk)
    assert (chunk.first, chunk.next, len(chunk)) == (11, 16, 6)
    assert chunk.held_bytes == sum(len(batch.data) for batch in raw_batches(records))


def test_batches_with_their_producers_time_are_refused() -> None:
    (batch,) = raw_batches(kept([row_of(GOOD)], [NOW]))
    foreign = RawBatch(batch.tp, batch.data, 0, 0, 1, 1, batch.attributes & ~8, batch.time_ms)
    with pytest.raises(UnsuitableTopicError, match=r"expected message\.timestamp\.type=LogAppendTime"):
        chunk_of(0, [foreign])


def lane(expected: int, limits: Limits | None = None) -> Lane:
    """One that goes on from the offset `expected` of partition 0."""
    made = Lane(RESULTS, _never, None, DeadLetters(""), ArchiveMetrics(), limits or Limits())  # type: ignore[arg-type]
    made._expected = {0: expected}
    return made


def _never() -> None:
    raise AssertionError("this lane has no store")


@pytest.mark.parametrize("size", [3, 300])
def test_a_log_that_begins_anew_is_noticed_also_when_its_first_batch_is_long(size: int) -> None:
    anew = raw(kept([row_of(GOOD)] * size, [NOW] * size), first=0)
    with pytest.raises(UnsuitableTopicError, match="the log goes on at 0"):
        lane(expected=200).offer(0, anew.batches)
    lane(expected=200).offer(0, raw(kept([row_of(GOOD)] * 300, [NOW] * 300), first=200).batches)


def test_a_batch_takes_what_came_first_and_leaves_the_rest() -> None:
    waiting = lane(0)
    for first in range(0, 100, 10):
        waiting.offer(0, raw(kept([row_of(GOOD)] * 10, [NOW] * 10, first=first), first).batches)
    assert [chunk.first for chunk in waiting._waiting.take(25)] == [0, 10, 20]
    assert waiting._waiting.records == 70
    taken = waiting._waiting.take()
    waiting._waiting.put_back(taken[3:])
    assert (waiting._waiting.records, [chunk.first for chunk in waiting._waiting.take()]) == (40, [60, 70, 80, 90])
    assert [chunk.first for chunk in taken[:3]] == [30, 40, 50]
    assert (waiting._waiting.records, waiting._waiting.bytes) == (0, 0)


def test_after_a_batch_with_changed_bytes_the_rest_of_the_answer_is_asked_for_again() -> None:
    first, second = (message_set(kept([row_of(GOOD)], [NOW], first=at)) for at in (0, 1))
    broken = bytearray(first)
    broken[-1] ^= 1
    found = RawRecords(TopicPartition("probe-results", 0), bytes(broken) + second, 0)
    with pytest.raises(CorruptRecordException, match="checksum"):
        next(found)
    assert list(found) == []
    assert found.next_fetch_offset == 0
