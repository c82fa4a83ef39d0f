"""Crashes at any send, late commits and woken zombies, a thousand to the minute: every slice stays exact."""

import asyncio
import itertools
import random
from contextlib import suppress

import pytest

from schemas.codec import encode
from schemas.records import ProbeResult
from tests.faults.world import Clock, CrashError, Worker, World, clock, expected, objective

__all__ = ["clock"]

PARTITIONS = 5
OBJECTIVES = (
    objective("busy", 500, service="busy"),
    *(objective(f"rare-{n}", service=f"rare-{n}") for n in range(4)),
)
LIVES = 60


class Scenario:
    """A log that grows and workers that come and go, all drawn from one seed."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.rng = random.Random(seed)
        self.world = World(PARTITIONS, OBJECTIVES, clock)
        self.events: dict[bytes, ProbeResult] = {}
        self._numbers = itertools.count()

    async def run(self, acts: int = LIVES) -> None:
        self._worker = await self._born()
        zombie: Worker | None = None
        for _ in range(acts):
            self._traffic()
            actor = zombie if zombie is not None and self.rng.random() < 0.3 else self._worker
            with suppress(CrashError):
                await self._act(actor)
            if self._worker.producer.lives <= 0 or self.rng.random() < 0.08:
                zombie, self._worker = self._worker, await self._born()
        self.verify(await self._settled())

    async def _born(self) -> Worker:
        worker = Worker(self.world)
        await worker.recover()
        if self.rng.random() < 0.7:
            worker.producer.lives = self.rng.randrange(1, 120)
        return worker

    async def _act(self, worker: Worker) -> None:
        await self.rng.choice([worker.count, worker.count, worker.fold])(self.rng)
        if self.rng.random() < 0.5 and worker is self._worker:  # the group refuses the commits of the others
            worker.commit()

    def _traffic(self) -> None:
        """Quarter of a second to some seconds go by; most of it busy, some of it quiet."""
        rng, clock = self.rng, self.world.clock
        if rng.random() < 0.2:
            clock.now_ms += rng.choice([0, 300, 5_000, 14_000])
        for _ in range(rng.choice([0, 1, 5, 30])):
            clock.now_ms += rng.randrange(60)
            service = "busy" if rng.random() < 0.9 else f"rare-{rng.randrange(4)}"
            delay_ms = rng.choice([0, 0, 0, 1_000, 5_000, 9_000, 10_500, 11_500, 30_000])
            number = next(self._numbers)
            event = ProbeResult(
                *(f"node-{rng.randrange(9)}", clock.now_ms - delay_ms, "b", number, "p", "http", service, "/", "eu"),
                success=rng.random() < 0.9,
                latency_us=rng.randrange(1_000),
            )
            self.events[encode(event)] = event
            self.world.probe(rng.randrange(PARTITIONS), event)

    async def _settled(self) -> Worker:
        """A worker that has read everything."""
        worker = await self._born()
        worker.producer.lives = float("inf")
        while worker.behind():
            await worker.count(self.rng)
            await worker.fold(self.rng)
        return worker

    def verify(self, worker: Worker) -> None:
        for each in OBJECTIVES:
            wanted, found = expected(self.world, each, self.events), worker.slices(each)
            wrong = {
                start: (found.get(start), wanted.get(start))
                for start in {*wanted, *found}
                if found.get(start) != wanted.get(start)
            }
            assert not wrong, f"{each.id}: found and expected by second: {wrong}"


@pytest.mark.parametrize("number", range(20))
def test_every_slice_is_exact(clock: Clock, number: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    asyncio.run(Scenario(seed, clock).run())
