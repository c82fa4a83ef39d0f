"""What heartbeats add up to: counts, loss, restarts, and which of them are news."""

from dataclasses import replace

import pytest

from streams.core.liveness.admission import Limits
from streams.core.liveness.reads import Node, NodeQuery
from streams.core.liveness.table import Folded, NodeTable
from tests.unit.liveness_world import START_MS, Beat, fold, frame, rows_of

PLENTY = Limits(1_000, 1_000)
NODE = Beat("n")


def at(seq: int, number: int | None = None, boot: int = 1, state: str = "UP") -> Beat:
    """A heartbeat of the one node; `number` (heartbeat_seq) is `seq` unless given."""
    return replace(NODE, seq=seq, heartbeat_seq=seq if number is None else number, boot_ts=boot, state=state)


def uncounted(seq: int, boot: int = 1) -> Beat:
    return replace(NODE, seq=seq, heartbeat_seq=None, boot_ts=boot)


# Heartbeats of one node → (heartbeats, lost, restarts, ignored).
LOGS: dict[str, tuple[list[Beat], tuple[int, int, int, int]]] = {
    "one is one": ([at(0)], (1, 0, 0, 0)),
    "in a row nothing is lost": ([at(0), at(1), at(2)], (3, 0, 0, 0)),
    "a gap is loss": ([at(0), at(4)], (2, 3, 0, 0)),
    "records of other topics between them are none": ([at(0, 0), at(9, 1)], (2, 0, 0, 0)),
    "what was before the first that we see is not ours to count": ([at(700)], (1, 0, 0, 0)),
    "a repeat is ignored": ([at(0), at(1), at(1)], (2, 0, 0, 1)),
    "an older one is ignored and proves nothing": ([at(0), at(5), at(3), at(6)], (3, 4, 0, 1)),
    "after an older one the newest counts on": ([at(4), at(0), at(1), at(2), at(5)], (2, 0, 0, 3)),
    "a newer boot is a restart": ([at(0), at(1), at(0, boot=2)], (3, 0, 1, 0)),
    "a boot counts from 0: what is missing there is lost": ([at(0), at(2, boot=2)], (2, 2, 1, 0)),
    "an older boot is ignored": ([at(0, boot=2), at(9, boot=1), at(1, boot=2)], (2, 0, 0, 1)),
    "two restarts in one batch": ([at(7), at(0, boot=2), at(0, boot=3)], (3, 0, 2, 0)),
    "heartbeats that are not counted lose nothing": ([uncounted(0), uncounted(9)], (2, 0, 0, 0)),
    "nor does one among others": ([at(0), uncounted(5), at(9)], (3, 0, 0, 0)),
    "an uncounted boot loses nothing either": ([at(0), uncounted(5, boot=2)], (2, 0, 1, 0)),
    "a number that goes back is no gap": ([at(0, 5), at(1, 2), at(2, 3)], (3, 0, 0, 0)),
    "a goodbye is a heartbeat": ([at(0), at(1, state="GOODBYE")], (2, 0, 0, 0)),
    "a forged number counts for 2³¹ − 1 at most": ([at(0), at((1 << 63) - 1)], (2, (1 << 31) - 1, 0, 0)),
}


@pytest.mark.parametrize("batches", ["one", "each"])
@pytest.mark.parametrize(("log", "counts"), LOGS.values(), ids=LOGS.keys())
def test_heartbeats_of_a_node_add_up(log: list[Beat], counts: tuple[int, int, int, int], batches: str) -> None:
    table = NodeTable(PLENTY, seed=1)
    folded = [fold(table, log)] if batches == "one" else [fold(table, [beat], i) for i, beat in enumerate(log)]
    row = rows_of(table)["n"]
    heartbeats, lost, restarts, ignored = counts
    assert (row["heartbeats"], row["lost"], row["restarts"]) == (heartbeats, lost, restarts)
    assert sum(one.ignored for one in folded) == ignored
    assert sum(one.heartbeats for one in folded) == heartbeats
    assert (sum(one.lost for one in folded), sum(one.restarts for one in folded)) == (lost, restarts)


