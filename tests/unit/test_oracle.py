"""The oracle's arithmetic on small ledgers made here, and that it sees a record dropped, doubled or changed."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import InfraError
from infra.oracle.identities import compare
from infra.oracle.judge import Verdict, compare_windows, relative_error
from infra.oracle.ledger import Names, Results
from infra.oracle.objectives import Promise, read_promises
from infra.oracle.recompute import SLICE_MS, Window, windows

FAST_CHECKOUT = Promise("checkout-fast", (("service", "checkout"),), 200)
T0 = 1_700_000_000_000

SLO = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: checkout-fast}
spec:
  service: checkout
  indicator:
    metadata: {name: i}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource: {type: fleetbeat, spec: {source: probe-results, where: {service: checkout}, latency_us_le: 200}}
        total: {metricSource: {type: fleetbeat, spec: {source: probe-results, where: {service: checkout}}}}
"""

Row = tuple[int, str, bool, int]  # (ts in ms after T0, service, success, latency_us)


def results_of(rows: list[Row]) -> Results:
    services = ("checkout", "search")
    one = Names(np.zeros(len(rows), dtype=np.int32), ("x",))
    return Results(
        ts=np.array([T0 + row[0] for row in rows], dtype=np.int64),
        latency_us=np.array([row[3] for row in rows], dtype=np.int64),
        success=np.array([row[2] for row in rows], dtype=np.bool_),
        service=Names(np.array([services.index(row[1]) for row in rows], dtype=np.int32), services),
        endpoint=one,
        region=one,
        kind=one,
    )


def test_counts_only_selected_results_and_judges_each_by_success_and_threshold() -> None:
    results = results_of(
        [
            (10, "checkout", True, 200),  # good: the threshold itself still counts
            (999, "checkout", True, 201),
            (500, "checkout", False, 5),
            (1_000, "checkout", True, 7),  # the next slice
            (20, "search", True, 1),
        ]
    )
    assert windows(results, FAST_CHECKOUT, SLICE_MS) == {
        T0: Window(total=3, good=1, sum_us=406, max_us=201, p50_us=200, p99_us=201),
        T0 + 1_000: Window(total=1, good=1, sum_us=7, max_us=7, p50_us=7, p99_us=7),
    }


def test_without_a_threshold_success_is_enough() -> None:
    results = results_of([(0, "checkout", True, 10**9), (0, "checkout", False, 1)])
    assert windows(results, Promise("up", (), None), SLICE_MS)[T0].good == 1


def test_what_was_not_measured_counts_and_has_no_latency() -> None:
    rows: list[Row] = [(0, "checkout", True, 0), (1, "checkout", True, 50), (2, "checkout", False, 90)]
    alone: list[Row] = [(1_000, "checkout", True, 0)]
    requests = replace(results_of(rows + alone), measured=np.array([False, True, True, False]))
    assert windows(requests, Promise("all", (), None), SLICE_MS) == {
        T0: Window(total=3, good=2, sum_us=140, max_us=90, p50_us=50, p99_us=90),
        T0 + 1_000: Window(total=1, good=1, sum_us=0, max_us=0, p50_us=0, p99_us=0),
    }
    assert windows(requests, Promise("fast", (), 60), SLICE_MS) == {T0: Window(2, 1, 140, 90, 50, 90)}


def test_a_name_that_never_occurs_selects_nothing() -> None:
    assert windows(results_of([(0, "checkout", True, 1)]), Promise("x", (("service", "nobody"),), None), SLICE_MS) == {}


ROW = st.tuples(st.integers(-4_000, 4_000), st.sampled_from(["checkout", "search"]), st.booleans(), st.integers(0, 400))


