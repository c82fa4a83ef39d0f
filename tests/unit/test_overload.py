"""A worker that lags: it is late, and it says so; it takes nobody for dead, seals nothing early and holds no more."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from streams.core.rollup import Rollup
from streams.core.series import Judge, SeriesIndex
from streams.core.sources import PROBES
from streams.engine.fetched import Heard
from streams.engine.transport import LOG_APPEND_TIME, Poll
from streams.processors import liveness, rollup
from streams.processors.liveness import LivenessProcessor
from streams.processors.node_clock import BrokerClock
from streams.processors.node_judging import NodeJudge
from streams.processors.node_parts import GRACE_S, Part
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.objectives import ObjectivesProcessor
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_recovery import PARTIALS
from tests.unit.exactness import Event, Logged
from tests.unit.exactness_world import World
from tests.unit.liveness_world import START_MS, Beat, fold

NODES, INTERVAL_MS, MINUTES = 40, 5_000, 10
DEAD, DIED_MS = "node-07", START_MS + 4 * 60_000
LATENESS_MS = 10_000
POLL = 20_000


def heartbeats() -> list[Beat]:
    """Ten minutes of a zone in which one node dies after four."""
    return [
        Beat(f"node-{node:02}", START_MS + beat * INTERVAL_MS + node, seq=beat, heartbeat_seq=beat)
        for beat in range(MINUTES * 60_000 // INTERVAL_MS)
        for node in range(NODES)
        if f"node-{node:02}" != DEAD or START_MS + beat * INTERVAL_MS < DIED_MS
    ]


class LaggingOwner:
    """Has read none of a log that ended now; `read` is a step of catching up, after which it judges what it can."""

    def __init__(self) -> None:
        self.log = heartbeats()
        self.clock_ms, self.at_s = self.log[-1].append_ms, 1_000.0
        table = NodeTable(Limits(1_000, 1_000), seed=1)
        self.part = Part(0, Limits(1, 1), table, BrokerClock(), 0, "owner", now_ms=0)
        self.judge = NodeJudge()
        self.said: list[tuple[str, str, int]] = []

    def read(self, records: int) -> None:
        part, log = self.part, self.log[self.part.read_to : self.part.read_to + records]
        fold(part.table, log, part.read_to)
        part.read_to += len(log)
        part.clock.received(log[-1].append_ms, self.at_s)
        self._pass(0.5)

    def _pass(self, seconds: float) -> None:
        """Time goes on, and there is no lag any more or there is."""
        self.at_s += seconds
        self.clock_ms += int(seconds * 1_000)
        self.part.look(Heard(len(self.log), self.clock_ms), self.clock_ms, self.at_s)
        if self.part.may_be_judged(self.at_s):
            for _, changes in self.judge.round([self.part]).nodes:
                self.said += changes.select("node_id", "state", "since_ms").rows()

    def states(self) -> set[str]:
        return {name for name, count in self.part.table.counts(self.part.now_ms).states.items() if count}


def test_a_worker_that_is_ten_minutes_behind_calls_nobody_down() -> None:
    owner = LaggingOwner()
    owner.read(NODES * 24)
    assert owner.part.now_ms == owner.log[NODES * 24 - 1].append_ms
    assert owner.states() == {"UP"}
    assert (owner.said, owner.judge.zones) == ([], {})


def test_by_the_clock_it_would() -> None:
    owner = LaggingOwner()
    owner.read(NODES * 24)
    owner.part.now_ms = owner.clock_ms
    assert owner.states() == {"DOWN"}


def test_catching_up_it_finds_who_has_died_at_its_own_time_and_nobody_else() -> None:
    owner = LaggingOwner()
    while owner.part.read_to < len(owner.log):
        owner.read(777)
    for _ in range(3):
        owner._pass(GRACE_S)
    last_ms = max(beat.append_ms for beat in owner.log if beat.node_id == DEAD)
    down = [(node, since) for node, state, since in owner.said if state in {"DOWN", "SUSPECT", "LATE"}]
    assert down == [(DEAD, last_ms + 3 * INTERVAL_MS + 1_000)]
    assert len(owner.said) == NODES


SHOP = ("shop", "/cart", "us", "http")


def results() -> list[Logged]:
    """A minute of events in log order: most on time, some that are too late wherever they are read."""
    log = []
    for tenth in range(600):
        append_ms = START_MS + tenth * 100
        behind_ms = 15_000 if tenth % 50 == 49 else 5_000 if tenth % 7 == 6 else 0
        log.append(Logged(append_ms, Event(SHOP, append_ms - behind_ms, success=True, latency_us=tenth)))
    return log


def world_after(*cuts: int, kind: type[World] = World) -> World:
    world = kind([results()])
    for begin, end in zip((0, *cuts), (*cuts, 600), strict=True):
        world.count(world.counters[0], (0, begin, end))
        world.fold()
    return world


def test_a_lagging_worker_seals_by_what_it_has_read() -> None:
    """Its clock may be hours further."""
    world = World([results()])
    world.count(world.counters[0], (0, 0, 250))
    world.fold()
    read_to_ms = results()[249].append_ms
    for table in world.owners[0].tables.values():
        assert read_to_ms - LATENESS_MS - 1_000 < table.sealed_to_ms() <= read_to_ms - LATENESS_MS


@pytest.mark.parametrize("cuts", [(), (599,), (1, 2, 3), tuple(range(7, 600, 7))], ids=["at once", "-1", "+3", "live"])
def test_what_is_late_does_not_depend_on_the_lag(cuts: tuple[int, ...]) -> None:
    world = world_after(*cuts)
    assert world.finish() == ""
    assert world.counters[0].rollup.late == len(range(49, 600, 50))


class BySomebodysClock(Rollup):
    """Seals by a clock that is past everything, as a worker's is that catches up."""

    def open(self, partition: int, frontier: int) -> None:
        super().open(partition, max(frontier, START_MS + 3_600_000))


