"""Which nodes are known: new ones are taken within bounds, silent ones leave."""

from dataclasses import replace

import pytest

from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from tests.unit.liveness_world import HOUR_MS, START_MS, WEEK_MS, Beat, fold, rows_of

PLENTY = Limits(1_000, 1_000)


def arrivals(*nodes: tuple[float, str]) -> list[Beat]:
    """First and only heartbeats: minute of append and name."""
    start = START_MS // 60_000 * 60_000
    return [Beat(name, start + int(minute * 60_000), seq=i) for i, (minute, name) in enumerate(nodes)]


ARRIVALS: dict[str, tuple[Limits, list[Beat], str, int]] = {
    "as many as may": (Limits(9, 2), arrivals((0, "a"), (0.5, "b")), "ab", 0),
    "the third of a minute has to wait": (Limits(9, 2), arrivals((0, "a"), (0, "b"), (0.9, "c")), "ab", 1),
    "the next minute takes it": (Limits(9, 2), arrivals((0, "a"), (0, "b"), (0.9, "c"), (1, "c")), "abc", 1),
    "a known node may always speak": (Limits(9, 1), arrivals((0, "a"), (0, "b"), (0.1, "a")), "a", 1),
    "each heartbeat of a refused node counts": (Limits(9, 1), arrivals((0, "a"), (0, "b"), (0, "b"), (0, "c")), "a", 3),
    "no more than there may be": (Limits(2, 9), arrivals((0, "a"), (1, "b"), (2, "c"), (9, "c")), "ab", 2),
    "none at all": (Limits(0, 9), arrivals((0, "a")), "", 1),
}


@pytest.mark.parametrize("batches", ["one", "each"])
@pytest.mark.parametrize(("limits", "log", "taken", "refused"), ARRIVALS.values(), ids=ARRIVALS.keys())
def test_new_nodes_are_bounded(limits: Limits, log: list[Beat], taken: str, refused: int, batches: str) -> None:
    table = NodeTable(limits, seed=1)
    folded = [fold(table, log)] if batches == "one" else [fold(table, [beat], i) for i, beat in enumerate(log)]
    assert "".join(sorted(rows_of(table))) == taken
    assert sum(one.refused for one in folded) == table.counts(0).refused == refused
    assert sum(one.new_nodes for one in folded) == len(taken)


def test_a_forged_crowd_does_not_disturb_the_true_nodes() -> None:
    table = NodeTable(Limits(100, 50), seed=1)
    true = [Beat(f"true-{i}") for i in range(10)]
    forged = [Beat(f"forged-{i}", START_MS + 1_000) for i in range(5_000)]
    fold(table, true)
    folded = fold(table, [*forged, *(replace(b, seq=1, heartbeat_seq=1, append_ms=START_MS + 2_000) for b in true)], 10)
    assert (folded.new_nodes, folded.refused, folded.heartbeats) == (40, 4_960, 50)
    assert {rows_of(table)[f"true-{i}"]["heartbeats"] for i in range(10)} == {2}


LONG_AFTER = START_MS + WEEK_MS + 2 * HOUR_MS


def test_a_node_silent_for_a_week_leaves_and_its_slot_is_used_again() -> None:
    table = NodeTable(Limits(2, 9), seed=1)
    fold(table, [Beat("old"), Beat("talks")])
    talks = [replace(Beat("talks"), append_ms=START_MS + WEEK_MS, seq=1, heartbeat_seq=1)]
    assert fold(table, talks, 2).left == 0
    folded = fold(table, [Beat("new", LONG_AFTER)], 3)
    assert (folded.left, folded.new_nodes) == (1, 1)
    assert (sorted(rows_of(table)), table._columns.size) == (["new", "talks"], 2)
    assert table.snapshot(9).left.to_list() == ["old"]
    assert table.snapshot(9).left.to_list() == []


def test_a_node_that_has_left_begins_anew() -> None:
    table = NodeTable(PLENTY, seed=1)
    fold(table, [Beat("n"), Beat("n", seq=5, heartbeat_seq=5), Beat("n", LONG_AFTER, seq=6, heartbeat_seq=6)])
    row = rows_of(table)["n"]
    assert (row["heartbeats"], row["lost"], row["first_offset"]) == (1, 0, 2)
    assert table.snapshot(9).left.to_list() == []  # no tombstone for a node that is there


def test_a_slot_that_is_used_again_tells_nothing_of_the_node_before() -> None:
    table = NodeTable(PLENTY, seed=1)
    fold(table, [Beat("old"), Beat("old", boot_ts=5, seq=9, heartbeat_seq=9)])
    fold(table, [Beat("new", LONG_AFTER)], 2)
    fresh = NodeTable(PLENTY, seed=1)
    fold(fresh, [Beat("new", LONG_AFTER)], 2)
    assert rows_of(table) == rows_of(fresh)


def test_other_bounds_hold_for_new_nodes_from_then_on_and_no_known_one_goes() -> None:
    table = NodeTable(Limits(2, 9), seed=1)
    later = START_MS + HOUR_MS
    assert fold(table, [Beat("a"), Beat("b"), Beat("c")]).refused == 1
    table.bound(Limits(1, 9))
    assert fold(table, [Beat("a", later, seq=1, heartbeat_seq=1), Beat("c", later)], 3).refused == 1
    assert "".join(sorted(rows_of(table))) == "ab"
    table.bound(Limits(3, 9))
    assert fold(table, [Beat("c", later), Beat("d", later)], 5).refused == 1
    assert "".join(sorted(rows_of(table))) == "abc"