def test_a_batch_counts_each_record_once_though_it_holds_it_twice_and_in_disorder() -> None:
    table = NodeTable(PLENTY, seed=1)
    log = list(enumerate([at(0), at(1), at(4)]))
    table.fold(frame([*log[1:], *log, log[2]]), 2)
    row = rows_of(table)["n"]
    assert (row["heartbeats"], row["lost"]) == (3, 2)


def test_what_was_applied_is_not_counted_again() -> None:
    table = NodeTable(PLENTY, seed=1)
    fold(table, [at(0), at(1)])
    assert fold(table, [at(0), at(1)]) == Folded()
    assert fold(table, [at(1), at(2)], first=1).heartbeats == 1


def test_records_that_cannot_be_read_are_passed() -> None:
    table = NodeTable(PLENTY, seed=1)
    fold(table, [at(0)])
    table.fold(frame([]), 7)
    assert (table.applied, table.snapshot(0).position.decided_offset) == (7, 7)


def test_the_last_heartbeat_is_what_is_known_of_a_node() -> None:
    table = NodeTable(PLENTY, seed=1)
    first = replace(NODE, append_ms=START_MS + 100)
    last = replace(
        NODE, append_ms=START_MS + 5_100, seq=3, heartbeat_seq=1, state="DRAINING", zone="eu-b", interval_ms=9
    )
    fold(table, [first, last, replace(NODE, append_ms=START_MS + 9_000, zone="older")])
    assert one(table, START_MS + 5_200) == Node(
        node_id="n",
        region="eu",
        zone="eu-b",
        agent_version="1",
        state="UP",
        since_ms=START_MS + 100,
        reported="DRAINING",
        interval_ms=9,
        first_seen_ms=START_MS + 100,
        last_seen_ms=START_MS + 5_100,
        skew_ms=7,
        boot_id="boot-1-of-n",
        boot_ts=1,
        seq=3,
        heartbeat_seq=1,
        health=5,
        cpu_permille=5,
        memory_permille=5,
        disk_permille=5,
        spooled=5,
        dropped=5,
        heartbeats=2,
        lost=0,
        restarts=0,
        last_offset=2,
    )


def one(table: NodeTable, now_ms: int) -> Node:
    (node,) = table.describe(table.select(NodeQuery(2), now_ms), now_ms)
    return node


# Seconds of append, and the beat → since when (in s) the node is up, seen a second after the last one.
RETURNS: dict[str, tuple[list[tuple[int, Beat]], int]] = {
    "up since the first heartbeat": ([(0, at(0)), (5, at(1)), (10, at(2))], 0),
    "a silence that made it late ends with the heartbeat": ([(0, at(0)), (6, at(1)), (8, at(2))], 6),
    "one that did not, ends nothing": ([(0, at(0)), (5, at(1))], 0),
    "a restart begins anew": ([(0, at(0)), (2, at(0, boot=2)), (4, at(1, boot=2))], 2),
    "so does a heartbeat after a goodbye": ([(0, at(0)), (1, at(1, state="GOODBYE")), (3, at(2))], 3),
    "of two silences the last counts": ([(0, at(0)), (9, at(1)), (30, at(2)), (31, at(3))], 30),
    "an ignored heartbeat ends no silence": ([(0, at(3)), (9, at(1)), (10, at(4))], 10),
    "append times that run backwards are no silence": ([(9, at(0)), (0, at(1)), (12, at(2))], 9),
}


@pytest.mark.parametrize("batches", ["one", "each"])
@pytest.mark.parametrize(("log", "since_s"), RETURNS.values(), ids=RETURNS.keys())
def test_a_node_is_up_since_it_was_last_found_missing(log: list[tuple[int, Beat]], since_s: int, batches: str) -> None:
    table = NodeTable(PLENTY, seed=1)
    beats = [replace(beat, append_ms=START_MS + 1_000 * second) for second, beat in log]
    if batches == "one":
        fold(table, beats)
    else:
        for offset, beat in enumerate(beats):
            fold(table, [beat], offset)
    node = one(table, table.frontier_ms + 1_000)
    assert (node.state, node.since_ms) == ("UP", START_MS + 1_000 * since_s)
