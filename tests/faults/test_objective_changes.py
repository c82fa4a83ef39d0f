"""Objectives that change while workers die at any of their sends and wake up late: every slice by those of its time."""

import asyncio
import random
from dataclasses import replace

import pytest

from streams.core.objectives import Objective
from streams.core.versions import Announcement, Timeline
from tests.faults.test_short import OBJECTIVES, Scenario
from tests.faults.world import BEGIN_MS, Clock, Worker, clock, expected

__all__ = ["clock"]

# What a worker may not have read yet: the lead of 30 s, less the 5 s that events may be ahead of their append time.
UNREAD_MS = (0, 8_000, 25_000)
Slices = dict[int, tuple[int, int, int, int]]


class Changing(Scenario):
    """Sets of objectives are announced as time goes by; every worker has read them up to a place of its own."""

    def __init__(self, seed: int, clock: Clock) -> None:
        super().__init__(seed, clock)
        self.sets = [Announcement(0, BEGIN_MS, 0, OBJECTIVES)]
        self.world.known = self._known

    def _known(self) -> Timeline | None:
        until_ms = self.world.clock.now_ms - self.rng.choice(UNREAD_MS)
        return Timeline(each for each in self.sets if each.offset == 0 or each.append_ms <= until_ms)

    def _traffic(self) -> None:
        super()._traffic()
        if self.rng.random() < 0.08:
            chosen = self.rng.sample(OBJECTIVES, self.rng.randint(1, len(OBJECTIVES)))
            changed = tuple(replace(each, latency_us_le=self.rng.choice((None, 200, 800))) for each in chosen)
            asked_ms = self.world.clock.now_ms + self.rng.choice((0, 0, 40_000))
            self.sets.append(Announcement(len(self.sets), self.world.clock.now_ms, asked_ms, changed))

    def _verify(self, worker: Worker) -> None:
        for each in OBJECTIVES:
            wanted, found = self._wanted(each.id), self._found(worker, each.id)
            wrong = {s: (found.get(s), wanted.get(s)) for s in {*wanted, *found} if found.get(s) != wanted.get(s)}
            assert not wrong, f"{each.id}: found and expected by second: {wrong}"

    def _in_force(self, second: int) -> tuple[Objective, ...]:
        """The rule once more: of the sets that have started, the last one."""
        started = [
            each.objectives
            for each in self.sets
            if each.offset == 0 or max(each.append_ms + 30_000, each.asked_ms) <= second * 1_000
        ]
        return started[-1]

    def _wanted(self, objective_id: str) -> Slices:
        seconds: dict[Objective, set[int]] = {}
        for event in self.events.values():
            second = event.ts // 1_000
            for objective in self._in_force(second):
                if objective.id == objective_id:
                    seconds.setdefault(objective, set()).add(second)
        wanted: Slices = {}
        for objective, mine in seconds.items():
            events = {v: e for v, e in self.events.items() if e.ts // 1_000 in mine}
            wanted |= expected(self.world, objective, events)
        return wanted

    def _found(self, worker: Worker, objective_id: str) -> Slices:
        versions = {each.series: each for said in self.sets for each in said.objectives if each.id == objective_id}
        found: Slices = {}
        for objective in versions.values():
            slices = worker.slices(objective)
            assert not slices.keys() & found.keys(), "a second has one version"
            found |= slices
        return found


@pytest.mark.parametrize("number", range(2))
def test_every_slice_is_judged_by_the_set_of_its_time(clock: Clock, number: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"scenario {number}: seed {seed}")
    asyncio.run(Changing(seed, clock).run())


class ByTheNewest(Changing):
    """The control: as if each worker had nothing but a file."""

    def _known(self) -> Timeline | None:
        return Timeline.of(self.sets[-1].objectives)


def test_not_by_the_newest_set_that_there_is(clock: Clock) -> None:
    def differs(seed: int) -> bool:
        clock.now_ms = BEGIN_MS
        try:
            asyncio.run(ByTheNewest(seed, clock).run())
        except AssertionError:
            return True
        return False

    assert any(differs(seed) for seed in range(20))
