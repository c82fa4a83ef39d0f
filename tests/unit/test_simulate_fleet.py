"""The simulated fleet: the same seed gives the same events, faults happen when the script says, nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.simulate import held
from agents.simulate.config import load_script
from agents.simulate.fleet import CHUNK_EVENTS, MAX_STEP_MS, Fleet, Plan
from agents.simulate.held import TooMuchHeldError
from agents.simulate.nodes import places, standing_in
from agents.simulate.rows import GOODBYE, OK, TIMEOUT, UP, Chunk, Rows
from agents.simulate.script import Fault, Incident, Late, NodeFault, Region, Script, Service, weather

START_MS = 1_800_000_000_000
SERVICE = Service("checkout", ("/cart", "/pay"), ("http",), 40_000.0, 0.4, 0.0, 5_000_000)
QUIET = Script((SERVICE, replace(SERVICE, name="search")), (Region("eu", ("a",)), Region("us", ("a",), 2.0)))


def plan(script: Script = QUIET, nodes: int = 10, rate: float = 500, interval_ms: int = 1_000) -> Plan:
    return Plan(nodes, rate, interval_ms, script)


def run(what: Plan, until_ms: int, seed: int = 1, step_ms: int = 100) -> list[tuple[int, Chunk]]:
    """(when it was given out, chunk) of every step, the drained rest last."""
    fleet = Fleet(what, seed, START_MS)
    chunks = []
    while fleet.now_ms < until_ms:
        at_ms = fleet.now_ms
        chunks.append((at_ms, fleet.step(min(until_ms, at_ms - at_ms % step_ms + step_ms))))
    return [*chunks, (until_ms, fleet.drain())]


def all_of(chunks: list[tuple[int, Chunk]]) -> tuple[Rows, Rows, Rows]:
    """Heartbeats, results and boots of all chunks."""
    parts = [chunk for _, chunk in chunks]
    return (
        np.concatenate([part.heartbeats for part in parts]),
        np.concatenate([part.results for part in parts]),
        np.concatenate([part.boots for part in parts]),
    )


def fault(at_ms: int, what: Fault, back_after_ms: int | None, **more: object) -> NodeFault:
    return replace(NodeFault(at_ms, what, 3, 0.0, None, None, back_after_ms), **more)  # type: ignore[arg-type]


def times(rows: Rows) -> list[int]:
    return [int(ts) - START_MS for ts in rows["ts_ms"]]


EVERYTHING = replace(
    QUIET,
    incidents=(Incident(300, 900, "search", "us", 3.0, 0.5),),
    faults=(
        fault(150, Fault.DIE, 400),
        fault(200, Fault.CUT_OFF, 1_000, count=None, share=0.4),
        fault(250, Fault.GOODBYE, 333, region="us"),
        fault(1_000, Fault.DIE, 0, count=None, share=1.0),
        fault(1_300, Fault.DIE, None, count=1),
        fault(1_450, Fault.CUT_OFF, 9_000, count=2),
    ),
    late=Late(0.2, 50, 700),
    repeat_every_ms=1_700,
)


def test_the_same_seed_script_and_start_give_the_same_events() -> None:
    first, again = (all_of(run(plan(EVERYTHING), 4_000, seed=5)) for _ in range(2))
    for mine, theirs in zip(first, again, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    other = all_of(run(plan(EVERYTHING), 4_000, seed=6))
    assert other[1].tobytes() != first[1].tobytes()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1 << 32), st.integers(30, 400), st.integers(1, 25), st.integers(100, 3_000))
def test_every_boot_counts_its_events_of_both_topics_from_0_without_gaps(
    seed: int, step_ms: int, nodes: int, interval_ms: int
) -> None:
    heartbeats, results, boots = all_of(run(plan(EVERYTHING, nodes, 300, interval_ms), 2_500, seed, step_ms))
    for boot in range(len(boots)):
        beats, probes = heartbeats[heartbeats["boot"] == boot], results[results["boot"] == boot]
        assert {*beats["node"], *probes["node"]} <= {boots["node"][boot]}
        in_order = beats[np.argsort(beats["seq"])]
        assert in_order["heartbeat_seq"].tolist() == list(range(len(beats)))
        seq = np.concatenate([beats["seq"], probes["seq"]])
        assert sorted(seq.tolist()) == list(range(len(seq)))
        by_seq = np.concatenate([beats["ts_ms"], probes["ts_ms"]])[np.argsort(seq)]
        assert (np.diff(by_seq) >= 0).all()
        assert (by_seq >= boots["boot_ts"][boot]).all()
    assert len(set(boots["boot_id"].tolist())) == len(boots)


def test_rate_and_interval_are_kept() -> None:
    heartbeats, results, _ = all_of(run(plan(nodes=50, rate=333.3, interval_ms=500), 6_000))
    assert len(results) == int(333.3 * 6)
    for node in range(50):
        gaps = np.diff(times(heartbeats[heartbeats["node"] == node]))
        assert len(gaps) >= 10
        assert ((gaps >= 475) & (gaps <= 525)).all()
    assert set(times(results)) <= set(range(6_000))


def test_nodes_stand_in_the_regions_in_turn_and_probe_all_there_is_in_theirs() -> None:
    _, results, _ = all_of(run(plan(), 4_000))
    series = QUIET.series
    for node in range(10):
        seen = {series[index] for index in results["series"][results["node"] == node]}
        assert {one.region for one in seen} == {("eu", "us")[node % 2]}
        assert {(one.service, one.endpoint) for one in seen} == {
            (service, endpoint) for service in ("checkout", "search") for endpoint in ("/cart", "/pay")
        }


def test_a_node_that_dies_is_silent_until_it_is_back_with_a_new_boot() -> None:
    script = replace(QUIET, faults=(fault(1_000, Fault.DIE, 1_500),))
    heartbeats, results, boots = all_of(run(plan(script), 4_000))
    assert set(heartbeats["state"]) == {UP}
    restarted = boots[10:]
    assert len(restarted) == 3
    assert restarted["boot_ts"].tolist() == [START_MS + 2_500] * 3
    for offset, node in enumerate(restarted["node"]):
        said = np.sort(np.concatenate([times(rows[rows["node"] == node]) for rows in (heartbeats, results)]))
        assert not ((said >= 1_000) & (said < 2_500)).any()
        second = heartbeats[heartbeats["boot"] == 10 + offset]
        assert (second["seq"][0], times(second)[0]) == (0, 2_500)


def test_a_node_that_leaves_says_goodbye_as_its_last_word() -> None:
    script = replace(QUIET, faults=(fault(700, Fault.GOODBYE, None),))
    heartbeats, results, boots = all_of(run(plan(script), 3_000))
    goodbyes = heartbeats[heartbeats["state"] == GOODBYE]
    assert times(goodbyes) == [700] * 3
    assert len(boots) == 10
    for goodbye in goodbyes:
        seq = np.concatenate([rows["seq"][rows["node"] == goodbye["node"]] for rows in (heartbeats, results)])
        assert seq.max() == goodbye["seq"]


def test_a_node_that_was_cut_off_sends_its_backlog_in_one_burst_with_its_old_times() -> None:
    script = replace(QUIET, faults=(fault(1_000, Fault.CUT_OFF, 2_000),))
    chunks = run(plan(script), 4_000)
    burst_at, burst = max(chunks, key=lambda entry: entry[1].events)
    assert burst_at == 3_000
    old = burst.results[burst.results["ts_ms"] < START_MS + 3_000]
    nodes = set(old["node"].tolist())
    assert len(nodes) == 3
    assert 250 < len(old) < 350  # 3 of 10 nodes, 500 events a second, 2 s
    assert len(burst.heartbeats) >= 6
    for at_ms, chunk in chunks:
        if 1_000 <= at_ms < 3_000:
            assert not nodes & set(chunk.results["node"].tolist())
    _, _, boots = all_of(chunks)
    assert len(boots) == 10


def test_a_node_that_is_cut_off_counts_its_spool_in_its_heartbeats() -> None:
    script = replace(QUIET, faults=(fault(500, Fault.CUT_OFF, 3_000),))
    heartbeats, _, _ = all_of(run(plan(script), 6_000))
    spooling = heartbeats["spooled"] > 0
    assert len(set(heartbeats["node"][spooling].tolist())) == 3
    assert (heartbeats["spooled"][heartbeats["ts_ms"] >= START_MS + 3_500] == 0).all()


def test_late_results_wait_as_long_as_the_script_says() -> None:
    chunks = run(plan(replace(QUIET, late=Late(0.1, 400, 600)), rate=2_000), 5_000)
    waits = np.concatenate([at_ms + START_MS - chunk.results["ts_ms"] for at_ms, chunk in chunks[:-1]])
    late = waits > 100
    assert 0.07 < late.mean() < 0.13
    # A chunk goes out at the end of its step of 100 ms; `at_ms` is where the step starts.
    assert ((waits[late] > 300) & (waits[late] <= 600)).all()
    assert len(all_of(chunks)[1]) == 10_000


def test_an_incident_changes_its_series_while_it_lasts() -> None:
    script = replace(QUIET, incidents=(Incident(1_000, 2_000, "search", None, 10.0, 0.5),))
    _, results, _ = all_of(run(plan(script, rate=20_000), 3_000))
    is_search = np.array([one.service == "search" for one in script.series])[results["series"]]
    during = (results["ts_ms"] >= START_MS + 1_000) & (results["ts_ms"] < START_MS + 2_000)
    assert results["success"][~(is_search & during)].all()
    assert 0.45 < results["success"][is_search & during].mean() < 0.55
    good = results["success"]
    slow = np.median(results["latency_us"][is_search & during & good])
    usual = np.median(results["latency_us"][is_search & ~during & good])
    assert 9 < slow / usual < 11


def test_latency_is_lognormal_around_the_median_of_service_and_region() -> None:
    _, results, _ = all_of(run(plan(rate=40_000), 1_000))
    in_us = np.array([one.region == "us" for one in QUIET.series])[results["series"]]
    for region, median_us in ((~in_us, 40_000), (in_us, 80_000)):
        logs = np.log(results["latency_us"][region])
        assert np.median(logs) == pytest.approx(np.log(median_us), abs=0.02)
        assert logs.std() == pytest.approx(0.4, abs=0.02)


def test_what_takes_longer_than_the_timeout_fails_with_the_timeout_as_latency() -> None:
    script = replace(QUIET, services=(replace(SERVICE, timeout_us=40_000),), regions=QUIET.regions[:1])
    _, results, _ = all_of(run(plan(script), 4_000))
    failed = ~results["success"]
    assert 0.4 < failed.mean() < 0.6
    assert set(results["latency_us"][failed]) == {40_000}
    assert set(results["outcome"][failed]) == {TIMEOUT}
    assert (results["latency_us"][~failed] < 40_000).all()
    assert set(results["outcome"][~failed]) == {OK}


def test_faults_and_incidents_come_again() -> None:
    script = replace(
        QUIET,
        faults=(fault(500, Fault.DIE, 0, count=1),),
        incidents=(Incident(200, 400, None, None, 1.0, 1.0),),
        repeat_every_ms=1_000,
    )
    _, results, boots = all_of(run(plan(script), 3_000))
    assert (boots["boot_ts"][10:] - START_MS).tolist() == [501, 1_501, 2_501]
    in_incident = ((results["ts_ms"] - START_MS) % 1_000 >= 200) & ((results["ts_ms"] - START_MS) % 1_000 < 400)
    assert (results["success"] == ~in_incident).all()


def test_a_fault_hits_its_region_only_and_no_more_nodes_than_are_healthy() -> None:
    script = replace(QUIET, faults=(fault(500, Fault.DIE, None, count=99, region="us"),))
    fleet = Fleet(plan(script), 1, START_MS)
    fleet.step(500)
    assert fleet.nodes_up == 10
    fleet.step(600)
    assert fleet.nodes_up == 5
    heartbeats = np.concatenate([fleet.step(fleet.now_ms + 100).heartbeats for _ in range(20)])
    assert set(heartbeats["node"].tolist()) == {0, 2, 4, 6, 8}


def test_a_fault_of_a_zone_hits_no_other_node_of_its_region() -> None:
    script = replace(
        QUIET,
        regions=(Region("eu", ("a", "b", "c")), Region("us", ("a", "b"))),
        faults=(fault(500, Fault.DIE, None, count=None, share=0.4, region="us", zone="b"),),
    )
    fleet = Fleet(plan(script, nodes=40), 1, START_MS)
    fleet.step(500)
    assert fleet.nodes_up == 40
    fleet.step(600)
    said = np.concatenate([fleet.step(fleet.now_ms + 100).heartbeats for _ in range(20)])
    silent = set(range(40)) - set(said["node"].tolist())
    assert len(silent) == 4  # 40 % of the ten nodes there
    assert {places(script)[standing_in(script, 40)[node]] for node in silent} == {("us", "usb")}


def test_what_a_cut_off_node_spools_arrives_in_the_order_of_its_heartbeat_numbers() -> None:
    script = replace(QUIET, faults=(fault(1_000, Fault.CUT_OFF, 2_000),))
    heartbeats, _, _ = all_of(run(plan(script, interval_ms=200), 5_000))
    for node in range(10):
        numbers = heartbeats["heartbeat_seq"][heartbeats["node"] == node].tolist()
        assert numbers == list(range(len(numbers)))


def test_a_share_is_of_the_nodes_that_the_fault_is_about() -> None:
    script = replace(QUIET, faults=(fault(500, Fault.CUT_OFF, 5_000, count=None, share=0.4, region="us"),))
    fleet = Fleet(plan(script), 1, START_MS)
    fleet.step(500)
    fleet.step(600)
    assert (fleet.nodes_up, fleet.nodes_cut_off) == (10, 2)


def test_a_fleet_without_nodes_that_are_up_says_nothing() -> None:
    script = replace(QUIET, faults=(fault(0, Fault.DIE, None, count=10),))
    assert sum(chunk.events for _, chunk in run(plan(script), 1_000)) == 0


def test_no_more_is_drawn_than_the_limit() -> None:
    fleet = Fleet(plan(EVERYTHING), 3, START_MS)
    given_out = 0
    while fleet.drawn < 777:
        given_out += fleet.step(fleet.now_ms + 100, 777 - fleet.drawn).events
    assert fleet.drawn == 777
    assert fleet.held == 777 - given_out > 0
    assert fleet.drain().events == 777 - given_out
    assert fleet.held == 0


def test_steps_are_of_bounded_length_and_size() -> None:
    slow = Fleet(plan(rate=1), 1, START_MS)
    slow.step(1 << 40)
    assert slow.now_ms == MAX_STEP_MS
    busy = Fleet(plan(rate=2_000_000), 1, START_MS)
    assert 0.9 * CHUNK_EVENTS < busy.step(1 << 40).events <= CHUNK_EVENTS


def test_a_script_that_holds_back_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MAX_HELD_EVENTS", 100)
    with pytest.raises(TooMuchHeldError, match="more than 100 events at once"):
        run(plan(replace(QUIET, faults=(fault(0, Fault.CUT_OFF, 60_000, count=10),))), 2_000)


def test_incidents_apply_one_after_the_other() -> None:
    both = (Incident(0, 9, "search", None, 2.0, 0.1), Incident(0, 9, None, "us", 3.0, None))
    now = weather(QUIET, both)
    factors = np.round(np.exp(now.mu) / 40_000).tolist()
    found = {
        (one.service, one.region): value for one, *value in zip(QUIET.series, factors, now.failure_rate, strict=True)
    }
    assert found == {
        ("search", "us"): [12, 0.1],
        ("search", "eu"): [2, 0.1],
        ("checkout", "us"): [6, 0.0],
        ("checkout", "eu"): [1, 0.0],
    }


def test_the_fleet_without_a_script_has_no_faults() -> None:
    script = load_script(None, services=7, endpoints=3, regions=4)
    assert len(script.series) == 7 * 3 * 2 * 4
    assert len(set(script.series)) == len(script.series)
    assert (script.incidents, script.faults, script.late) == ((), (), None)
