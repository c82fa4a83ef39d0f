"""Retention that was faster than the workers: what was counted stays, and what the log still holds is counted once."""

import pytest

from tests.unit.exactness import PROMISES, START_MS, Event, Log, Logged, recompute
from tests.unit.exactness_world import World

SHOP = ("shop", "/cart", "us", "http")


def at(append_s: float, ts_s: float) -> Logged:
    event = Event(SHOP, START_MS + int(ts_s * 1_000), success=True, latency_us=300)
    return Logged(START_MS + int(append_s * 1_000), event)


# Counted and open when the worker dies; deleted before it comes back; and what it then finds, with late ones among it.
COUNTED = [at(0.1 * n, 0.1 * n) for n in range(30)]
DELETED = [at(5 + 0.1 * n, 5) for n in range(8)]
FOUND = [at(3_600, 3_600), at(3_600.2, 1), at(3_600.4, 3_599), at(3_615, 3_600), at(3_700, 3_700)]


def after_a_hole(*, owner_restarts: bool) -> tuple[World, Log]:
    world = World([[*COUNTED, *DELETED, *FOUND]])
    world.count(world.counters[0], (0, 0, 30))
    world.fold()
    world.save()
    world.restart_counters()
    if owner_restarts:
        world.replace_owner()
    counter = world.counters[0]
    assert counter.next[0] < 30  # the commit is where the open cells begin
    counter.first[0] = counter.next[0] = 38  # aiokafka goes to the earliest record that is left
    return world, [[*COUNTED, *FOUND]]


@pytest.mark.parametrize("owner_restarts", [False, True])
def test_open_cells_stay_as_they_were_and_what_is_left_of_the_log_is_counted(owner_restarts: bool) -> None:  # noqa: FBT001 - a case
    world, left = after_a_hole(owner_restarts=owner_restarts)
    for end in (39, 41, 43):
        world.count(world.counters[0], (0, world.counters[0].next[0], end))
    wanted = recompute(left, PROMISES)
    world.log = left
    world.fold()
    world.owners[0].seal()
    assert world.differs() == ""
    assert sum(n for (tier, *_), (n, *_) in wanted.items() if tier == "1h") > 0


def test_the_next_restart_goes_on_behind_the_hole() -> None:
    world, left = after_a_hole(owner_restarts=True)
    world.count(world.counters[0], (0, 38, 41))
    assert world.commits[0][0] >= 38
    world.restart_counters()
    world.count(world.counters[0], (0, world.counters[0].next[0], 43))
    world.log = left
    world.fold()
    world.owners[0].seal()
    assert world.differs() == ""
