"""Changelogs read ahead: the group waits seconds for a worker that died, and its pages can be fetched meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from streams.engine.changelog import ChangelogSilentError

Record: TypeAlias = ConsumerRecord[bytes, bytes]
# (topic, partitions, offsets to begin at) → all that the partitions hold from there on, each in its order.
Read = Callable[[str, Collection[int], Mapping[int, int]], AsyncIterator[list[Record]]]

MAX_BYTES = 512 << 20

log = structlog.get_logger("fleetbeat.ahead")


@dataclass(slots=True)
class _Held:
    """The last record of each key, in the order of the log, and where to go on."""

    by_partition: dict[int, dict[bytes | None, Record]] = field(default_factory=dict)
    begins: dict[int, int] = field(default_factory=dict)
    size: int = 0

    def take(self, records: list[Record]) -> None:
        held = self.by_partition.setdefault(records[0].partition, {})
        for record in records:
            known = held.pop(record.key, None)
            held[record.key] = record
            self.size += len(record.value or b"") - (len(known.value or b"") if known else 0)
        self.begins[records[0].partition] = records[-1].offset + 1


class ReadAhead:
    """`read` gives what compacted topics hold; what `begin` has fetched by then is not fetched again.

    Nothing is passed over: a log only grows, and what was written since is read when it is asked for, from where
    reading ahead has stopped. It stops at `MAX_BYTES`, and when it fails, all is read as if it had not begun.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._ahead: dict[str, tuple[asyncio.Task[None], _Held]] = {}

    def begin(self, topic: str, partitions: Collection[int]) -> None:
        """Fetch these partitions until they are asked for, once."""
        held = _Held()
        self._ahead[topic] = asyncio.create_task(self._fetch(topic, partitions, held)), held

    async def read(self, topic: str, partitions: Collection[int]) -> AsyncIterator[list[Record]]:
        """Everything that the partitions hold now, each in its order; of a key that was read ahead its last record."""
        held = await self._taken(topic)
        for partition in partitions:
            if records := [*held.by_partition.pop(partition, {}).values()]:
                yield records
        async for records in self._read(topic, partitions, held.begins):
            yield records

    async def stop(self) -> None:
        """Ends what is under way."""
        for topic in [*self._ahead]:
            await self._taken(topic)

    async def _taken(self, topic: str) -> _Held:
        if topic not in self._ahead:
            return _Held()
        task, held = self._ahead.pop(topic)
        task.cancel()
        await asyncio.wait([task])
        return held

    async def _fetch(self, topic: str, partitions: Collection[int], held: _Held) -> None:
        try:
            async for records in self._read(topic, partitions, {}):
                held.take(records)
                if held.size > MAX_BYTES:
                    break
        except (KafkaError, ChangelogSilentError) as error:
            log.warning("not read ahead to the end", topic=topic, error=str(error))
        log.info("read ahead", topic=topic, records=sum(map(len, held.by_partition.values())), bytes=held.size)
