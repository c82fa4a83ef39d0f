"""Series by name and number, and judging all objectives from one small integer."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.objectives import Objective, Selector
from streams.core.series import LABELS, Judge, SeriesIndex, series_name

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ODD = st.sampled_from(["", '"', '","', "a\x00", "slo:x@y", "\\", "\u2028", "é", "é", "[]", " a", "a "])
FOUR = st.tuples(*[NAMES | ODD] * 4)


@settings(max_examples=40)
@given(st.lists(st.tuples(FOUR, FOUR), max_size=8))
def test_two_series_have_one_name_only_when_their_labels_are_equal(
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]],
) -> None:
    for one, other in pairs:
        assert (series_name(*one) == series_name(*other)) is (one == other)
        assert tuple(json.loads(series_name(*one))) == one


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES | ODD, min_size=1, max_size=8), st.lists(NAMES, max_size=8), st.data())
def test_rows_keep_their_names_from_one_process_to_another(
    names: list[str], known: list[str], data: st.DataObject
) -> None:
    ours, theirs = SeriesIndex(), SeriesIndex()
    for name in known:
        theirs.number(name)
    drawn = data.draw(st.lists(st.sampled_from(names)))
    rows = pl.DataFrame({"series": [ours.number(name) for name in drawn], "n": range(len(drawn))})
    local, used = ours.externalize(rows.cast({"series": pl.UInt32}))
    assert sorted(used) == sorted(set(drawn))
    found = theirs.localize(local, used)
    assert [theirs.names[number] for number in found["series"]] == drawn
    assert found["n"].to_list() == list(range(len(drawn)))


def test_a_name_keeps_its_number() -> None:
    index = SeriesIndex()
    assert [index.number(name) for name in ("a", "b", "a", "", "b")] == [0, 1, 0, 2, 1]
    assert index.names == ["a", "b", ""]


def test_more_series_than_a_key_has_room_for_are_refused() -> None:
    index = SeriesIndex(most=2)
    assert [index.number(name) for name in ("a", "b")] == [0, 1]
    with pytest.raises(OverflowError, match="more than 2 series in one process; the last was 'c'"):
        index.number("c")
    assert index.number("b") == 1


@pytest.fixture
def eager_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_threads_agree_on_the_number_of_a_name() -> None:
    """The rollup and the tables number names on threads of their own."""
    index, together = SeriesIndex(), Barrier(2)

    def number(names: list[str]) -> list[int]:
        together.wait()
        return [index.number(name) for name in names]

    with ThreadPoolExecutor(2) as pool:
        for attempt in range(150):
            names = [[f"{attempt}/{n}/{side if n % 2 else ''}" for n in range(20)] for side in "ab"]
            for own, numbers in zip(names, pool.map(number, names), strict=True):
                assert [index.names[n] for n in numbers] == own
    assert len(index.names) == len(set(index.names)) == 150 * (10 + 2 * 10)


LABEL = st.sampled_from(["", "a", "b", "ä"])
EVENT = st.tuples(LABEL, LABEL, LABEL, LABEL, st.booleans(), st.integers(0, 30))
WANT = st.none() | LABEL
OBJECTIVE = st.builds(Selector, WANT, WANT, WANT, WANT).flatmap(
    lambda selector: st.builds(
        Objective,
        id=st.uuids().map(str),
        service=st.just("s"),
        display_name=st.just(""),
        selector=st.just(selector),
        latency_us_le=st.none() | st.integers(0, 30),
        target=st.just(0.9),
        window_s=st.just(60),
    )
)


@settings(max_examples=40, deadline=None)
@given(st.lists(OBJECTIVE, max_size=5), st.lists(st.lists(EVENT, max_size=12), max_size=3))
def test_ranks_judge_as_each_objective_would_by_itself(
    objectives: list[Objective], steps: list[list[tuple[str, str, str, str, bool, int]]]
) -> None:
    index = SeriesIndex()
    judge = Judge(objectives, index)
    for events in steps:
        kinds = dict.fromkeys(LABELS, pl.String) | {"success": pl.Boolean, "latency_us": pl.Int64}
        frame = pl.DataFrame(events, schema=kinds, orient="row")
        numbered = judge.number(frame).with_columns(
            rank=pl.Series(judge.ranks_of(frame["latency_us"].to_numpy())), row=pl.int_range(len(events))
        )
        assert [index.names[n] for n in numbered["series"]] == [series_name(*event[:4]) for event in events]
        found = judge.objective_rows(numbered).select("row", "series", "good").rows()
        assert sorted((row, index.names[number], good) for row, number, good in found) == sorted(
            (row, objective.series, success and (limit is None or latency <= limit))
            for row, (*labels, success, latency) in enumerate(events)
            for objective in objectives
            if objective.selector.matches(*labels)
            for limit in [objective.latency_us_le]
        )


def test_a_rank_counts_the_thresholds_below() -> None:
    limits = [Objective(str(n), "", "", Selector(), n, 0.9, 60) for n in (10, 20, 10)]
    ranks = Judge(limits, SeriesIndex()).ranks_of(np.array([0, 10, 11, 20, 21], dtype=np.int64))
    assert ranks.tolist() == [0, 0, 1, 1, 2]
