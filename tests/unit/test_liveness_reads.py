"""What a table says: what is announced and when, lists, counts, and zones for the outage guard."""

from unittest import mock

import pytest

from streams.core.liveness import columns
from streams.core.liveness.admission import Limits
from streams.core.liveness.reads import CHANGES, NodeQuery
from streams.core.liveness.table import NodeTable
from streams.core.liveness.zones import Zone
from tests.unit.liveness_world import START_MS, WEEK_MS, Beat, fold, frame

ALL = 1_000


def table_of(*beats: Beat) -> NodeTable:
    table = NodeTable(Limits(1_000, 1_000), seed=1)
    fold(table, beats)
    return table


def later(table: NodeTable, *beats: Beat) -> None:
    fold(table, beats, table.applied + 1)


def told(
    table: NodeTable, second: float, held: frozenset[Zone] = frozenset(), limit: int = ALL
) -> list[tuple[str, str, str | None, str]]:
    rows = table.judge(START_MS + int(second * 1_000), held, limit).sort("node_id")
    return rows.select("node_id", "state", "previous", "reason").rows()


def test_each_change_is_announced_once() -> None:
    table = table_of(Beat("n"))
    assert told(table, 0) == [("n", "UP", None, "new-node")]
    assert told(table, 1) == []
    assert told(table, 6) == [("n", "LATE", "UP", "missed-heartbeats")]
    assert told(table, 7) == []
    assert told(table, 12) == [("n", "SUSPECT", "LATE", "missed-heartbeats")]
    assert told(table, 16) == [("n", "DOWN", "SUSPECT", "missed-heartbeats")]
    assert told(table, 9_999) == []
    later(table, Beat("n", START_MS + 10_000_000, seq=1, heartbeat_seq=1))
    assert told(table, 10_000) == [("n", "UP", "DOWN", "heartbeat")]
    later(table, Beat("n", START_MS + 10_001_000, seq=2, heartbeat_seq=2, state="GOODBYE"))
    assert told(table, 10_001) == [("n", "GONE", "UP", "goodbye")]
    later(table, Beat("n", START_MS + 10_060_000, boot_ts=2))
    assert told(table, 10_060) == [("n", "UP", "GONE", "new-boot")]


def test_a_change_carries_what_consumers_need() -> None:
    table = table_of(Beat("n", boot_ts=77, zone="eu-b", interval_ms=2_000))
    rows = table.judge(START_MS + 8_000, (), ALL)
    assert rows.schema == CHANGES
    assert rows.rows(named=True) == [
        {
            "node_id": "n",
            "state": "DOWN",
            "previous": None,
            "reason": "missed-heartbeats",
            "since_ms": START_MS + 7_000,
            "last_seen_ms": START_MS,
            "region": "eu",
            "zone": "eu-b",
            "boot_ts": 77,
            "interval_ms": 2_000,
        }
    ]


def test_a_restart_is_announced_though_the_node_was_never_missing() -> None:
    table = table_of(Beat("n"))
    told(table, 0)
    later(table, Beat("n", START_MS + 2_000, boot_ts=2))
    assert told(table, 2) == [("n", "UP", "UP", "new-boot")]


def test_a_silence_that_nobody_saw_is_announced_by_the_return() -> None:
    """As after a pause of the worker: consumers may have heard of it from the owner before."""
    table = table_of(Beat("n"))
    told(table, 0)
    later(table, Beat("n", START_MS + 60_000, seq=1, heartbeat_seq=1))
    assert told(table, 60) == [("n", "UP", "UP", "heartbeat")]


def test_the_worst_is_announced_first_and_the_rest_later() -> None:
    table = table_of(Beat("down"), Beat("known", START_MS + 15_000))
    told(table, 15)
    later(table, Beat("new", START_MS + 16_000), Beat("known", START_MS + 16_000, boot_ts=2))
    assert told(table, 16, limit=0) == []
    assert [told(table, 16, limit=1)[0][0] for _ in range(3)] == ["down", "known", "new"]
    assert told(table, 16, limit=1) == []


