"""Workers that die at any of their sends, wake up late or meet what they cannot read: every slice stays exact."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.blocks import Reject
from schemas.codec import decode, encode
from schemas.dead_letters import MAX_KEPT_KEY_BYTES
from schemas.records import ProbeResult, SloPartial, Source
from streams import metrics
from streams.core.series import SeriesIndex
from streams.core.sources import PROBES as SOURCE
from streams.engine.transport import Poll, ResumePoint
from streams.processors.dead_letters import dead_letters
from streams.processors.objectives import NotHeardError
from streams.processors.rollup import MAX_PENDING, RollupProcessor
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from tests.faults.world import Clock, CrashError, Worker, World, clock, expected, objective

__all__ = ["clock"]

PARTITIONS = 5
OBJECTIVES = (
    objective("busy", 500, service="busy"),
    *(objective(f"rare-{n}", service=f"rare-{n}") for n in range(4)),
)
ACTS = 120


class Scenario:
    """A log that grows and workers that come and go, all drawn from one seed."""

    kind: type[Worker] = Worker

    def __init__(self, seed: int, clock: Clock) -> None:
        self.rng = random.Random(seed)
        self.world = World(PARTITIONS, OBJECTIVES, clock)
        self.events: dict[bytes, ProbeResult] = {}
        self.junk: set[bytes] = set()
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Raises AssertionError, or what a worker raises that finds its state wanting."""
        worker, zombie = await self._born(), None
        for _ in range(ACTS):
            self._traffic()
            actor = zombie if zombie is not None and self.rng.random() < 0.2 else worker
            with suppress(CrashError):
                await self.rng.choice([actor.count, actor.count, actor.fold])()
            if worker.producer.lives <= 0 or self.rng.random() < 0.05:
                worker.freeze()
                worker, zombie = await self._born(), worker
        self._verify(await self._settled())

    async def _born(self) -> Worker:
        worker = self.kind(self.world, self.rng)
        await worker.recover()
        if self.rng.random() < 0.7:
            worker.producer.lives = self.rng.randrange(1, 200)
        return worker

    def _traffic(self) -> None:
        """Some time goes by, busy or quiet."""
        rng, clock = self.rng, self.world.clock
        if rng.random() < 0.1:
            clock.now_ms += rng.choice([0, 300, 2_000, 14_000])
        for _ in range(rng.choice([0, 1, 5, 20])):
            clock.now_ms += rng.randrange(60)
            service = "busy" if rng.random() < 0.8 else f"rare-{rng.randrange(4)}"
            delay_ms = rng.choice([0, 0, 0, 1_000, 5_000, 9_000, 10_500, 11_500, 30_000])
            number = next(self._numbers)
            event = ProbeResult(
                *(f"node-{rng.randrange(9)}", clock.now_ms - delay_ms, "b", number, "p", "http", service, "/", "eu"),
                success=rng.random() < 0.9,
                latency_us=rng.randrange(1_000),
            )
            self.events[encode(event)] = event
            self.world.probe(rng.randrange(2), event)
            if rng.random() < 0.05:
                self.junk.add(b"junk %d" % number)
                self.world.append(SOURCE, rng.randrange(2), b"n", b"junk %d" % number)

    async def _settled(self) -> Worker:
        """A worker that has read everything."""
        worker = await self._born()
        worker.producer.lives = float("inf")
        while worker.behind():
            await worker.count()
            await worker.fold()
        return worker

    def _verify(self, worker: Worker) -> None:
        for each in OBJECTIVES:
            wanted, found = expected(self.world, each, self.events), worker.slices(each)
            wrong = {
                start: (found.get(start), wanted.get(start))
                for start in {*wanted, *found}
                if found.get(start) != wanted.get(start)
            }
            assert not wrong, f"{each.id}: found and expected by second: {wrong}"
        letters = {decode(letter).value for letter in self.world.dead}  # type: ignore[union-attr]
        assert self.junk <= letters, "a record that cannot be read is in no dead letter"