def test_sealing_by_the_clock_would_call_a_backlog_late() -> None:
    class Control(World):
        rollup = BySomebodysClock

    assert world_after(kind=Control).finish() != ""


def record(topic: str, offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(topic, 0, offset, START_MS, LOG_APPEND_TIME, b"n", b"", None, 1, 0, ())


def app_of(**more: object) -> Any:  # noqa: ANN401 - as much of Faust as a processor touches
    consumer = SimpleNamespace(committed={}, resume_points={}, **more)
    return SimpleNamespace(rebalancing=False, should_stop=False, consumer=consumer)


async def taken_of_an_endless_log(process: Any, topic: str) -> int:  # noqa: ANN401 - a processor's
    """How many records are taken while nothing is counted."""
    taken = 0

    async def polls() -> AsyncIterator[Poll]:
        nonlocal taken
        while True:
            poll = Poll([record(topic, taken)] * (POLL - 1) + [record(topic, taken + POLL - 1)], taken)
            taken += len(poll)
            yield poll

    waiting = asyncio.create_task(process(polls()))
    async with asyncio.timeout(60):
        while taken <= 3 * POLL:  # noqa: ASYNC110 - of a number
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return taken


def test_results_that_nobody_counts_are_not_taken_without_end() -> None:
    index = SeriesIndex()
    judge = Judge((), index)
    own = RollupProcessor(app_of(), judge, index, 1, lambda: judge.timeline)
    taken = asyncio.run(taken_of_an_endless_log(own.process, PROBES))
    assert rollup.MAX_PENDING < taken <= rollup.MAX_PENDING + POLL
    assert own._pending_count == taken


def test_heartbeats_that_nobody_counts_are_not_taken_without_end() -> None:
    own = LivenessProcessor(app_of(), lambda *_: None, Limits(1, 1))  # type: ignore[arg-type]
    taken = asyncio.run(taken_of_an_endless_log(own.process, HEARTBEATS))
    assert liveness.MAX_PENDING < taken <= liveness.MAX_PENDING + POLL


def processor_of(kind: str, app: Any) -> tuple[Any, str]:  # noqa: ANN401 - as much of Faust as a processor touches
    index = SeriesIndex()
    judge = Judge((), index)
    match kind:
        case "rollup":
            return RollupProcessor(app, judge, index, 1, lambda: judge.timeline), PROBES
        case "objectives":
            return ObjectivesProcessor(app, lambda *_: None, index), PARTIALS  # type: ignore[arg-type]
    return LivenessProcessor(app, lambda *_: None, Limits(1, 1)), HEARTBEATS  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", ["rebalancing", "should_stop"])
@pytest.mark.parametrize("kind", ["rollup", "objectives", "liveness"])
def test_a_poll_that_waits_to_be_counted_is_let_go_of_when_nothing_is_counted_any_more(kind: str, begun: str) -> None:
    """Faust waits for it without a limit, at a rebalance and at a stop: such a worker neither works nor ends."""
    app = app_of()
    own, topic = processor_of(kind, app)
    own._pending_count = 1 << 30
    own._pending.extend([Poll([record(topic, 0)], 0)] * 2_000)

    async def polls() -> AsyncIterator[Poll]:
        yield Poll([record(topic, 0)], 0)

    async def run() -> None:
        waiting = asyncio.create_task(own.process(polls()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        setattr(app, begun, True)
        async with asyncio.timeout(20):
            await waiting

    asyncio.run(run())