def test_in_a_held_zone_nobody_is_announced_as_missing_until_it_is_let_go() -> None:
    there: frozenset[Zone] = frozenset({("eu", "eu-a"), ("xx", "never heard of")})
    table = table_of(Beat("held"), Beat("other", zone="eu-b"), Beat("leaves", state="GOODBYE"), Beat("back"))
    assert told(table, 0, there) == [
        ("back", "UP", None, "new-node"),
        ("held", "UP", None, "new-node"),
        ("leaves", "GONE", None, "goodbye"),
        ("other", "UP", None, "new-node"),
    ]
    assert told(table, 20, there) == [("other", "DOWN", "UP", "missed-heartbeats")]
    later(table, Beat("back", START_MS + 21_000, seq=1, heartbeat_seq=1))
    assert told(table, 21, there) == [("back", "UP", "UP", "heartbeat")]
    assert told(table, 22) == [("held", "DOWN", "UP", "missed-heartbeats")]


def test_nothing_is_taken_back_at_a_time_before_it_was_announced() -> None:
    table = table_of(Beat("n"))
    told(table, 0)
    told(table, 16)
    snapshot = table.snapshot(9)
    again = NodeTable(Limits(9, 9), seed=2)
    again.restore([page.rows for page in snapshot.pages], snapshot.position)
    assert told(again, 3) == []
    assert told(again, 16) == []
    later(again, Beat("n", START_MS + 17_000, seq=1, heartbeat_seq=1))
    assert told(again, 17) == [("n", "UP", "DOWN", "heartbeat")]


# Lists and counts -----------------------------------------------------------------------------------------------------

FLEET = table_of(
    *(Beat(name, START_MS, zone="eu-a") for name in ("b", "a", "d")),
    Beat("c", START_MS, region="us", zone="eu-a"),
    Beat("e", START_MS, zone="eu-b", state="GOODBYE"),
    Beat("f", START_MS + 8_000, zone="eu-b"),
    Beat("d", START_MS + 8_000, seq=4, heartbeat_seq=4),
)
QUERIES: dict[str, tuple[NodeQuery, str]] = {
    "all, in order": (NodeQuery(9), "abcdef"),
    "the first": (NodeQuery(2), "ab"),
    "those behind": (NodeQuery(2, after="b"), "cd"),
    "behind an id that is not there": (NodeQuery(9, after="cc"), "def"),
    "none behind the last": (NodeQuery(9, after="f"), ""),
    "of a state": (NodeQuery(9, state="LATE"), "abc"),
    "that are up": (NodeQuery(9, state="UP"), "df"),
    "that are gone": (NodeQuery(9, state="GONE"), "e"),
    "of a zone": (NodeQuery(9, zone="eu-b"), "ef"),
    "of a zone name in two regions": (NodeQuery(9, zone="eu-a"), "abcd"),
    "of a region": (NodeQuery(9, region="us"), "c"),
    "of a zone in a region": (NodeQuery(9, region="eu", zone="eu-a"), "abd"),
    "of a zone that is not there": (NodeQuery(9, zone="mars"), ""),
    "all at once": (NodeQuery(1, state="LATE", zone="eu-a", region="eu", after="a"), "b"),
}


@pytest.mark.parametrize(("query", "ids"), QUERIES.values(), ids=QUERIES.keys())
def test_nodes_are_listed_by_id(query: NodeQuery, ids: str) -> None:
    assert "".join(FLEET.select(query, START_MS + 8_000)) == ids


def test_nodes_are_described_in_the_order_asked_without_the_unknown() -> None:
    ids = FLEET.select(NodeQuery(9), START_MS).filter([True, False, False, False, True, False])
    nodes = FLEET.describe(ids.reverse().append(ids.clear()).extend_constant("nobody", 1), START_MS + 8_000)
    assert [(node.node_id, node.state, node.reported) for node in nodes] == [
        ("e", "GONE", "GOODBYE"),
        ("a", "LATE", "UP"),
    ]


