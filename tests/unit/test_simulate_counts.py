"""Services of the simulated fleet that count their own requests: who counts, when, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from agents.simulate.fleet import Fleet
from agents.simulate.rows import COUNT, REQUEST, Chunk, Counted
from agents.simulate.script import Counting, Fault, Incident, Script
from tests.unit.test_simulate_fleet import EVERYTHING, QUIET, START_MS, all_of, fault, plan, run

COUNTING = Counting(per_s=1_000, services=("checkout",), processes=2, window_ms=1_000, unmeasured=())
BUSY = replace(QUIET, counting=COUNTING)


def counted(script: Script, until_ms: int, *, nodes: int = 10, seed: int = 1, step_ms: int = 100) -> Counted:
    return Counted.joined([chunk.counted for _, chunk in run(plan(script, nodes), until_ms, seed, step_ms)])


def test_every_process_counts_each_whole_window_once() -> None:
    rows = counted(BUSY, 5_500).rows
    assert set(rows["ts_ms"].tolist()) == {START_MS + second * 1_000 for second in range(5)}
    seen = {(int(row["ts_ms"]), int(row["node"]), int(row["series"])) for row in rows}
    assert len(seen) == len(rows) == 5 * 2 * len(BUSY.counted)  # two processes
    assert [(one.service, one.endpoint, one.region, one.kind) for one in BUSY.counted] == [
        ("checkout", endpoint, region, "requests") for endpoint in ("/cart", "/pay") for region in ("eu", "us")
    ]
    for row in rows:
        assert BUSY.counted[row["series"]].region == ("eu", "us")[row["node"] % 2]


def test_windows_begin_at_whole_ones_in_utc_also_when_the_fleet_does_not() -> None:
    fleet = Fleet(plan(BUSY), 1, START_MS + 300)
    chunks = [fleet.step(at) for at in range(100, 3_001, 100)]
    rows = Counted.joined([chunk.counted for chunk in chunks]).rows
    assert set(rows["ts_ms"].tolist()) == {START_MS + 1_000, START_MS + 2_000}


def test_as_many_requests_are_counted_as_were_asked_for_and_they_behave_like_probes() -> None:
    slow = Incident(2_000, 9_000, "checkout", None, 4.0, 0.5)
    found = counted(replace(BUSY, incidents=(slow,)), 8_001)
    assert len(found.requests) == pytest.approx(8_000, rel=0.05)
    before = np.repeat(found.rows["ts_ms"] < START_MS + 1_000, found.rows["total"])
    latency_us, success = found.requests["latency_us"].astype(float), found.requests["success"]
    usual, slow_down = (np.median(latency_us[success & when]) for when in (before, ~before))
    assert slow_down / usual == pytest.approx(4, rel=0.2)
    assert success[before].all()
    assert success[~before].mean() == pytest.approx(0.5, abs=0.05)


def test_probes_and_heartbeats_are_the_same_but_for_their_numbers() -> None:
    without, with_counts = (all_of(run(plan(script), 4_000, seed=5)) for script in (EVERYTHING, busy(EVERYTHING)))
    for mine, theirs in zip(without, with_counts, strict=True):
        columns = [name for name in mine.dtype.names or () if name not in ("seq", "spooled")]
        assert mine[columns].tolist() == theirs[columns].tolist()


def busy(script: Script) -> Script:
    return replace(script, counting=COUNTING)


@pytest.mark.parametrize("step_ms", [37, 100, 900])
def test_every_boot_numbers_its_counts_with_its_other_records_in_the_order_of_time(step_ms: int) -> None:
    chunks = run(plan(busy(EVERYTHING), 12, 300), 4_000, 3, step_ms)
    heartbeats, results, boots = all_of(chunks)
    counts = Counted.joined([chunk.counted for _, chunk in chunks]).rows
    assert len(counts) > 0
    for boot in range(len(boots)):
        mine = [rows[rows["boot"] == boot] for rows in (heartbeats, results, counts)]
        assert {*np.concatenate([rows["node"] for rows in mine]).tolist()} <= {int(boots["node"][boot])}
        seq = np.concatenate([rows["seq"] for rows in mine])
        assert sorted(seq.tolist()) == list(range(len(seq)))
        said = np.concatenate([mine[0]["ts_ms"], mine[1]["ts_ms"], mine[2]["ts_ms"] + mine[2]["window_ms"]])
        assert (np.diff(said[np.argsort(seq)]) >= 0).all()


def test_a_process_on_a_node_that_is_cut_off_sends_what_it_counted_when_it_is_back() -> None:
    script = replace(BUSY, faults=(fault(500, Fault.CUT_OFF, 3_000, count=10),))
    chunks = run(plan(script), 6_000)
    given_out = [at for at, chunk in chunks if len(chunk.counted.rows)]
    assert min(given_out) == 3_500
    found = Counted.joined([chunk.counted for _, chunk in chunks])
    assert set(found.rows["ts_ms"].tolist()) == {START_MS + second * 1_000 for second in range(5)}
    assert sum(found.rows["total"].tolist()) == len(found.requests)


def test_a_process_that_is_dead_at_the_end_of_a_window_has_counted_nothing() -> None:
    dead = replace(BUSY, faults=(fault(1_500, Fault.DIE, 2_000, count=10),))
    seconds = {(int(ts) - START_MS) // 1_000 for ts in counted(dead, 6_000).rows["ts_ms"]}
    assert seconds == {0, 3, 4}


def test_a_chunk_is_cut_at_the_limit_with_the_requests_of_its_counts() -> None:
    fleet = Fleet(plan(BUSY, rate=0, interval_ms=1_000_000), 1, START_MS)
    fleet.step(999)
    fleet.step(1_000)
    chunk: Chunk = fleet.step(1_100, 3)
    assert (chunk.events, len(chunk.counted.rows)) == (3, 3)
    assert len(chunk.counted.requests) == chunk.counted.rows["total"].sum()


def test_a_region_with_fewer_nodes_than_processes_has_several_on_one() -> None:
    rows = counted(replace(BUSY, counting=replace(COUNTING, processes=7)), 1_100, nodes=3).rows
    assert len(rows) == 7 * len(BUSY.counted)
    assert set(rows["node"].tolist()) == {0, 1}


def test_some_of_what_was_counted_keeps_its_requests() -> None:
    rows = np.zeros(3, COUNT)
    rows["total"] = [2, 0, 3]
    requests = np.array([(number, True) for number in range(5)], REQUEST)
    some = Counted.of(rows, requests).where(np.array([False, True, True]))
    assert some.rows["first"].tolist() == [0, 0]
    assert some.requests["latency_us"].tolist() == [2, 3, 4]
    both = Counted.joined([some, some])
    assert both.rows["first"].tolist() == [0, 0, 3, 3]
    assert both.requests["latency_us"].tolist() == [2, 3, 4, 2, 3, 4]
