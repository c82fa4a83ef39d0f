"""Changelogs that are read ahead: what is given is what the log holds, wherever reading ahead was when it was asked."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from streams.engine import ahead
from streams.engine.ahead import ReadAhead

TOPIC = "pages"
Log = dict[int, list[tuple[bytes, bytes | None]]]
LOG: Log = {0: [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"b", None)], 1: [(b"z", b"9")], 2: []}


class Broker:
    """Gives a record at a time, and stops after `gives`; `asked`: where each read began."""

    def __init__(self, log: Log, gives: int = 99) -> None:
        self.log = log
        self.gives = gives
        self.fails = False
        self.asked: list[dict[int, int]] = []

    async def read(
        self, topic: str, partitions: Collection[int], begins: Mapping[int, int]
    ) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
        assert topic == TOPIC
        self.asked.append({p: begins.get(p, 0) for p in partitions})
        given, gives = 0, self.gives
        for partition in partitions:
            for offset, (key, value) in enumerate(self.log[partition]):
                if offset < begins.get(partition, 0):
                    continue
                if given == gives:
                    if self.fails:
                        raise KafkaConnectionError
                    await asyncio.Event().wait()
                given += 1
                await asyncio.sleep(0)
                yield [ConsumerRecord(topic, partition, offset, 0, 1, key, value, None, 1, 1, ())]


def state(records: list[ConsumerRecord[bytes, bytes]]) -> dict[tuple[int, bytes | None], bytes | None]:
    """What a reader knows in the end, and that each partition came in order."""
    for partition in LOG:
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == sorted(set(offsets))
    return {(record.partition, record.key): record.value for record in records}


async def read_all(reader: ReadAhead, partitions: Collection[int]) -> list[ConsumerRecord[bytes, bytes]]:
    return [record async for records in reader.read(TOPIC, partitions) for record in records]


def run(broker: Broker, partitions: Collection[int] = (0, 1, 2)) -> list[ConsumerRecord[bytes, bytes]]:
    async def scene() -> list[ConsumerRecord[bytes, bytes]]:
        reader = ReadAhead(broker.read)
        reader.begin(TOPIC, LOG)
        for _ in range(50):
            await asyncio.sleep(0)
        broker.gives = 99
        return await read_all(reader, partitions)

    return asyncio.run(scene())


EXPECTED = {(0, b"a"): b"2", (0, b"c"): b"1", (0, b"b"): None, (1, b"z"): b"9"}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("gives", range(7))
def test_whatever_was_read_ahead_the_rest_is_read_when_it_is_asked_for(
    gives: int,
    fails: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    broker = Broker(LOG, gives)
    broker.fails = fails
    assert state(run(broker)) == EXPECTED
    assert broker.asked == [{0: 0, 1: 0, 2: 0}, {0: min(gives, 5), 1: max(0, gives - 5), 2: 0}]


def test_what_is_written_meanwhile_is_read() -> None:
    log: Log = {0: LOG[0][:3], 1: [], 2: []}
    broker = Broker(log)

    async def scene() -> list[ConsumerRecord[bytes, bytes]]:
        reader = ReadAhead(broker.read)
        reader.begin(TOPIC, LOG)
        for _ in range(50):
            await asyncio.sleep(0)
        log.update(LOG)
        return await read_all(reader, LOG)

    assert state(asyncio.run(scene())) == EXPECTED


def test_partitions_of_others_are_let_go_of() -> None:
    assert state(run(Broker(LOG), (1,))) == {(1, b"z"): b"9"}


def test_it_is_used_once() -> None:
    broker = Broker(LOG)

    async def scene() -> list[ConsumerRecord[bytes, bytes]]:
        reader = ReadAhead(broker.read)
        reader.begin(TOPIC, LOG)
        await asyncio.sleep(0)
        await read_all(reader, LOG)
        broker.asked.clear()
        return await read_all(reader, LOG)

    assert state(asyncio.run(scene())) == EXPECTED
    assert broker.asked == [{0: 0, 1: 0, 2: 0}]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MAX_BYTES", 1)
    broker = Broker(LOG)
    assert state(run(broker)) == EXPECTED
    assert broker.asked[1] == {0: 2, 1: 0, 2: 0}
