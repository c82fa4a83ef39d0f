"""Many small records at once: batches as the wire has them, without Faust's and the client's work for each record."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streams.engine.app import App

if TYPE_CHECKING:
    from aiokafka.producer.message_accumulator import BatchBuilder

Record = tuple[bytes, bytes | None]


class Bulk:
    """Records of one topic, packed by any thread (one at a time) and sent by the event loop."""

    def __init__(self, app: App, topic: str) -> None:
        self._producer = app.producer._ensure_producer()  # type: ignore[attr-defined]  # noqa: SLF001 - Faust sends one by one
        self._topic = topic
        self._packed: list[tuple[int, BatchBuilder]] = []

    def pack(self, partition: int, records: Iterable[Record]) -> None:
        """Adds (key, value) records for a partition; a value of None is a tombstone."""
        batch: BatchBuilder | None = None
        for key, value in records:
            while batch is None or batch.append(timestamp=None, key=key, value=value) is None:
                batch = self._producer.create_batch()  # an empty one takes any record
                self._packed.append((partition, batch))

    async def send(self) -> None:
        """Returns when the broker has acknowledged all; raises KafkaError when it did not."""
        acks = [
            await self._producer.send_batch(batch, self._topic, partition=partition)
            for partition, batch in self._packed
        ]
        await asyncio.gather(*acks)