@pytest.mark.parametrize("number", range(2))
def test_every_slice_is_exact(clock: Clock, number: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"scenario {number}: seed {seed}")
    asyncio.run(Scenario(seed, clock).run())


class Forgetful(Worker):
    """Names come that nothing is kept of, and all that can be forgotten is, so that numbers change all the time."""

    async def fold(self) -> None:
        self.objectives.index.number(f"[{self._rng.random()}]")
        await super().fold()


class ForgetfulScenario(Scenario):
    kind = Forgetful


def test_every_slice_is_exact_when_numbers_change_all_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeriesIndex, "crowded", True)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    asyncio.run(ForgetfulScenario(seed, clock).run())


def test_a_rebalance_does_not_wait_for_records_that_nobody_counts_meanwhile(clock: Clock) -> None:
    """Faust lets a rebalance wait for every poll in hand; the worker does not count while it lasts."""

    async def run() -> None:
        worker = Worker(World(PARTITIONS, OBJECTIVES, clock), random.Random(0))
        record = ConsumerRecord(SOURCE, 0, 0, clock.now_ms, 1, b"n", b"", None, 1, 0, ())

        async def polls() -> AsyncIterator[Poll]:
            yield Poll([record] * (MAX_PENDING + 1), 0)

        waiting = asyncio.create_task(worker.rollup.process(polls()))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "polls are taken without limit"
        worker.app.rebalancing = True
        async with asyncio.timeout(60):
            await waiting

    asyncio.run(run())


def test_a_poll_of_before_a_rebalance_is_not_counted_after_it(clock: Clock) -> None:
    async def run() -> None:
        worker = Worker(World(PARTITIONS, OBJECTIVES, clock), random.Random(0))
        record = ConsumerRecord(SOURCE, 0, 0, clock.now_ms, 1, b"n", b"", None, 1, 0, ())

        async def polls() -> AsyncIterator[Poll]:
            yield Poll([record] * (MAX_PENDING + 1), 0)

        waiting = asyncio.create_task(worker.rollup.process(polls()))
        await asyncio.sleep(0.05)
        worker.rollup.lose_all()
        async with asyncio.timeout(60):
            await waiting
        assert not worker.rollup._pending

    asyncio.run(run())


class ForgetsThatItLostThem(RollupProcessor):
    """Whoever has the partitions again believes to have had them all the time."""

    def lose_all(self) -> None:
        super().lose_all()
        self._epoch %= 2


@pytest.mark.parametrize("kind", [RollupProcessor, ForgetsThatItLostThem])
def test_two_rebalances_in_one_flush(clock: Clock, kind: type[RollupProcessor]) -> None:
    """While a flush is sent all partitions go and come back: nothing of it may be committed, or called counted."""

    async def run() -> None:
        scenario = Scenario(7, clock)
        worker = Worker(scenario.world, scenario.rng, kind)
        await worker.recover()
        for _ in range(20):
            scenario._traffic()
            await worker.count()
        points: list[dict[TP, ResumePoint]] = []

        def rebalance_twice() -> None:
            points.append(dict(worker.consumer.resume_points))
            if len(points) == 2:
                worker.rebalance()
                worker.rebalance()

        worker.producer.between = rebalance_twice
        while len(points) < 2:
            scenario._traffic()
            await worker.rollup.process(worker.polls(SOURCE))
            await worker.rollup.step()
        worker.producer.between = lambda: None
        claims = [partition for partition in range(PARTITIONS) if worker.rollup.read_to(partition) is not None]
        if kind is ForgetsThatItLostThem:
            assert claims, "the control must be seen"
            return
        assert not claims
        assert worker.consumer.resume_points == points[1]
        await worker.recover()
        while worker.behind():
            await worker.count()
            await worker.fold()
        scenario._verify(worker)

    asyncio.run(run())


