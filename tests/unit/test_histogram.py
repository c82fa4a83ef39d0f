"""Buckets: exact bounds, 1 % around every value, merging by addition, nearest-rank quantiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.buckets import MAX_LATENCY_US
from streams.core.histogram import BOUNDS, buckets_of, quantile, value_of

LATENCIES = st.integers(0, MAX_LATENCY_US) | st.integers(0, 300)
VALUES = np.array([value_of(bucket) for bucket in range(len(BOUNDS))])


def bucket_of(latency_us: int) -> int:
    return int(buckets_of(np.array([latency_us], dtype=np.int64))[0])


@pytest.mark.parametrize(
    ("latency_us", "bucket"),
    [(0, 0), (1, 1), (2, 37), (3, 57), (100, 234), (101, 235), (1_000_000, 699), (MAX_LATENCY_US, 1273)],
)
def test_the_bucket_of_a_latency_never_changes(latency_us: int, bucket: int) -> None:
    """Stored pages depend on it."""
    assert bucket_of(latency_us) == bucket


@given(LATENCIES.filter(bool))
def test_a_bucket_holds_what_lies_between_two_powers_of_gamma(latency_us: int) -> None:
    power = bucket_of(latency_us) - 1
    assert latency_us * 50**power <= 51**power
    assert power == 0 or latency_us * 50 ** (power - 1) > 51 ** (power - 1)


@pytest.mark.parametrize("high", [1_000_000, MAX_LATENCY_US])
def test_the_value_of_a_bucket_is_within_one_percent_of_all_it_holds(high: int) -> None:
    random = np.random.default_rng().integers(0, high, 200_000, endpoint=True)
    latencies = np.arange(1_000_001) if high == 1_000_000 else np.append(random, high)
    assert (np.abs(VALUES[buckets_of(latencies)] - latencies) <= 0.01 * latencies).all()


def test_bounds_ascend_and_reach_the_greatest_latency() -> None:
    assert (np.diff(BOUNDS) >= 0).all()
    assert BOUNDS[-2] < MAX_LATENCY_US <= BOUNDS[-1]


@given(st.lists(LATENCIES), st.lists(LATENCIES))
def test_the_histogram_of_two_lots_is_their_sum(some: list[int], others: list[int]) -> None:
    def histogram(latencies: list[int]) -> np.ndarray:
        return np.bincount(buckets_of(np.array(latencies, dtype=np.int64)), minlength=len(BOUNDS))

    assert (histogram(some) + histogram(others) == histogram(some + others)).all()


@given(st.lists(LATENCIES, min_size=1), st.integers(0, 1_000))
def test_a_quantile_is_the_value_of_the_nearest_ranks_bucket(latencies: list[int], permille: int) -> None:
    buckets, counts = np.unique(buckets_of(np.array(latencies, dtype=np.int64)), return_counts=True)
    rank = max(-(-len(latencies) * permille // 1_000), 1)
    exact = sorted(latencies)[rank - 1]
    assert quantile(buckets, counts, permille) == value_of(bucket_of(exact))


@given(st.lists(LATENCIES, min_size=1), st.sampled_from([500, 900, 990]))
def test_a_quantile_is_numpys_within_one_percent(latencies: list[int], permille: int) -> None:
    buckets, counts = np.unique(buckets_of(np.array(latencies, dtype=np.int64)), return_counts=True)
    exact = np.quantile(latencies, permille / 1_000, method="inverted_cdf")
    assert quantile(buckets, counts, permille) == pytest.approx(exact, rel=0.01)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert quantile(np.zeros(0, np.int16), np.zeros(0, np.int64), 500) is None
