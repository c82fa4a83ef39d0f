"""A world without brokers, clocks or luck: logs as lists, workers whose every send may be their last.

The processors of the worker run as they are; only Faust's app is replaced: what they send is appended to logs, what
they commit is kept, and a worker can be dropped at any of its sends, or wake up after another one has taken over.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.codec import encode
from schemas.records import ProbeResult
from streams.core.objectives import Objective, Selector
from streams.core.series import CELL_SERIES, Judge, SeriesIndex
from streams.core.slices import SECONDS
from streams.core.sources import PROBES as SOURCE
from streams.core.versions import Timeline
from streams.engine.transport import Poll, RawPoll, ResumePoint
from streams.processors import rollup as rollup_module
from streams.processors.objectives import ObjectivesProcessor
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_parts import OBJECTIVES
from streams.processors.slo_recovery import PARTIALS
from streams.topic_ids import TopicIdentity
from tests.unit.raw_batches import raw_batches

BEGIN_MS = 1_767_225_600_000


class CrashError(Exception):
    """The process is gone."""


@dataclass(slots=True)
class Clock:
    """The brokers' time and everybody else's, in ms."""

    now_ms: int = BEGIN_MS

    def monotonic(self) -> float:
        return self.now_ms / 1_000


@dataclass(slots=True)
class World:
    """All that outlives a worker: three topics, by partition, and the group's commits."""

    partitions: int
    objectives: tuple[Objective, ...]
    clock: Clock = field(default_factory=Clock)
    logs: dict[TP, list[ConsumerRecord[bytes, bytes]]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[TP, ResumePoint] = field(default_factory=dict)
    dead: list[bytes] = field(default_factory=list)
    known: Callable[[], Timeline | None] = field(init=False)

    def __post_init__(self) -> None:
        timeline = Timeline.of(self.objectives)
        self.known = lambda: timeline

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        log = self.logs[TP(topic, partition)]
        record = (
            topic,
            partition,
            len(log),
            self.clock.now_ms,
            1,
            key,
            value,
            None,
            len(key or b""),
            len(value or b""),
        )
        log.append(ConsumerRecord(*record, headers=()))

    def probe(self, partition: int, result: ProbeResult) -> None:
        self.append(SOURCE, partition, result.node_id.encode(), encode(result))


class Producer:
    """Appends to the world's logs; `lives` is how many more sends it survives, `between` happens before each."""

    def __init__(self, world: World, between: Callable[[], None]) -> None:
        self._world = world
        self.between = between
        self.lives: float = float("inf")

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None, *_: object
    ) -> "asyncio.Future[None]":
        self.between()
        if self.lives <= 0:
            raise CrashError
        self.lives -= 1
        if partition is None:
            self._world.dead.append(value or b"")
        else:
            self._world.append(topic, partition, key, value)
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, None)
        return done


async def confirm(_: str) -> None:
    """No topic is ever created anew."""