def test_the_fleet_is_counted_by_state_and_zone() -> None:
    counts = FLEET.counts(START_MS + 8_000)
    assert counts.states == {"UP": 2, "LATE": 3, "SUSPECT": 0, "DOWN": 0, "GONE": 1}
    assert counts.zones.select("region", "zone", "UP", "LATE", "GONE").rows() == [
        ("eu", "eu-a", 1, 2, 0),
        ("eu", "eu-b", 1, 0, 1),
        ("us", "eu-a", 0, 1, 0),
    ]
    assert (counts.heartbeats, counts.lost, counts.restarts, counts.refused) == (7, 3, 0, 0)


def test_nodes_that_have_left_are_in_no_answer() -> None:
    now_ms = START_MS + 2 * WEEK_MS
    table = table_of(*(Beat(f"n{i}") for i in range(20)))
    later(table, Beat("last", now_ms))
    assert table.counts(now_ms).zones.select("zone", "UP").rows() == [("eu-a", 1)]
    assert table.counts(now_ms).heartbeats == 1
    assert table.select(NodeQuery(9), now_ms).to_list() == ["last"]
    assert table.zone_counts(now_ms).rows() == [("eu", "eu-a", 1, 0, now_ms)]
    assert table.judge(now_ms, (), ALL)["node_id"].to_list() == ["last"]


# seconds → expected and missing of a zone with "quick" (5 s) and "slow" (60 s), all silent from 0 s on.
EXPECTED: dict[str, tuple[float, tuple[int, int]]] = {
    "all are expected": (0, (2, 0)),
    "late is not yet missing": (6, (2, 0)),
    "suspect is": (11, (2, 1)),
    "so is who went down just now": (16, (2, 1)),
    "and for a minute more": (75.9, (2, 1)),
    "then nobody expects it": (76, (1, 0)),
}


@pytest.mark.parametrize(("second", "counts"), EXPECTED.values(), ids=EXPECTED.keys())
def test_the_guard_hears_who_is_expected_and_who_is_missing(second: float, counts: tuple[int, int]) -> None:
    table = table_of(Beat("quick"), Beat("slow", interval_ms=60_000), Beat("gone", state="GOODBYE"))
    told(table, second)
    assert table.zone_counts(START_MS + int(second * 1_000)).rows() == [("eu", "eu-a", *counts, START_MS)]


def test_who_was_never_announced_as_down_is_still_missing() -> None:
    """In an outage they are held back: as long as they are, they belong to it."""
    table = table_of(Beat("n"))
    assert table.zone_counts(START_MS + WEEK_MS).rows() == [("eu", "eu-a", 1, 1, START_MS)]


def test_an_empty_table_has_answers_too() -> None:
    table = NodeTable(Limits(9, 9), seed=1)
    table.fold(frame([]), -1)
    assert table.judge(0, (), ALL).schema == CHANGES
    assert table.counts(0).states == dict.fromkeys(("UP", "LATE", "SUSPECT", "DOWN", "GONE"), 0)
    assert table.select(NodeQuery(9, zone="z"), 0).to_list() == []
    assert (table.zone_counts(0).height, table.snapshot(9).pages) == (0, ())


def test_a_node_that_lies_about_its_zone_each_time_fills_no_memory() -> None:
    with mock.patch.object(columns, "PAGE_NODES", 4):
        table = table_of(Beat("n"), Beat("true", zone="eu-b"))
        for seq in range(1, 40):
            later(table, Beat("n", seq=seq, zone=f"lie-{seq}"))
            assert len(table._columns.places) <= 10
            assert table.counts(START_MS).zones["zone"].to_list() == ["eu-b", f"lie-{seq}"]
