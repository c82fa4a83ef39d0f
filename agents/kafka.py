"""The publisher that keeps records in memory until Kafka has them: idempotent, acknowledged by all replicas.

aiokafka never gives up on a batch of an idempotent producer while trying again may help, and nobody can look into its
buffer. So each topic keeps its records in a lane of its own, and aiokafka gets one batch of it at a time: what it was
not given can be counted, expire or be dropped, and one topic's trouble does not hold up the other.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner

from agents.clock import Clock
from agents.lane import Lane
from agents.publish import HEARTBEATS, TOPICS, Drop, LaneFigures

BATCH_BYTES = 256 * 1024
# Results come in one by one: wait a moment for others to share a request with. Heartbeats do not wait.
LINGER_S = {HEARTBEATS: 0.0}
USUAL_LINGER_S = 0.05
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0)
CONNECT_S = 20.0
SLOW_S = 10.0
CLOSE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach Kafka, and how many records of a topic wait in memory for how long while it takes none."""

    brokers: str
    compression: str
    buffer_records: int
    give_up_after_s: float


class _Connection:
    """A producer, and a future that is done once nothing that was given to it can be acknowledged any more."""

    def __init__(self, producer: Any) -> None:  # noqa: ANN401 - aiokafka ships no types
        self.producer = producer
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class KafkaPublisher:
    """A Publisher (agents.publish) whose records all have the node's id as their key."""

    def __init__(
        self, options: KafkaOptions, node_id: str, clock: Clock, rng: random.Random, topics: Sequence[str] = TOPICS
    ) -> None:
        self._options = options
        self._key = node_id.encode()
        self._clock = clock
        self._rng = rng
        self._lanes = {topic: Lane(options.buffer_records, options.give_up_after_s) for topic in topics}
        self._filled = {topic: asyncio.Event() for topic in topics}
        self._problems: dict[str, str] = {}
        self._acknowledged = False
        self._settled = asyncio.Event()
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    def offer(self, topic: str, value: bytes) -> Drop | None:
        """Why the record was not taken; None when it was."""
        lane, now_s = self._lanes[topic], self._clock.monotonic_s()
        reason = lane.offer(value, now_s)
        self._filled[topic].set()
        oldest_s = lane.oldest_s()
        if oldest_s is not None and now_s - oldest_s > SLOW_S:
            self._went_wrong(topic, f"nothing was acknowledged for {SLOW_S:.0f} s")
        return reason

    def figures(self) -> dict[str, LaneFigures]:
        """By topic."""
        return {topic: lane.figures() for topic, lane in self._lanes.items()}

    def problem(self) -> str | None:
        """Why records do not get through just now."""
        if self._problems:
            return "; ".join(f"{topic}: {problem}" for topic, problem in sorted(self._problems.items()))
        return None if self._acknowledged else "Kafka has acknowledged nothing yet"

    async def run(self) -> None:
        """Sends until cancelled."""
        async with asyncio.TaskGroup() as group:
            for topic in self._lanes:
                group.create_task(self._drain(topic), name=f"send {topic}")

    async def close(self, deadline_s: float) -> int:
        """Waits for acknowledgements while `run` goes on; how many records there were none for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while any(self._lanes.values()):
                    self._settled.clear()
                    await self._settled.wait()
        left = sum(lane.give_up() for lane in self._lanes.values())
        if self._connection is not None:
            # With nothing on its way this is quick; with something, Kafka had its time.
            await _stop(self._connection.producer, CLOSE_S if left == 0 else 0)
        return left

    async def _drain(self, topic: str) -> None:
        lane, filled = self._lanes[topic], self._filled[topic]
        while True:
            await filled.wait()
            connection = await self._connected()
            await self._clock.sleep(LINGER_S.get(topic, USUAL_LINGER_S))
            lane.expire(self._clock.monotonic_s())
            if lane.waiting:
                await self._send(topic, lane, connection)
            if not lane.waiting:
                filled.clear()
            self._settled.set()

    async def _send(self, topic: str, lane: Lane, connection: _Connection) -> None:
        try:
            ack = await self._hand_over(topic, lane, connection.producer)
        except KafkaError as cause:
            lane.take_back()
            if isinstance(cause, UnknownTopicOrPartitionError):
                self._went_wrong(topic, "there is no such topic; create it with `fleetbeat topics apply`")
            else:
                self._went_wrong(topic, repr(cause))
                self._retire(connection)
            await self._clock.sleep(RETRY_S[0])
            return
        await asyncio.wait({ack, connection.gone}, return_when=asyncio.FIRST_COMPLETED)
        refusal = ack.exception() if ack.done() else KafkaError("the connection was given up")
        if refusal is None:
            lane.acknowledge()
            self._went_well(topic)
        else:
            lane.refuse()
            self._went_wrong(topic, repr(refusal))
            # The producer has given this batch its sequence numbers: what comes after it would be refused as well.
            self._retire(connection)
            await self._clock.sleep(RETRY_S[0])

    async def _hand_over(self, topic: str, lane: Lane, producer: Any) -> asyncio.Future[Any]:  # noqa: ANN401 - as above
        """A future that is done when Kafka has the batch. Raises KafkaError when it was not even queued."""
        partitions = sorted(await producer.partitions_for(topic))
        batch = producer.create_batch()
        lane.hand_over(lambda value: batch.append(timestamp=None, key=self._key, value=value) is not None)
        batch.close()
        partition = DefaultPartitioner()(self._key, partitions, partitions)
        ack: asyncio.Future[Any] = await producer.send_batch(batch, topic, partition=partition)
        return ack

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = _Connection(await self._connect())
            return self._connection

    async def _connect(self) -> Any:  # noqa: ANN401 - as above
        for wait_s in chain(RETRY_S, repeat(RETRY_S[-1])):
            producer = AIOKafkaProducer(
                bootstrap_servers=self._options.brokers,
                client_id="fleetbeat-agent",
                acks="all",
                enable_idempotence=True,
                compression_type=self._options.compression,
                max_batch_size=BATCH_BYTES,
                request_timeout_ms=30_000,
            )
            try:
                async with asyncio.timeout(CONNECT_S):
                    await producer.start()
            except (KafkaError, OSError) as cause:  # TimeoutError is an OSError
                for topic, lane in self._lanes.items():
                    if len(lane):
                        self._went_wrong(topic, f"{self._options.brokers}: {str(cause) or repr(cause)}")
                await _stop(producer, CLOSE_S)
            except asyncio.CancelledError:
                await _stop(producer, 0)
                raise
            else:
                return producer
            # Many agents lose the same broker at the same moment: they shall not come back at the same moment.
            await self._clock.sleep(wait_s * self._rng.uniform(0.5, 1.5))
        raise AssertionError("repeat ends")

    def _retire(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
            task = asyncio.create_task(_end(connection))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _went_wrong(self, topic: str, why: str) -> None:
        if topic not in self._problems:
            log.warning("Kafka takes no records", extra={"topic": topic, "why": why})
        self._problems[topic] = why

    def _went_well(self, topic: str) -> None:
        self._acknowledged = True
        if self._problems.pop(topic, None) is not None:
            dropped = sum(self._lanes[topic].figures().dropped.values())
            log.info("Kafka takes records again", extra={"topic": topic, "dropped": dropped})


async def _end(connection: _Connection) -> None:
    await _stop(connection.producer, CLOSE_S)
    connection.gone.set_result(None)


async def _stop(producer: Any, patience_s: float) -> None:  # noqa: ANN401 - as above
    """Ends a producer; without a broker its own `stop` waits for ever for what it still has."""
    try:
        async with asyncio.timeout(patience_s):
            await producer.stop()
    except (KafkaError, OSError):
        sender = producer._sender.sender_task  # noqa: SLF001 - there is no other way to end it (aiokafka 0.14)
        if sender is not None:
            sender.cancel()
        await producer.client.close()
