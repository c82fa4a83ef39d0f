"""The oracle for liveness on small scenes made here: it agrees with a good platform and sees each way to be wrong."""

from dataclasses import replace

import numpy as np
import pytest

from infra.oracle.judge import Verdict
from infra.oracle.ledger import Beats
from infra.oracle.outages import above, expected_outages, judge_outages
from infra.oracle.sightings import judge_sightings
from infra.oracle.silences import STILL_SILENT, Silence, append_times, silences
from infra.oracle.sources import Counts, NodeView, StateRow
from infra.oracle.tallies import compare_nodes, compare_totals, exact
from infra.oracle.watch import Look, Watched

INTERVAL_MS = 2_000
T0 = 1_800_000_000_000
ZONE = ("eu-1", "eu-1a")
# A node falls silent at 10 s and is back at 30 s: DOWN is due at 17 s and must be shown by 18 s.
PAUSE = Silence("n1", ZONE, T0 + 10_000, T0 + 30_000, goodbye=False)
GOODBYE = replace(PAUSE, goodbye=True)


def beats_of(rows: list[tuple[int, int, int, bool]], nodes: int = 2) -> Beats:
    """Rows are (node, boot, heartbeat_seq, goodbye)."""
    node, boot, number, goodbye = zip(*rows, strict=True) if rows else ((),) * 4
    return Beats(
        node=np.array(node, np.int64),
        boot=np.array(boot, np.int64),
        number=np.array(number, np.int64),
        goodbye=np.array(goodbye, np.bool_),
        ids=[b"n%d\tb%d\t%d" % row[:3] for row in rows],
        node_ids=tuple(f"n{index}" for index in range(nodes)),
        zones=(ZONE,) * nodes,
        interval_ms=INTERVAL_MS,
    )


def looks(shown: dict[str, tuple[float, float]], *, gone: bool = False, stale_ms: int = 0) -> list[Look]:
    """Looks over a minute; each node is shown as DOWN (or GONE) from one second to before another."""
    found = []
    for number in range(120):
        second = number / 2
        nodes = frozenset(node for node, (begin, end) in shown.items() if begin <= second < end)
        begun_ms = T0 + round(second * 1_000)
        down, left = (frozenset[str](), nodes) if gone else (nodes, frozenset[str]())
        found.append(Look(begun_ms, begun_ms + 20, begun_ms - stale_ms, down, left, frozenset()))
    return found


def sighted(found: list[Silence], seen: list[Look], guest: str | None = None) -> Verdict:
    verdict = Verdict()
    judge_sightings(verdict, found, Watched(beats_of([]), seen, guest))
    return verdict


def test_a_node_shown_as_down_in_time_and_until_it_is_back_is_right() -> None:
    verdict = sighted([PAUSE], looks({"n1": (17, 30)}))
    assert verdict.differences == 0, verdict.mismatches
    assert (verdict.nodes_down_seen, verdict.false_downs) == (1, 0)
    assert (verdict.down_latest_ms, verdict.stalest_look_ms) == (7_000, 0)


def test_a_node_that_is_away_for_good_is_down_for_good() -> None:
    verdict = sighted([replace(PAUSE, to_ms=STILL_SILENT)], looks({"n1": (17, 60)}))
    assert (verdict.differences, verdict.nodes_down_seen) == (0, 1)


@pytest.mark.parametrize("shown", [{}, {"n1": (18.5, 30.0)}, {"n1": (17.0, 25.0)}, {"n2": (17.0, 30.0)}])
def test_a_silent_node_that_is_not_shown_as_down_is_found(shown: dict[str, tuple[float, float]]) -> None:
    verdict = sighted([PAUSE], looks(shown))
    assert "nodes down" in verdict.failed_checks
    assert any("n1 was not DOWN" in sentence for sentence in verdict.mismatches)


def test_a_node_is_named_with_how_late_it_was() -> None:
    verdict = sighted([PAUSE], looks({"n1": (18.5, 30)}))
    told = "nodes down: n1 was not DOWN 7000 ms after its last heartbeat; expected it after 7000 ms"
    assert verdict.mismatches == [told]


def test_an_answer_may_be_as_old_as_it_says_but_not_much_older_than_the_log() -> None:
    stale = sighted([PAUSE], looks({"n1": (20, 33)}, stale_ms=3_000))
    assert stale.differences == 0, stale.mismatches
    assert (stale.down_latest_ms, stale.stalest_look_ms) == (10_000, 3_000)
    outdated = sighted([PAUSE], looks({"n1": (48, 61)}, stale_ms=31_000))
    assert outdated.mismatches == [
        "looks: the views were 31000 ms behind Kafka; expected at most 30000 ms, and 1000 ms on a quiet machine"
    ]


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ({"n1": (15.0, 30.0)}, "n1 was shown as DOWN; its last pause began with a heartbeat at"),
        ({"n1": (17.0, 33.0)}, "n1 was shown as DOWN; its last pause began"),
        ({"n1": (17.0, 30.0), "n2": (20.0, 21.0)}, "n2 was shown as DOWN; the ledger has no pause of it"),
    ],
)
def test_a_node_shown_as_down_without_three_missed_intervals_is_found(
    shown: dict[str, tuple[float, float]], sentence: str
) -> None:
    verdict = sighted([PAUSE], looks(shown))
    assert verdict.failed_checks == {"false downs"}
    assert verdict.false_downs == 1
    assert any(sentence in each for each in verdict.mismatches)


