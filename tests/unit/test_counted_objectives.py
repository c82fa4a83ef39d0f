"""Objectives over what services count themselves: read, announced, judged, and what cannot be exact refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from aiokafka.structs import ConsumerRecord

from schemas.buckets import BOUNDS_US, bucket_of
from schemas.documents import DocumentError
from streams.config import load_objectives
from streams.core.objectives import Objective, Selector
from streams.core.rollup import Rollup
from streams.core.series import Judge, SeriesIndex
from streams.core.windows import summarize_all
from streams.engine.announcements import SetUnreadableError, read_set, write_set
from tests.unit.exactness import COUNTS, PROBES, START_MS, Counted, Event, Logged
from tests.unit.exactness_parts import counts_frame, events_frame, source_batch
from tests.unit.test_objectives_file import OBJECTIVE, SLO

BOUND = BOUNDS_US[bucket_of(200_000)]
COUNTED = SLO.replace("probe-results", "request-counts").replace("200000", str(BOUND))
PLACE = "spec.indicator.spec.ratioMetric.good.metricSource.spec"
LABELS = ("shop", "/cart", "eu", "requests")


def load(tmp_path: Path, text: str) -> tuple[Objective, ...]:
    file = tmp_path / "slos.yaml"
    file.write_text(text, encoding="utf-8")
    return load_objectives(file)


def test_an_objective_may_be_about_counted_requests(tmp_path: Path) -> None:
    assert load(tmp_path, COUNTED) == (replace(OBJECTIVE, source=COUNTS, latency_us_le=BOUND),)


def test_the_source_is_part_of_the_version_and_probes_keep_theirs() -> None:
    assert replace(OBJECTIVE, source=PROBES).version == OBJECTIVE.version == "4500d425"
    assert replace(OBJECTIVE, source=COUNTS).version != OBJECTIVE.version


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            str(BOUND),
            "200000",
            (
                f":26:15: {PLACE}.latency_us_le: value 200000: requests are counted by buckets, so it would be exact "
                "at the bound of one only; expected 198474 or 202444"
            ),
        ),
        (
            "endpoint: /pay}",
            "endpoint: /pay, kind: http}",
            (
                f":25:58: {PLACE}.where.kind: value 'http': request-counts have no kind; expected service, endpoint "
                "or region"
            ),
        ),
        (
            "source: request-counts\n              where: {service: checkout, endpoint: /pay}\n              latency",
            "source: probe-results\n              where: {service: checkout, endpoint: /pay}\n              latency",
            f":24:15: {PLACE}.source: value 'probe-results': expected the same as under total, 'request-counts'",
        ),
    ],
    ids=["a threshold inside a bucket", "a kind", "another source under good than under total"],
)
def test_what_cannot_be_asked_of_them_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, COUNTED.replace(old, new))
    assert [problem.removeprefix(str(tmp_path / "slos.yaml")) for problem in caught.value.problems] == [sentence]


def record(value: bytes) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("objectives", 0, 3, START_MS, 1, b"k", value, None, 1, len(value), ())


def test_a_set_says_of_each_objective_which_source_it_is_about() -> None:
    objectives = (OBJECTIVE, replace(OBJECTIVE, id="counted", source=COUNTS, latency_us_le=BOUND))
    assert read_set(record(write_set(objectives, "host"))).objectives == objectives


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (replace(OBJECTIVE, source="logs"), "source 'logs'; expected one of probe-results, request-counts"),
        (replace(OBJECTIVE, source=COUNTS), "latency_us_le 200000; expected a bucket's bound"),
    ],
)
def test_what_no_file_can_say_of_a_source_is_unreadable(objective: Objective, said: str) -> None:
    with pytest.raises(SetUnreadableError, match=said):
        read_set(record(write_set((objective,), "host")))


def rows_of(objective: Objective, *counted: Counted, source: str = COUNTS) -> pl.DataFrame:
    """What the objective's series gets of records one after the other."""
    index = SeriesIndex()
    rollup = Rollup(Judge((objective,), index, source))
    rollup.open(0, 0)
    records = [Logged(START_MS, each) for each in counted]
    flush = rollup.step([source_batch(0, 0, records)], counts_frame(records))
    return flush.objectives.with_columns(start=pl.col("slice"), late_n=pl.lit(0, pl.Int64)).sort("bucket", "good")


ALL = Objective("all", "", "", Selector(), None, 0.99, 60, source=COUNTS)
QUICK = replace(ALL, latency_us_le=BOUND)
AT, ABOVE = bucket_of(BOUND), bucket_of(BOUND + 1)
MEASURED = Counted(LABELS, START_MS, 1_000, 12, 9, 777, 333, ((AT, 8, 7), (ABOVE, 4, 2)))
BARE = Counted(LABELS, START_MS, 1_000, 100, 60, 0, 0)


def test_requests_are_good_up_to_the_bound_when_they_succeeded() -> None:
    found = summarize_all(rows_of(QUICK, MEASURED), 0)
    assert (found.total, found.good, found.sum_us, found.max_us) == (12, 7, 777, 333)
    found = summarize_all(rows_of(ALL, MEASURED), 0)
    assert (found.total, found.good, found.sum_us, found.max_us) == (12, 9, 777, 333)


def test_without_a_histogram_there_are_no_percentiles_and_a_threshold_judges_nothing() -> None:
    found = summarize_all(rows_of(ALL, BARE), 0)
    assert (found.total, found.good, found.p50_us, found.p99_us) == (100, 60, None, None)
    assert rows_of(QUICK, BARE).is_empty()
    both = summarize_all(rows_of(QUICK, BARE, MEASURED), 0)
    assert (both.total, both.good) == (12, 7)
    assert both.p50_us == pytest.approx(BOUND, rel=0.02)
    both = summarize_all(rows_of(ALL, BARE, MEASURED), 0)
    assert (both.total, both.good) == (112, 69)
    assert both.p50_us == pytest.approx(BOUND, rel=0.02)


def test_an_objective_judges_only_its_own_source() -> None:
    probes = replace(ALL, source=PROBES)
    assert rows_of(probes, MEASURED).is_empty()
    index = SeriesIndex()
    rollup = Rollup(Judge((ALL, probes), index))
    rollup.open(0, 0)
    records = [Logged(START_MS, Event(LABELS, START_MS, success=True, latency_us=5))]
    flush = rollup.step([source_batch(0, 0, records)], events_frame(records))
    assert flush.objectives["series"].to_list() == [index.number(probes.series)]


def test_a_probe_whose_kind_is_requests_is_another_series() -> None:
    index, records = SeriesIndex(), [Logged(START_MS, Event(LABELS, START_MS, success=True, latency_us=5))]
    probes, counts = Rollup(Judge((), index)), Rollup(Judge((), index, COUNTS))
    for rollup in (probes, counts):
        rollup.open(0, 0)
    first = probes.step([source_batch(0, 0, records)], events_frame(records)).plain
    counted = [Logged(START_MS, MEASURED)]
    second = counts.step([source_batch(0, 0, counted)], counts_frame(counted)).plain
    assert not np.intersect1d(first["series"].to_numpy(), second["series"].to_numpy()).size
    assert index.names == ['["shop","/cart","eu","requests"]', '["shop","/cart","eu","requests","request-counts"]']


def test_the_hour_of_a_record_at_the_end_of_time_is_held_like_any_other() -> None:
    """No sum of window and time leaves 64 bits."""
    last = Counted(LABELS, (1 << 63) - 1, 10_000, 1, 1, 0, 0)
    assert rows_of(ALL, last)["slice"].to_list() == [(START_MS + 5_000) // 1_000]
