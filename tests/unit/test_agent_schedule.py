"""When probes are due, and the line in which they wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.schedule import Due, Lineup, Schedule, Skip, Timing, Turn, splay


def times(schedule: Schedule, until_s: float) -> list[tuple[int, float]]:
    """(place, when) of all that is due until then, when somebody looks at every due moment."""
    found = []
    while (next_s := schedule.next_s()) is not None and next_s < until_s:
        found += [(due.place, round(due.due_s, 6)) for due in schedule.due(next_s)]
    return found


def test_a_probe_keeps_its_place_in_the_period_over_a_restart() -> None:
    # Periods begin where the wall clock is a multiple of 10 s; half of one is 5 s.
    first = Schedule([Timing(10, 0.5)], now_s=100, wall_s=1_000)
    assert times(first, 130) == [(0, 105), (0, 115), (0, 125)]
    restarted = Schedule([Timing(10, 0.5)], now_s=7, wall_s=1_003)
    assert times(restarted, 30) == [(0, 9), (0, 19), (0, 29)]


def test_no_probe_waits_longer_than_its_period_for_its_first_run() -> None:
    timings = [Timing(7, splay("node", f"probe-{number}")) for number in range(200)]
    schedule = Schedule(timings, now_s=50, wall_s=12_345.678)
    assert {place for place, _ in times(schedule, 57)} == set(range(200))


def test_probes_of_one_node_are_spread_over_the_period_and_so_is_one_probe_over_many_nodes() -> None:
    for splays in (
        [splay("node-1", f"probe-{number}") for number in range(10_000)],
        [splay(f"node-{number}", "probe-1") for number in range(10_000)],
    ):
        tenths = [sum(int(at * 10) == tenth for at in splays) for tenth in range(10)]
        assert min(tenths) > 900, tenths
        assert max(tenths) < 1_100, tenths


def test_the_splay_of_a_probe_is_the_same_in_every_process_for_ever() -> None:
    assert splay("node-1", "probe-1") == pytest.approx(SPLAY_OF_NODE_1)
    assert splay("node-1", "probe-1") != splay("node-11", "probe-")


SPLAY_OF_NODE_1 = 0.841357348692582


def test_whoever_looks_too_late_gets_one_run_and_the_number_of_those_missed() -> None:
    schedule = Schedule([Timing(10, 0.0)], now_s=0, wall_s=0)
    assert schedule.due(0) == [Due(0, 0, 0)]
    assert schedule.due(9) == []
    assert schedule.due(35) == [Due(0, 30, 2)]
    assert schedule.next_s() == 40


@given(
    every_s=st.floats(0.1, 86_400),
    share=st.floats(0, 1, exclude_max=True),
    looks=st.lists(st.floats(0, 1e6), max_size=30),
)
def test_every_period_is_either_run_or_missed(every_s: float, share: float, looks: list[float]) -> None:
    schedule = Schedule([Timing(every_s, share)], now_s=0, wall_s=1_700_000_000)
    counted = 0
    for now_s in sorted(looks):
        for due in schedule.due(now_s):
            counted += 1 + due.missed
            assert due.due_s <= now_s
    next_s = schedule.next_s()
    assert next_s is not None
    first_s = Schedule([Timing(every_s, share)], now_s=0, wall_s=1_700_000_000).next_s()
    assert first_s is not None
    assert abs((next_s - first_s) / every_s - counted) < 0.01


def test_nothing_to_probe_is_never_due() -> None:
    schedule = Schedule([], now_s=0, wall_s=0)
    assert schedule.next_s() is None
    assert schedule.due(1e9) == []


def test_a_probe_that_waits_or_runs_is_not_lined_up_again() -> None:
    lineup = Lineup(limit=10)
    assert lineup.offer(Turn(3, 0)) is None
    assert lineup.offer(Turn(3, 10)) is Skip.RUNNING
    assert lineup.take() == Turn(3, 0)
    assert (lineup.waiting, lineup.running) == (0, 1)
    assert lineup.offer(Turn(3, 20)) is Skip.RUNNING
    lineup.finish(3)
    assert lineup.offer(Turn(3, 30)) is None


def test_a_full_line_takes_no_more_and_the_first_come_are_the_first_served() -> None:
    lineup = Lineup(limit=2)
    assert [lineup.offer(Turn(place, 0)) for place in (7, 8, 9)] == [None, None, Skip.QUEUE_FULL]
    assert lineup.take().place == 7
    assert lineup.offer(Turn(9, 0)) is None
    assert [lineup.take().place, lineup.take().place] == [8, 9]