def test_a_pause_that_was_too_short_for_down_explains_nothing() -> None:
    short = replace(PAUSE, to_ms=PAUSE.from_ms + 5_000)
    assert sighted([short], looks({})).differences == 0
    assert sighted([short], looks({"n1": (15.5, 16)})).false_downs == 1


def test_what_the_views_say_about_the_guest_is_not_judged() -> None:
    assert sighted([], looks({"local-me": (20, 30)}), guest="local-me").differences == 0


def test_after_a_goodbye_a_node_is_gone_and_not_down() -> None:
    right = sighted([GOODBYE], looks({"n1": (10.5, 30)}, gone=True))
    assert (right.differences, right.nodes_gone_seen, right.nodes_down_seen) == (0, 1, 0)
    as_down = sighted([GOODBYE], looks({"n1": (17, 30)}))
    assert {"nodes gone", "false downs"} <= as_down.failed_checks
    silent_only = sighted([PAUSE], looks({"n1": (17, 30)}, gone=True))
    assert {"nodes down", "false gones"} <= silent_only.failed_checks


def test_no_looks_and_a_gap_between_looks_are_no_agreement() -> None:
    assert sighted([PAUSE], []).failed_checks == {"looks"}
    long = replace(PAUSE, to_ms=T0 + 55_000)
    gap = [one for one in looks({"n1": (17, 55)}) if not T0 + 17_000 <= one.begun_ms < T0 + 55_000]
    assert any("nobody looked at n1" in sentence for sentence in sighted([long], gap).mismatches)


def test_silences_are_by_append_time_and_in_the_order_of_boots_and_numbers() -> None:
    beats = beats_of([(0, 0, 0, False), (1, 1, 0, False), (0, 0, 1, False), (1, 1, 1, True), (0, 2, 0, False)])
    seconds = np.array([0, 1, 2, 3, 9], np.int64)
    found = silences(beats, T0 + seconds * 1_000)
    assert found == [
        Silence("n0", ZONE, T0 + 2_000, T0 + 9_000, goodbye=False),
        Silence("n1", ZONE, T0 + 3_000, STILL_SILENT, goodbye=True),
        Silence("n0", ZONE, T0 + 9_000, STILL_SILENT, goodbye=False),
    ]
    assert silences(beats_of([]), np.empty(0, np.int64)) == []


def test_append_times_are_those_of_sql_and_all_must_be_there() -> None:
    beats = beats_of([(0, 0, 0, False), (0, 0, 1, False)])
    lines = [b"n0\tb0\t1\t200", b"n9\tb9\t0\t1", b"n0\tb0\t0\t100"]
    times = append_times(beats, lines)
    assert times is not None
    assert times.tolist() == [100, 200]
    assert append_times(beats, lines[1:]) is None


# Forty of a hundred nodes fall silent within an interval, at 20 s, and are back at 34 s.
ZONE_NODES = 100
LOST = [
    Silence(f"n{index}", ZONE, T0 + 18_000 + 50 * index, T0 + 34_000 + 10 * index, goodbye=False) for index in range(40)
]
END = [Silence(f"n{index}", ZONE, T0 + 59_000 + index, STILL_SILENT, goodbye=False) for index in range(ZONE_NODES)]
BEGUN, ENDED = (
    StateRow("zone:eu-1/eu-1a", "ZONE", state, ZONE, T0, T0 + at_ms)
    for state, at_ms in (("OUTAGE", 24_300), ("OK", 35_000))
)
FIRST = replace(BEGUN, state="OK", received_ms=T0 + 1_000)


def judged(rows: list[StateRow], outage_s: tuple[float, float], found: list[Silence] | None = None) -> Verdict:
    seen = [
        replace(one, outages=frozenset({ZONE} if outage_s[0] <= (one.begun_ms - T0) / 1_000 < outage_s[1] else ()))
        for one in looks({})
    ]
    verdict = Verdict()
    watched = Watched(beats_of([], nodes=ZONE_NODES), seen, None)
    judge_outages(verdict, (LOST if found is None else found) + END, watched, rows)
    return verdict


def alarm(of: Silence, at_s: float) -> StateRow:
    return StateRow(of.node_id, "NODE", "DOWN", of.zone, of.from_ms, T0 + round(at_s * 1_000))


def test_forty_of_a_hundred_nodes_are_one_outage() -> None:
    verdict = judged([FIRST, BEGUN, ENDED], (24.5, 35))
    assert verdict.differences == 0, verdict.mismatches
    assert (verdict.outages, verdict.zones_unclear, verdict.alarms) == (1, 0, 0)