class Worker:
    """Rollup and objectives of one process that owns everything, from the commits and pages it finds.

    Faust's commits come whenever they like: before any send. Once frozen, the worker is a zombie: it goes on with what
    was in the logs then, and its commits are refused.
    """

    def __init__(self, world: World, rng: random.Random, rollup: type[RollupProcessor] = RollupProcessor) -> None:
        self.world = world
        self._rng = rng
        self.producer = Producer(world, lambda: self.commit() if rng.random() < 0.2 else None)
        self._horizon: dict[TP, int] | None = None
        owned = {TP(topic, p) for topic in (SOURCE, PARTIALS) for p in range(world.partitions)}
        committed = dict(world.commits)

        self.consumer = SimpleNamespace(
            committed=committed,
            holds_assignment=lambda: True,
            identity=lambda _: TopicIdentity("", 0),
            confirm=confirm,
            resume_points={},
            assignment=lambda: owned,
            highwater=lambda _: None,
        )
        self.app = SimpleNamespace(
            consumer=self.consumer,
            producer=self.producer,
            rebalancing=False,
            should_stop=False,
            consumer_generation_id=1,
        )
        app: Any = self.app
        index, cells = SeriesIndex(), SeriesIndex(CELL_SERIES)
        self.rollup = rollup(app, Judge(world.objectives, cells), cells, world.partitions, world.known)
        self.rollup._in_thread = _in_turn  # type: ignore[method-assign]  # else a seed would not tell what happens
        self.objectives = ObjectivesProcessor(app, self._read, index)
        self.position = {tp: point.offset for tp, point in world.commits.items()}

    async def _read(self, topic: str, partitions: Iterable[int]) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
        for partition in partitions:
            if log := self.world.logs[TP(topic, partition)]:
                yield list(log)

    def rebalance(self) -> None:
        """All partitions go, and come back at their commits."""
        self.rollup.lose_all()
        self.objectives.lose_all()
        self.consumer.committed = dict(self.world.commits)
        self.position = {tp: point.offset for tp, point in self.world.commits.items()}
        self.app.consumer_generation_id += 1

    async def recover(self) -> None:
        await self.objectives.recover(range(self.world.partitions))

    async def count(self) -> None:
        """Some steps of the rollup over some of what waits in some of the source partitions; their flushes overlap."""
        stop = asyncio.Event()
        running = asyncio.create_task(self.rollup.run(stop))
        for _ in range(self._rng.randrange(1, 4)):
            await self.rollup.process(self.polls(SOURCE))
            for _ in range(self._rng.randrange(30)):
                await asyncio.sleep(0)
        stop.set()
        await running
        await self.rollup.step()

    async def fold(self) -> None:
        """Some of what waits in some of the partitions of partials; pages are written."""
        await self.objectives.process(self.polls(PARTIALS))
        await self.objectives.save()

    def freeze(self) -> None:
        self._horizon = {tp: len(log) for tp, log in self.world.logs.items()}

    def commit(self) -> None:
        if self._horizon is not None or self.producer.lives <= 0:
            return
        for tp, point in self.consumer.resume_points.items():
            known = self.world.commits.get(tp)
            if known is None or point.offset > known.offset:
                self.world.commits[tp] = point

    async def polls(self, topic: str) -> AsyncIterator[Any]:
        """As records or as batches. Some come twice, as when Faust seeks back."""
        rng = self._rng
        for partition in rng.sample(range(self.world.partitions), self.world.partitions):
            tp = TP(topic, partition)
            at = self.position.get(tp, 0)
            waiting = self.world.logs[tp][at : None if self._horizon is None else self._horizon.get(tp, 0)]
            taken = waiting if rng.random() < 0.7 else waiting[: rng.randrange(len(waiting) + 1)]
            if taken and rng.random() < 0.8:
                self.position[tp] = at + len(taken)
                raw = topic == SOURCE and rng.random() < 0.5
                for _ in range(1 + (rng.random() < 0.1)):
                    yield RawPoll(raw_batches(taken), at) if raw else Poll(taken, at)

    def behind(self) -> bool:
        return any(
            self.position.get(tp, 0) < len(log) for tp, log in self.world.logs.items() if tp.topic in (SOURCE, PARTIALS)
        )

    def slices(self, objective: Objective) -> dict[int, tuple[int, int, int, int]]:
        """(total, good, late, sum_us) of every second of an objective, over all partitions' tables."""
        found: dict[int, tuple[int, int, int, int]] = {}
        for part in self.objectives.parts.values():
            rows = part.tables[OBJECTIVES].read(self.objectives.index.number(objective.series), SECONDS, 0, 1 << 31)
            for start, good, n, late, total_us in rows.select("start", "good", "n", "late_n", "sum_us").iter_rows():
                total, fine, lates, sum_us = found.get(start, (0, 0, 0, 0))
                found[start] = (total + n, fine + n * good, lates + late, sum_us + total_us)
        return found


async def _in_turn(step: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - as the processor's own
    """Runs a step while others go on, but always at the same point."""
    for _ in range(3):
        await asyncio.sleep(0)
    return step(*args)


def expected(
    world: World, objective: Objective, events: dict[bytes, ProbeResult]
) -> dict[int, tuple[int, int, int, int]]:
    """The same from the log itself."""
    found: dict[int, tuple[int, int, int, int]] = {}
    for tp, log in world.logs.items():
        if tp.topic != SOURCE:
            continue
        frontier = 0
        for record in log:
            frontier = max(frontier, record.timestamp)
            event = events.get(record.value)
            if event is None or not objective.selector.matches(event.service, event.endpoint, event.region, event.kind):
                continue
            start = event.ts // 1_000
            late = start * 1_000 + 11_000 <= frontier
            good = event.success and event.latency_us <= (objective.latency_us_le or 1 << 62)
            total, fine, lates, sum_us = found.get(start, (0, 0, 0, 0))
            found[start] = (total + 1, fine + good, lates + late, sum_us + event.latency_us)
    return found


def objective(name: str, limit: int | None = None, **where: str) -> Objective:
    return Objective(name, "test", name, Selector(**where), limit, 0.99, 3_600)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the rollup's processor."""
    clock = Clock()
    monkeypatch.setattr(rollup_module, "time", clock)
    monkeypatch.setattr(rollup_module, "STEP_EVERY_S", 0.0)
    return clock
