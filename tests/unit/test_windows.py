"""Which steps a window sums, from which tier, and what their summary says."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.histogram import buckets_of, value_of
from streams.core.rows import STEP_SCHEMA
from streams.core.slices import HOURS, MINUTES, SECONDS, Tier
from streams.core.windows import Summary, Window, sliding, summarize, summarize_all, tier_for

NOW_S = 1_763_000_045  # :05:45 past an hour


@pytest.mark.parametrize(
    ("window_s", "tier"),
    [
        (1, SECONDS), (60, SECONDS), (600, SECONDS),
        (601, MINUTES), (3_600, MINUTES), (21_600, MINUTES), (23_400, MINUTES),
        (23_401, HOURS), (86_400, HOURS), (35 * 86_400, HOURS),
    ],
)  # fmt: skip
def test_a_window_is_read_from_the_finest_tier_that_holds_it(window_s: int, tier: Tier) -> None:
    assert tier_for(window_s) is tier


@pytest.mark.parametrize(
    ("window_s", "now_ms", "start_s", "end_s"),
    [
        (60, NOW_S * 1_000, NOW_S - 59, NOW_S + 1),  # with the second that has just begun
        (60, NOW_S * 1_000 + 999, NOW_S - 59, NOW_S + 1),
        (60, NOW_S * 1_000 + 1_000, NOW_S - 58, NOW_S + 2),
        (3_600, NOW_S * 1_000, NOW_S - 3_600 - 5, NOW_S + 55),  # :05 to :06, whole minutes
        (86_400, NOW_S * 1_000, 1_762_912_800, 1_763_002_800),  # whole hours
    ],
)
def test_windows_end_with_the_step_that_now_is_in(window_s: int, now_ms: int, start_s: int, end_s: int) -> None:
    assert sliding(window_s, now_ms) == Window(window_s, tier_for(window_s), start_s, end_s)


@given(st.sampled_from([1, 60, 300, 600, 3_600, 21_600, 86_400, 35 * 86_400]), st.integers(0, 2**42))
def test_a_window_is_whole_steps_covers_all_of_itself_and_less_than_a_step_more(window_s: int, now_ms: int) -> None:
    window, last = sliding(window_s, now_ms), now_ms // 1_000
    step = window.tier.step_s
    assert window.start_s % step == window.end_s % step == 0
    assert last - window_s + 1 - step < window.start_s <= last - window_s + 1
    assert last < window.end_s <= last + step


@pytest.mark.parametrize("window_s", [600, 23_400, 35 * 86_400])
def test_a_tier_still_holds_the_longest_window_that_is_read_from_it(window_s: int) -> None:
    """A chunk is dropped when it ended more than `keep_s` before the frontier, which may be ahead of nothing."""
    for now_s in range(NOW_S, NOW_S + 2 * 86_400, 977):
        window = sliding(window_s, now_s * 1_000)
        tier = window.tier
        chunk_end = window.start_s // tier.chunk_s * tier.chunk_s + tier.chunk_s
        assert chunk_end + tier.keep_s >= now_s


def steps(*rows: tuple[int, int, bool, int, int, int, int]) -> pl.DataFrame:
    """Of (start, bucket, good, n, late_n, sum_us, max_us)."""
    full = [(start, 0, *rest) for start, *rest in rows]
    return pl.DataFrame(full, schema=STEP_SCHEMA, orient="row")


def test_a_summary_of_two_seconds() -> None:
    rows = steps(
        (5, 37, False, 1, 0, 2, 2), (5, 37, True, 2, 1, 4, 2), (5, 234, True, 1, 0, 100, 100), (7, 0, True, 1, 1, 0, 0)
    )  # fmt: skip
    two, hundred = value_of(37), value_of(234)
    assert list(summarize(rows)) == [
        Summary(5, 4, 3, 1, 106, 100, two, hundred, hundred, 5),
        Summary(7, 1, 1, 1, 0, 0, 0.0, 0.0, 0.0, 7),
    ]


def test_all_steps_of_a_window_are_one_summary() -> None:
    rows = steps((5, 37, True, 1, 0, 2, 2), (7, 0, False, 2, 1, 0, 0))
    assert summarize_all(rows, 1) == Summary(1, 3, 1, 1, 2, 2, 0.0, value_of(37), value_of(37), 5)


def test_of_nothing_there_are_no_steps_and_an_empty_window() -> None:
    assert list(summarize(steps())) == []
    assert summarize_all(steps(), 60) == Summary(60)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5_000), st.booleans()), min_size=1))
def test_quantiles_of_a_summary_are_those_of_all_its_events(events: list[tuple[int, int, bool]]) -> None:
    bucket = buckets_of(np.array([latency for _, latency, _ in events], dtype=np.int64)).tolist()
    rows = [(start, b, good, 1, 0, us, us) for (start, us, good), b in zip(events, bucket, strict=True)]
    found = list(summarize(steps(*sorted(rows))))
    assert [each.start_s for each in found] == sorted({start for start, *_ in events})
    assert sum(each.total for each in found) == len(events)
    assert sum(each.good for each in found) == sum(good for *_, good in events)
    for each in found:
        latencies = sorted(us for at, us, _ in events if at == each.start_s)
        exact = [latencies[-(-len(latencies) * permille // 1_000) - 1] for permille in (500, 900, 990)]
        assert [each.p50_us, each.p90_us, each.p99_us] == pytest.approx(exact, rel=0.01)