@given(st.lists(ROW, max_size=60))
def test_agrees_with_a_loop_over_rows(rows: list[Row]) -> None:
    expected: dict[int, list[Row]] = {}
    for row in rows:
        if row[1] == "checkout":
            expected.setdefault((T0 + row[0]) // 1_000 * 1_000, []).append(row)

    def nearest(latencies: list[int], share: float) -> int:
        return latencies[max(math.ceil(round(share * len(latencies), 9)), 1) - 1]

    assert windows(results_of(rows), FAST_CHECKOUT, SLICE_MS) == {
        start: Window(
            total=len(group),
            good=sum(success and latency <= 200 for _, _, success, latency in group),
            sum_us=sum(latencies),
            max_us=latencies[-1],
            p50_us=nearest(latencies, 0.50),
            p99_us=nearest(latencies, 0.99),
        )
        for start, group in expected.items()
        for latencies in [sorted(row[3] for row in group)]
    }


@given(st.sets(st.integers(0, 50), min_size=3), st.data())
def test_a_dropped_and_a_doubled_and_a_foreign_row_are_each_counted(seqs: set[int], data: st.DataObject) -> None:
    sent = frozenset(b"n\tb\t%d" % seq for seq in seqs)
    dropped, doubled = data.draw(st.permutations(sorted(sent)))[:2]
    stored = [*(sent - {dropped}), doubled, b"n\tb\t99", b"n\tb\t99"]
    census = compare(sent, stored)
    assert (census.rows, census.missing, census.doubled, census.foreign) == (len(seqs) + 2, 1, 1, 2)
    assert f"missing {dropped.decode()}".replace("\t", " ") in census.examples
    assert compare(sent, sent) == replace(census, rows=len(seqs), missing=0, doubled=0, foreign=0, examples=())


EXACT = Window(total=100, good=90, sum_us=10_000, max_us=1_000, p50_us=100, p99_us=1_000)


def verdict_of(shown: dict[int, Window], exact: dict[int, Window]) -> Verdict:
    verdict = Verdict()
    compare_windows(verdict, "slices", "s", exact, shown)
    return verdict


def test_equal_windows_agree_and_percentiles_may_be_off_by_one_percent() -> None:
    verdict = verdict_of({0: replace(EXACT, p99_us=1_010)}, {0: EXACT})
    assert verdict.agree
    assert verdict.slices_compared == 1
    assert verdict.p99_worst_relative_error == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ({0: replace(EXACT, total=101)}, "slices: s at 0: total is 101; the ledger has 100"),
        ({0: replace(EXACT, good=89)}, "slices: s at 0: good is 89; the ledger has 90"),
        ({0: replace(EXACT, sum_us=10_001)}, "slices: s at 0: sum_us is 10001; the ledger has 10000"),
        ({0: replace(EXACT, max_us=999)}, "slices: s at 0: max_us is 999; the ledger has 1000"),
        (
            {0: replace(EXACT, p99_us=1_011)},
            "slices: s at 0: p99_us is 1011; the ledger has 1000, so it is off by 1.10%",
        ),
        ({0: EXACT, 1_000: replace(EXACT, total=1)}, "slices: s at 1000: total is 1; the ledger has 0"),
        ({}, "slices: s at 0: total is 0; the ledger has 100"),
    ],
)
def test_each_difference_is_named(shown: dict[int, Window], sentence: str) -> None:
    verdict = verdict_of(shown, {0: EXACT})
    assert not verdict.agree
    assert verdict.failed_checks == {"slices"}
    assert sentence in verdict.mismatches


def test_nothing_compared_is_no_agreement() -> None:
    assert not verdict_of({}, {}).agree


def test_one_microsecond_is_rounding_and_not_an_error() -> None:
    assert relative_error(4, 3) == 0.0
    assert relative_error(5, 3) == pytest.approx(2 / 3)


def test_reads_selection_and_threshold_of_an_objectives_file(tmp_path: Path) -> None:
    file = tmp_path / "slos.yaml"
    file.write_text(f"apiVersion: openslo/v1\nkind: Service\nmetadata: {{name: checkout}}\n---{SLO}", encoding="utf-8")
    assert read_promises(file) == (FAST_CHECKOUT,)


def test_reads_what_an_objective_is_about(tmp_path: Path) -> None:
    file = tmp_path / "slos.yaml"
    file.write_text(SLO.replace("probe-results", "request-counts"), encoding="utf-8")
    assert read_promises(file) == (replace(FAST_CHECKOUT, source="request-counts"),)
    file.write_text(SLO.replace("probe-results", "heartbeats"), encoding="utf-8")
    with pytest.raises(InfraError, match="source 'heartbeats'; expected probe-results or request-counts"):
        read_promises(file)


def test_refuses_a_selection_that_it_cannot_judge(tmp_path: Path) -> None:
    file = tmp_path / "slos.yaml"
    file.write_text(SLO.replace("where: {service: checkout}}", "where: {zone: a}}"), encoding="utf-8")
    with pytest.raises(InfraError, match=r"SLO checkout-fast: where selects by \['zone'\]"):
        read_promises(file)