@pytest.mark.parametrize(
    ("rows", "outage_s", "sentence"),
    [
        ([FIRST], (24.5, 35.0), "0 outages in node_states; expected 1"),
        ([FIRST, BEGUN, ENDED], (0.0, 0.0), "0 outages in /fleet; expected 1"),
        (
            [BEGUN, ENDED, replace(BEGUN, received_ms=T0 + 36_000)],
            (24.5, 35.0),
            "2 outages in node_states; expected 1",
        ),
        ([BEGUN, ENDED, alarm(LOST[3], 26)], (24.5, 35.0), "n3 was announced as DOWN while eu-1/eu-1a was lost"),
    ],
)
def test_an_outage_missed_doubled_or_beside_alarms_is_found(
    rows: list[StateRow], outage_s: tuple[float, float], sentence: str
) -> None:
    verdict = judged(rows, outage_s)
    assert any(sentence in each for each in verdict.mismatches), verdict.mismatches


def test_an_outage_without_a_loss_is_found() -> None:
    verdict = judged([BEGUN, ENDED], (24.5, 35), found=[])
    assert [each for each in verdict.mismatches if "expected 0" in each] == [
        "outages: eu-1/eu-1a: 1 outages in node_states; expected 0",
        "outages: eu-1/eu-1a: 1 outages in /fleet; expected 0",
    ]


def test_nodes_that_die_alone_are_announced_once_each() -> None:
    alone = LOST[:5]
    told = [alarm(one, 25.5) for one in alone]
    assert judged([FIRST, *told], (0, 0), alone).differences == 0
    missing = judged([FIRST, *told[1:]], (0, 0), alone)
    assert missing.mismatches == [f"alarms: n0, silent since {alone[0].from_ms}, was never announced as DOWN"]
    twice = judged([*told, alarm(alone[0], 28)], (0, 0), alone)
    assert "was announced as DOWN 2 times" in twice.mismatches[0]
    invented = judged([*told, replace(told[0], subject="n77")], (0, 0), alone)
    assert "n77 was announced as DOWN" in invented.mismatches[0]


def test_the_end_of_the_fleet_is_no_outage() -> None:
    assert expected_outages(END, ZONE_NODES, INTERVAL_MS, END[-1].from_ms) == 0


def test_a_small_zone_has_no_outages_and_one_at_the_edge_is_not_judged() -> None:
    until_ms = T0 + 60_000
    assert expected_outages(LOST[:5], 9, INTERVAL_MS, until_ms) == 0
    assert expected_outages(LOST[:20], ZONE_NODES, INTERVAL_MS, until_ms) is None
    assert expected_outages(LOST[:15], ZONE_NODES, INTERVAL_MS, until_ms) == 0
    assert expected_outages(LOST, ZONE_NODES, INTERVAL_MS, until_ms) == 1


def test_more_open_spans_than_the_threshold_are_found() -> None:
    assert above([(0, 10), (5, 20), (7, 8), (30, 30)], 1) == [(5, 10)]
    assert above([(0, 10), (10, 20)], 0) == [(0, 20)]


# n0: four heartbeats in two boots; n1: two in one boot, of which number 1 never went out.
COUNTED = beats_of(
    [(0, 0, 0, False), (0, 0, 1, False), (0, 2, 0, False), (0, 2, 1, False), (1, 1, 0, False), (1, 1, 2, True)]
)
RIGHT = {"n0": NodeView("n0", "DOWN", Counts(4, 0, 1)), "n1": NodeView("n1", "GONE", Counts(2, 1, 0))}


def test_counts_follow_from_the_ledger() -> None:
    assert exact(COUNTED) == {name: node.counts for name, node in RIGHT.items()}
    assert exact(beats_of([])) == {}


def test_nodes_that_are_counted_right_agree() -> None:
    verdict = Verdict()
    compare_nodes(verdict, exact(COUNTED), RIGHT)
    compare_totals(verdict, [node.counts for node in RIGHT.values()], Counts(6, 1, 1))
    assert (verdict.differences, verdict.nodes_compared) == (0, 2)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ({**RIGHT, "n0": NodeView("n0", "UP", Counts(3, 0, 1))}, "nodes: n0: heartbeats is 3; the ledger has 4"),
        ({**RIGHT, "n0": NodeView("n0", "UP", Counts(4, 2, 1))}, "nodes: n0: lost is 2; the ledger has 0"),
        ({**RIGHT, "n0": NodeView("n0", "UP", Counts(4, 0, 2))}, "nodes: n0: restarts is 2; the ledger has 1"),
        ({"n0": RIGHT["n0"]}, "nodes: n1: unknown to the views"),
        ({**RIGHT, "n2": NodeView("n2", "UP", Counts(1, 0, 0))}, "nodes: n2: not in the ledger"),
    ],
)
def test_each_wrong_count_is_named(shown: dict[str, NodeView], sentence: str) -> None:
    verdict = Verdict()
    compare_nodes(verdict, exact(COUNTED), shown)
    assert verdict.mismatches == [sentence]


def test_a_fleet_that_is_not_the_sum_of_its_nodes_is_found() -> None:
    verdict = Verdict()
    compare_totals(verdict, [Counts(4, 0, 1), Counts(2, 1, 0)], Counts(7, 1, 1))
    assert verdict.mismatches == ["nodes: /fleet: heartbeats is 7; its nodes have 6"]
