"""The publisher that keeps records in lanes, in memory or on disk, until all replicas have them: idempotent.

aiokafka never gives up on a batch of an idempotent producer while trying again may help, and nobody can look into its
buffer. So each topic keeps its records in a lane of its own, and aiokafka gets one batch of it at a time: what it was
not given can be counted, expire or be dropped, and one topic's trouble does not hold up the other.
"""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import DefaultPartitioner

from agents.clock import Clock, tick
from agents.connection import CLOSE_S, Connection, end, stop
from agents.lane import Lane, MemoryLane
from agents.probes.threads import SideThread
from agents.publish import HEARTBEATS, Drop, LaneFigures
from agents.signing import SignedBatches, Signer
from agents.spool.journal import Flight, Stamp
from schemas.kafka import Brokers, client_settings
from schemas.traces import trace_headers

BATCH_BYTES = 256 * 1024
# The same records fit again, however their times are written down.
AGAIN_BYTES = 2 * BATCH_BYTES
# Between requests of a topic, so that what comes meanwhile shares one. Heartbeats do not wait.
APART_S = {HEARTBEATS: 0.0}
USUAL_APART_S = 0.05
# A request costs as much as two probes. So what can wait does, until the lanes are tended, or until this much waits.
FULL_RECORDS = 100
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0)
# Between aiokafka's own tries, for ever: a fleet whose password was changed must not keep brokers busy with handshakes.
BACKOFF_MS = 500
CONNECT_S = 20.0
SLOW_S = 10.0
TEND_S = 1.0
ROOM_S = 0.2
# Kafka will never take such a batch.
_NEVER = (MessageSizeTooLargeError, RecordListTooLargeError)
# Kafka did not write the batch. One that is out of order was not written either: had it been, it would be known by its
# number, since nothing comes after it before it is acknowledged.
_NOT_WRITTEN = (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
_SLOW = f"nothing was acknowledged for {SLOW_S:.0f} s"
_FORBIDDEN = (ClusterAuthorizationFailedError, TopicAuthorizationFailedError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach Kafka."""

    brokers: Brokers
    compression: str


class KafkaPublisher:
    """A Publisher (agents.publish) whose records all have the node's id as their key."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        options: KafkaOptions,
        node_id: str,
        lanes: Mapping[str, Lane],
        clock: Clock,
        rng: random.Random,
        signer: Signer | None = None,
    ) -> None:
        self._options = options
        self._signing = SignedBatches(signer)
        self._key = node_id.encode()
        self._clock = clock
        self._rng = rng
        self._lanes = lanes
        self._filled = {topic: asyncio.Event() for topic in lanes}
        self._problems: dict[str, str] = {}
        self._acknowledged = False
        self._closing = False
        self._settled = asyncio.Event()
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._asked_s = float("-inf")

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:
        """Why the record was not taken; None when it was."""
        lane, now_s = self._lanes[topic], self._clock.monotonic_s()
        reason = lane.offer(value, now_s)
        if not can_wait or self._closing or lane.waiting >= FULL_RECORDS:
            self._filled[topic].set()
        oldest_s = lane.oldest_s()
        if oldest_s is not None and now_s - oldest_s > SLOW_S and topic not in self._problems:
            self._went_wrong(topic, _SLOW)
        return reason

    async def room(self, topic: str) -> None:
        """Returns when `offer` has room."""
        while not self._lanes[topic].has_room():
            await self._clock.sleep(ROOM_S)

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
        try:
            async with asyncio.TaskGroup() as group:
                for topic, lane in self._lanes.items():
                    if len(lane):  # what an earlier process left
                        self._filled[topic].set()
                    group.create_task(self._drain(topic), name=f"send {topic}")
                group.create_task(self._tend(group), name="tend")
        finally:
            for lane in self._lanes.values():
                lane.close()

    async def close(self, deadline_s: float) -> int:
        """Waits for acknowledgements while `run` goes on; how many records there were none for."""
        self._closing = True
        for filled in self._filled.values():
            filled.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while any(self._lanes.values()):
                    self._settled.clear()
                    await self._settled.wait()
        left = sum(lane.give_up() for lane in self._lanes.values())
        if self._connection is not None:
            # With nothing on its way this is quick; with something, Kafka had its time.
            await stop(self._connection.producer, CLOSE_S if left == 0 else 0)
        return left

    async def _tend(self, group: asyncio.TaskGroup) -> None:
        syncing: asyncio.Task[None] | None = None
        while True:
            await tick(self._clock, TEND_S)
            now_s = self._clock.monotonic_s()
            slow = [topic for topic, problem in self._problems.items() if problem == _SLOW]
            if slow and now_s - self._asked_s >= SLOW_S:
                self._asked_s = float("inf")  # until it has answered
                group.create_task(self._explain(slow), name="explain")
            for topic, lane in self._lanes.items():
                lane.expire(now_s)
                if lane.waiting:
                    self._filled[topic].set()
            if syncing is None or syncing.done():
                dirty = [(lane, paths) for lane in self._lanes.values() if (paths := lane.unsynced(now_s))]
                syncing = group.create_task(_sync(dirty), name="sync") if dirty else None

    async def _explain(self, slow: Sequence[str]) -> None:
        """Once connected, aiokafka tries on for ever and does not say why it must: so Kafka is asked beside it."""
        from schemas.kafka.reasons import refusal  # noqa: PLC0415 - only where something goes wrong

        why = await refusal(self._options.brokers)
        self._asked_s = self._clock.monotonic_s()
        for topic in slow:
            if why is not None and self._problems.get(topic) == _SLOW:
                log.warning("Kafka cannot be used", extra={"topic": topic, "why": why})
                self._problems[topic] = why

    async def _drain(self, topic: str) -> None:
        lane, filled = self._lanes[topic], self._filled[topic]
        apart_s, sent_s = APART_S.get(topic, USUAL_APART_S), float("-inf")
        while True:
            await filled.wait()
            connection = await self._connected()
            await self._clock.sleep(sent_s + apart_s - self._clock.monotonic_s())
            sent_s = self._clock.monotonic_s()
            lane.expire(sent_s)
            if lane.waiting:
                await self._send(topic, lane, connection)
            if not lane.waiting:
                filled.clear()
            self._settled.set()

    async def _send(self, topic: str, lane: Lane, connection: Connection) -> None:
        """One batch, until it is settled or waits again."""
        doubt = lane.doubt
        try:
            if doubt is not None:
                connection = Connection(await self._resumed(topic, doubt))
            ack = await self._hand_over(topic, lane, connection.producer, doubt)
        except (KafkaError, OSError) as cause:
            if doubt is None:
                lane.take_back()
            else:
                lane.lose_sight()
            if isinstance(cause, UnknownTopicOrPartitionError):
                self._went_wrong(topic, "there is no such topic; create it with `fleetbeat topics apply`")
            else:
                self._went_wrong(topic, await self._why(cause))
                await self._part_with(connection, doubt)
            await self._clock.sleep(_wait_s(cause))
            return
        if ack is not None:
            # What waits in memory alone cannot be sent again without a doubt.
            patience_s = None if isinstance(lane, MemoryLane) else self._signing.patience_s
            await asyncio.wait({ack, connection.gone}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            refusal = ack.exception() if ack.done() else KafkaError("the connection was given up")
            await self._settle(topic, lane, refusal)
            if refusal is None and doubt is None:
                self._signing.heard(topic, ack)
                return
        elif doubt is None:  # what waited was damaged, or cannot be read now
            await self._clock.sleep(RETRY_S[0])
            return
        # After a refusal: the producer has given this batch its numbers; what comes after it would be refused as well.
        await self._part_with(connection, doubt)

    async def _settle(self, topic: str, lane: Lane, refusal: BaseException | None) -> None:
        if refusal is None:
            lane.acknowledge()
            self._went_well(topic)
            return
        if isinstance(refusal, _NEVER):
            lane.refuse()
        elif isinstance(refusal, _NOT_WRITTEN):
            lane.take_back()
        else:
            lane.lose_sight()
        self._went_wrong(topic, await self._why(refusal))
        await self._clock.sleep(_wait_s(refusal))

    async def _why(self, cause: BaseException) -> str:
        from schemas.kafka.reasons import why_not  # noqa: PLC0415 - only where something goes wrong

        return await why_not(self._options.brokers, cause)

    async def _part_with(self, connection: Connection, doubt: Flight | None) -> None:
        if doubt is None:
            self._retire(connection)
        elif connection is not self._connection:
            await stop(connection.producer, CLOSE_S)

    async def _hand_over(
        self,
        topic: str,
        lane: Lane,
        producer: Any,  # noqa: ANN401 - aiokafka ships no types
        doubt: Flight | None,
    ) -> asyncio.Future[Any] | None:
        """A future that is done when Kafka has the batch; None when there is none.

        Raises KafkaError when it was not even queued.
        """
        partitions = sorted(await producer.partitions_for(topic))
        batch = producer.create_batch()
        self._signing.begin(topic)

        def takes(value: bytes) -> bool:
            headers = trace_headers(topic, value) + self._signing.headers(topic, value)
            return batch.append(timestamp=None, key=self._key, value=value, headers=headers) is not None

        lane.hand_over(takes)
        batch.close()
        if doubt is None:
            partition = DefaultPartitioner()(self._key, partitions, partitions)
            numbers = producer._txn_manager  # noqa: SLF001 - aiokafka 0.14 shows a producer's numbers nowhere else
            sequence = numbers.sequence_number(TopicPartition(topic, partition))
            stamp = Stamp(numbers.producer_id, numbers.producer_epoch, partition, sequence)
        else:
            stamp = doubt.stamp
        if not batch.record_count() or not lane.fly(stamp):
            return None
        ack: asyncio.Future[Any] = await producer.send_batch(batch, topic, partition=stamp.partition)
        return ack

    async def _resumed(self, topic: str, doubt: Flight) -> Any:  # noqa: ANN401 - as above
        """A producer that goes on where the one of the doubt was before it sent. Raises KafkaError, OSError."""
        producer = self._producer(AGAIN_BYTES)
        numbers = producer._txn_manager  # noqa: SLF001 - as above
        numbers.set_pid_and_epoch(doubt.stamp.producer_id, doubt.stamp.epoch)
        numbers.increment_sequence_number(TopicPartition(topic, doubt.stamp.partition), doubt.stamp.sequence)
        try:
            async with asyncio.timeout(CONNECT_S):
                await producer.start()
        except BaseException:
            await stop(producer, 0)
            raise
        return producer

    def _producer(self, batch_bytes: int = BATCH_BYTES) -> Any:  # noqa: ANN401 - as above
        return AIOKafkaProducer(
            **client_settings(self._options.brokers),
            client_id="fleetbeat-agent",
            acks="all",
            enable_idempotence=True,
            compression_type=self._options.compression,
            max_batch_size=batch_bytes,
            request_timeout_ms=30_000,
            retry_backoff_ms=BACKOFF_MS,
        )

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = Connection(await self._connect())
            return self._connection

    async def _connect(self) -> Any:  # noqa: ANN401 - as above
        for wait_s in chain(RETRY_S, repeat(RETRY_S[-1])):
            producer = self._producer()
            try:
                async with asyncio.timeout(CONNECT_S):
                    await producer.start()
            except (KafkaError, OSError) as cause:  # TimeoutError is an OSError
                await stop(producer, CLOSE_S)
                why = await self._why(cause)
                for topic, lane in self._lanes.items():
                    if len(lane):
                        self._went_wrong(topic, f"{self._options.brokers}: {why}")
            except asyncio.CancelledError:
                await stop(producer, 0)
                raise
            else:
                return producer
            # Many agents lose the same broker at the same moment: they shall not come back at the same moment.
            await self._clock.sleep(wait_s * self._rng.uniform(0.5, 1.5))
        raise AssertionError("repeat ends")

    def _retire(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            task = asyncio.create_task(end(connection))
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


async def _sync(dirty: Sequence[tuple[Lane, set[Path]]]) -> None:
    """In a thread: a slow disk holds up nothing else."""
    for lane, paths in dirty:
        lane.sync_failed(await SideThread(partial(lane.sync, paths)).call())


def _wait_s(cause: BaseException) -> float:
    """What ACLs forbid they will forbid in a moment as well, and each try may cost a connection."""
    return RETRY_S[-1] if isinstance(cause, _FORBIDDEN) else RETRY_S[0]
