"""The topic `objectives` in memory, with the time of everybody, and workers that read it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from streams.processors.versions import Versions


class Topic:
    """Partition 0 of `objectives`, and the time of everybody."""

    def __init__(self) -> None:
        self.records: list[ConsumerRecord[bytes, bytes]] = []
        self.now_ms = 1_000_000
        self.broken = False

    def put(self, key: bytes, value: bytes | None) -> int:
        at = len(self.records)
        stored = ("objectives", 0, at, self.now_ms, 1, key, value, None, len(key), len(value or b""))
        self.records.append(ConsumerRecord(*stored, headers=()))
        return at

    def compact(self) -> None:
        last = {record.key: record for record in self.records}
        self.records = [record for record in last.values() if record.value is not None]

    def now_s(self) -> float:
        return self.now_ms / 1_000


class Log:
    """One worker's reader."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._next = 0

    async def read_to_end(self) -> list[ConsumerRecord[bytes, bytes]]:
        await self._ask()
        found = [record for record in self._topic.records if record.offset >= self._next]
        self._next = max([self._next, *(record.offset + 1 for record in found)])
        return found

    async def append(self, value: bytes) -> int:
        await self._ask()
        return self._topic.put(f"key {len(self._topic.records)}".encode(), value)

    async def forget(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._topic.put(key, None)

    async def _ask(self) -> None:
        await asyncio.sleep(0)
        if self._topic.broken:
            raise KafkaConnectionError("no brokers")


def worker(topic: Topic, host: str = "here") -> Versions:
    return Versions(Log(topic), host, topic.now_s)


def played(script: Callable[[Topic], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Topic())

    asyncio.run(run())
