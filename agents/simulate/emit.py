"""Sends chunks to Kafka in hand-built record batches, each acknowledged by all replicas and never doubled.

`AIOKafkaProducer.send_batch` works with `enable_idempotence=True` (aiokafka 0.14): the sender gives each batch
its producer id and sequence numbers on its first way out and keeps them when it sends it again, so the broker
drops a repeat. A batch that fails for good ends the run, since the ledger would no longer be what Kafka holds.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from agents.simulate.batches import RecordBatch, record_batch, slices
from agents.simulate.bodies import Bodies
from agents.simulate.nodes import key_hashes
from agents.simulate.pieces import Piece, Table
from agents.simulate.rows import Chunk, Rows
from schemas.kafka import Brokers, client_settings
from schemas.kafka.reasons import why_not

Partitions = npt.NDArray[np.uint16]

HEARTBEATS = "heartbeats"
RESULTS = "probe-results"
COUNTS = "request-counts"
ENCODED_AT_ONCE = 65_536
# With the broker away for this long a run gives up instead of waiting for ever.
PATIENCE_S = 120.0
_CLOSE_S = 5.0


class SendError(RuntimeError):
    """Kafka cannot be reached, lacks a topic, or did not take a batch."""


class Emitter:
    """A producer for the fleet's events; use it as an async context. Raises SendError."""

    def __init__(self, brokers: Brokers, nodes: Table, bodies: Bodies, *, counting: bool) -> None:
        """Without `counting` nobody counts requests, and their topic need not be there."""
        self._topics = (HEARTBEATS, RESULTS, COUNTS) if counting else (HEARTBEATS, RESULTS)
        self._brokers = brokers
        self._nodes = nodes
        self._bodies = bodies
        self._partition: dict[str, Partitions] = {}
        self._producer: Any = None  # aiokafka ships no types

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            **client_settings(self._brokers),
            client_id="fleetbeat-simulate",
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=30_000,
        )
        try:
            await self._producer.start()
            self._partition = await self._partitions()
        except KafkaError as cause:
            await self._close()
            why = await why_not(self._brokers, cause)
            raise SendError(f"Kafka at {self._brokers} cannot be used: {why}") from cause
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        # Without a broker the client would wait for ever for what it still has.
        with suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(self._producer.stop(), _CLOSE_S)

    async def send(self, chunk: Chunk) -> list[asyncio.Future[Any]]:
        """Gives every event of the chunk to the producer; the futures are done when the broker has them.

        Waits while partitions' earlier batches are still on their way: at most one batch waits for each.
        """
        self._bodies.see(chunk.boots)
        acks = []
        for topic, rows, encode in (
            (HEARTBEATS, chunk.heartbeats, self._bodies.heartbeats),
            (RESULTS, chunk.results, self._bodies.results),
            (COUNTS, chunk.counted.rows, partial(self._bodies.counts, requests=chunk.counted.requests)),
        ):
            # A spool's burst may be large: bound what is encoded at once.
            for start in range(0, len(rows), ENCODED_AT_ONCE):
                acks += await self._send_rows(topic, rows[start : start + ENCODED_AT_ONCE], encode)
        return acks

    async def _send_rows(
        self, topic: str, rows: Rows, encode: Callable[[Rows], list[Piece]]
    ) -> list[asyncio.Future[Any]]:
        partition = self._partition[topic][rows["node"]]
        # Opaque rows: numpy moves a structured row field by field, which takes three times as long.
        ordered = rows.view(f"V{rows.itemsize}")[np.argsort(partition, kind="stable")].view(rows.dtype)
        key, value = self._nodes.pick(ordered["node"]), encode(ordered)
        widest_bytes = key.width + sum(piece.width for piece in value)
        ends = np.cumsum(np.bincount(partition)).tolist()
        acks = []
        for number, (first, end) in enumerate(pairwise([0, *ends])):
            for part in slices(first, end, widest_bytes):
                some = [piece.cut(part) for piece in value]
                batch = record_batch(key.cut(part), some, part.stop - part.start, _now_ms())
                acks.append(await self._hand_over(batch, topic, number))
        return acks

    async def _hand_over(self, batch: RecordBatch, topic: str, partition: int) -> asyncio.Future[Any]:
        await asyncio.sleep(0)  # building a batch held the loop: let the sender work
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._producer.send_batch(_Prepared(batch), topic, partition=partition)  # type: ignore[no-any-return]
            except KafkaTimeoutError as cause:
                # It was never queued: the batch before it is still on its way. To offer it again cannot double it.
                if time.monotonic() > give_up_at:
                    raise SendError(
                        f"{self._brokers} took nothing for {topic}-{partition} in {PATIENCE_S:.0f} s"
                    ) from cause
            except KafkaError as cause:
                why = await why_not(self._brokers, cause)
                raise SendError(f"{self._brokers} refused a batch for {topic}-{partition}: {why}") from cause

    async def _partitions(self) -> dict[str, Partitions]:
        """The partition of each node in each topic, by the default partitioner of the Java client and aiokafka."""
        metadata = await self._producer.client.fetch_all_metadata()
        found = {topic: sorted(metadata.partitions_for_topic(topic) or ()) for topic in self._topics}
        missing = [topic for topic, partitions in found.items() if not partitions]
        if missing:
            names = " and no topic ".join(missing)
            raise SendError(f"{self._brokers} has no topic {names}; create them with `fleetbeat topics apply`")
        hashes = key_hashes(self._nodes)
        return {topic: (hashes % len(partitions)).astype(np.uint16) for topic, partitions in found.items()}


class _Prepared:
    """A finished record batch in the shape of aiokafka's BatchBuilder, as its accumulator and sender use it (0.14)."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch
        self._state = (-1, -1, 0)
        self._wire: bytearray | None = None

    def record_count(self) -> int:
        return self._batch.records

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing can be added anyway."""

    def size(self) -> int:
        return len(self._batch.payload)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._state = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray:
        # Once: a batch that is sent again must be the same, sequence numbers included.
        if self._wire is None:
            self._wire = self._batch.wire(*self._state)
        return self._wire


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
