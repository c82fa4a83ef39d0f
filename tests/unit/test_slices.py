"""Frontiers, lateness and seals: functions of the log, wherever batches are cut."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.slices import ON_TIME, TIERS, frontiers, lateness_of, seal_ms
from tests.unit.exactness import LEVELS, Level

APPENDS = st.lists(st.integers(0, 10_000), min_size=1, max_size=30)


def longs(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(APPENDS, st.integers(0, 10_000), st.randoms())
def test_the_frontier_does_not_depend_on_where_batches_are_cut(appends: list[int], before: int, rng: Random) -> None:
    whole = [max(before, *appends[: end + 1]) for end in range(len(appends))]
    parts, frontier, left = list[int](), before, appends
    while left:
        cut = rng.randint(1, len(left))
        parts += frontiers(frontier, longs(*left[:cut])).tolist()
        frontier, left = parts[-1], left[cut:]
    assert parts == whole


@pytest.mark.parametrize(
    ("slice_s", "frontier_ms", "late"),
    [
        (100, 100_000, ON_TIME),  # at its beginning
        (100, 110_999, ON_TIME),  # one millisecond before its end + lateness
        (100, 111_000, 111),  # sealed: it ends at 101 s, 10 s ago
        (100, 111_999, 111),
        (100, 112_000, 112),  # the next append second
        (100, 9_000_000, 9_000),
        (105, 100_000, ON_TIME),  # ahead of the clock
    ],
)
def test_an_event_is_late_when_its_slice_is_sealed_at_its_own_record(slice_s: int, frontier_ms: int, late: int) -> None:
    assert lateness_of(longs(slice_s), longs(frontier_ms)).tolist() == [late]


def test_a_cell_is_sealed_after_its_lateness_and_a_late_one_after_its_append_second() -> None:
    assert seal_ms(longs(100, 100), longs(ON_TIME, 500)).tolist() == [111_000, 501_000]


@given(st.integers(0, 1_000), st.integers(0, 1_100_000))
def test_no_event_is_counted_in_a_cell_that_is_sealed_already(slice_s: int, frontier_ms: int) -> None:
    late = lateness_of(longs(slice_s), longs(frontier_ms))
    assert seal_ms(longs(slice_s), late)[0] > frontier_ms


def test_tiers_are_those_that_the_oracle_knows() -> None:
    assert {tier.name: Level(tier.step_s, tier.keep_s, tier.chunk_s) for tier in TIERS} == LEVELS


def test_chunks_are_whole_steps_and_so_are_steps_of_the_next_tier() -> None:
    steps = [each.step_s for each in TIERS]
    assert all(each.chunk_s % each.step_s == 0 for each in TIERS)
    assert all(coarse % fine == 0 for fine, coarse in pairwise(steps))