def test_a_partial_that_cannot_be_read_is_a_dead_letter_and_not_a_hole(clock: Clock) -> None:
    async def run() -> None:
        world = World(PARTITIONS, OBJECTIVES, clock)
        worker = Worker(world, random.Random(0))
        await worker.recover()
        holes = metrics.HOLES.labels(PARTIALS)._value.get()
        for value in (b"junk", encode(SloPartial("t", "", (Source(0, 1, 1),), (), b"no frame"))):
            world.append(PARTIALS, 0, None, value)
            worker.objectives._pending.append(Poll(world.logs[TP(PARTIALS, 0)][-1:], 0))
            await worker.objectives.save()
        assert [decode(letter).reason for letter in world.dead] == ["bad-frame", "bad-cells"]  # type: ignore[union-attr]
        assert worker.consumer.resume_points[TP(PARTIALS, 0)].offset == 2
        assert metrics.HOLES.labels(PARTIALS)._value.get() == holes

    asyncio.run(run())


def test_who_stood_still_does_not_answer(clock: Clock) -> None:
    """Another worker may have the partition by now."""

    async def run() -> None:
        worker = Worker(World(PARTITIONS, OBJECTIVES, clock), random.Random(0))
        await worker.recover()
        assert worker.objectives.read(0, lambda table: table.applied) == -1
        waiting = asyncio.create_task(worker.objectives.read_apart(0, lambda table: table.applied))
        await asyncio.sleep(0)
        worker.rebalance()  # the group meets again while the answer is being made
        with pytest.raises(NotHeardError):
            await waiting
        with pytest.raises(NotHeardError):
            worker.objectives.read(0, lambda table: table.applied)
        await worker.recover()
        assert worker.objectives.read(0, lambda table: table.applied) == -1
        worker.consumer.holds_assignment = lambda: False
        with pytest.raises(NotHeardError):
            worker.objectives.read(0, lambda table: table.applied)
        with pytest.raises(NotHeardError):
            await worker.objectives.read_apart(0, lambda table: table.applied)

    asyncio.run(run())


@pytest.mark.parametrize("part", ["open", "1s"])
def test_a_page_that_cannot_be_read_is_one_loss_and_its_partition_is_counted_again(clock: Clock, part: str) -> None:
    async def run() -> None:
        scenario = Scenario(5, clock)
        worker = Worker(scenario.world, scenario.rng)
        await worker.recover()
        for _ in range(40):
            scenario._traffic()
            await worker.count()
            await worker.fold()
        pages = {record.key for log in scenario.world.logs.values() for record in log if record.topic == PAGES_TOPIC}
        key = max(key for key in pages if key and key.startswith(f"objectives/{part}".encode()))
        partition = next(tp.partition for tp, log in scenario.world.logs.items() for r in log if r.key == key)
        scenario.world.append(PAGES_TOPIC, partition, key, b"junk")
        losses = metrics.UNREADABLE_PAGES._value.get()
        scenario._verify(await scenario._settled())
        assert metrics.UNREADABLE_PAGES._value.get() == losses + 1

    asyncio.run(run())


def test_a_dead_letter_fits_into_its_topic(clock: Clock) -> None:
    """Of a record that is as large as a topic takes, in its key or its value."""
    for key, value in ((b"k" * 1_000_000, b"v"), (b"k", b"v" * 1_000_000), (b"k" * 500_000, b"v" * 500_000)):
        record = ConsumerRecord(SOURCE, 0, 7, clock.now_ms, 1, key, value, None, len(key), len(value), ())
        ((found_key, letter, _),) = dead_letters([record], [Reject(0, "bad-frame", "why")], "worker")
        assert found_key == key[:MAX_KEPT_KEY_BYTES]
        assert len(letter) + len(found_key) < 1_000_000
        assert decode(letter).value_bytes == len(value)  # type: ignore[union-attr]
