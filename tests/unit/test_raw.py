"""Batches as the broker keeps them: which of them are handed on, and what a fetcher that does so leaves as it is."""

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

from streams.engine.transport import NotAppendTimeError, Poll, RawPoll, require_append_time
from streams.raw import RawBatch, RawRecords, hand_on_raw
from tests.unit.raw_batches import message_set

TP = TopicPartition("raw", 3)


def records(*offsets: int, time_ms: int = 7) -> list[ConsumerRecord[bytes, bytes]]:
    values = [(at, b"key", b"value %d" % at) for at in offsets]
    return [ConsumerRecord("raw", 3, at, time_ms, 1, key, value, None, 3, len(value), ()) for at, key, value in values]


@pytest.mark.parametrize("codec", range(5))
def test_a_batch_holds_the_records_with_the_brokers_offsets_and_time(codec: int) -> None:
    wanted = records(10, 11, 12)
    (batch,) = RawRecords(TP, message_set(wanted, codec), 10)
    assert list(batch.records()) == wanted
    assert (batch.base_offset, batch.next_offset, len(batch), batch.time_ms, batch.append_time) == (10, 13, 3, 7, True)
    assert batch.content().count == 3
    assert b"value 11" in batch.content().records


def test_the_last_batch_may_be_cut_off_and_batches_ahead_of_what_was_asked_for_are_left_out() -> None:
    sets = [message_set(records(*offsets)) for offsets in ((0, 1), (2, 3), (4,))]
    found = RawRecords(TP, b"".join(sets)[:-1], 3)
    assert [batch.base_offset for batch in found] == [2]
    assert found.next_fetch_offset == 4


def test_a_batch_whose_bytes_have_changed_is_an_error() -> None:
    data = bytearray(message_set(records(0)))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="checksum"):
        next(RawRecords(TP, bytes(data), 0))


def test_marks_of_transactions_are_passed_over() -> None:
    mark = bytearray(message_set(records(5)))
    mark[22] |= 32
    whole = RawRecords(TP, _signed(mark) + message_set(records(6)), 5)
    assert [batch.base_offset for batch in whole] == [6]
    assert whole.next_fetch_offset == 7


def _signed(data: bytearray) -> bytes:
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
    return bytes(data)


def test_a_poll_of_batches_begins_and_goes_on_where_its_records_do() -> None:
    batches = list(RawRecords(TP, message_set(records(4, 5)) + message_set(records(6, 7)), 5))
    poll = RawPoll(batches, 5)
    assert (poll.partition, poll.first, poll.next, len(poll)) == (3, 5, 8, 4)
    later = poll.since(7)
    assert isinstance(later, RawPoll)
    assert (later.first, later.next, later.begin) == (7, 8, 5)
    assert poll.since(8) == Poll((), None)


def test_producers_time_is_refused() -> None:
    data = bytearray(message_set(records(4)))
    data[22] &= ~8
    with pytest.raises(NotAppendTimeError, match="record 3/4 carries its producer's time"):
        require_append_time(RawRecords(TP, _signed(data), 4))


class Client:
    """Answers any fetch with what the broker keeps from the offset on."""

    def __init__(self, kept: bytes) -> None:
        self._kept = kept

    async def send(self, _node: int, request: FetchRequest) -> Any:  # noqa: ANN401 - one of aiokafka's many answers
        topics: list[Any] = [
            (topic, [(number, 0, 9, 9, 0, [], self._kept) for number, *_ in parts]) for topic, parts in request.topics
        ]
        return SimpleNamespace(topics=topics, API_VERSION=10)


class Fetcher:
    """As much of aiokafka's fetcher as answers touch."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._records: dict[TopicPartition, Any] = {}

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: FetchRequest) -> bool:  # noqa: ANN401
        answer = await self._client.send(node_id, request)
        for topic, partitions in answer.topics:
            for number, *_, kept in partitions:
                tp = TopicPartition(topic, number)
                found = PartitionRecords(tp, MemoryRecords(kept), [], 4, None, None, check_crcs=True, isolation_level=0)
                self._records[tp] = FetchResult(tp, partition_records=found, assignment=assignment, backoff=0)
        return True


def test_only_topics_that_ask_for_it_get_batches() -> None:
    client = Client(message_set(records(4, 5)))
    fetcher = Fetcher(client)
    hand_on_raw(SimpleNamespace(_fetcher=fetcher, _client=client), frozenset({"raw"}))
    request = FetchRequest(1, 1, 1, 0, [("raw", [(3, 4, 1)]), ("plain", [(3, 4, 1)])], rack_id="")
    state: Any = SimpleNamespace(
        paused=False, position=4, consumed_to=lambda offset: setattr(state, "position", offset)
    )
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    assert asyncio.run(fetcher._proc_fetch_request(assignment, 0, request))
    raw = fetcher._records[TP].getall(10)
    assert [type(each) for each in raw] == [RawBatch]
    assert state.position == 6
    state.position = 4
    plain = fetcher._records[TopicPartition("plain", 3)].getall(10)
    assert [record.offset for record in plain] == [4, 5]


def test_a_fetch_that_is_ended_while_it_waits_to_ask_again_ends_quietly() -> None:
    """Aiokafka's close waits for it, and would itself end there."""

    class Waiting(Fetcher):
        async def _proc_fetch_request(self, *_: object) -> bool:
            await asyncio.sleep(60)
            return True

    async def closed() -> bool:
        client = Client(b"")
        fetcher = Waiting(client)
        hand_on_raw(SimpleNamespace(_fetcher=fetcher, _client=client), frozenset({"raw"}))
        request = FetchRequest(1, 1, 1, 0, [("raw", [(3, 4, 1)])], rack_id="")
        fetch = asyncio.create_task(fetcher._proc_fetch_request(None, 0, request))
        await asyncio.sleep(0)
        fetch.cancel()
        return await fetch

    assert asyncio.run(closed()) is False
