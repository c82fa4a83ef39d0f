"""Sums of slices over windows: totals, good events, latencies."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.calendars import Calendar
from streams.core.histogram import BOUNDS, NO_BUCKET, value_of
from streams.core.slices import HOURS, MINUTES, SECONDS, Tier

Longs = npt.NDArray[np.int64]

PERMILLES = (500, 900, 990)
_VALUES = np.array([value_of(bucket) for bucket in range(len(BOUNDS))])


@dataclass(frozen=True, slots=True)
class Window:
    """[start_s, end_s) of event time, read from `tier`; whole steps of it."""

    window_s: int
    tier: Tier
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Events that begin at `start_s`; quantiles are nearest-rank in µs, within 1 %, of those whose latency is known.

    Without any such event they are None.
    `first_s` is the start of the first step that has events.
    """

    start_s: int
    total: int = 0
    good: int = 0
    late: int = 0
    sum_us: int = 0
    max_us: int = 0
    p50_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    first_s: int | None = None


def tier_for(window_s: int) -> Tier:
    """The finest tier that still holds all of a window."""
    return next((tier for tier in (SECONDS, MINUTES) if window_s <= tier.keep_s), HOURS)


def sliding(window_s: int, now_ms: int) -> Window:
    """The window that ends with the step that `now_ms` is in; its start is rounded down to a step."""
    tier = tier_for(window_s)
    end = (now_ms // 1000 // tier.step_s + 1) * tier.step_s
    start = (now_ms // 1000 + 1 - window_s) // tier.step_s * tier.step_s
    return Window(window_s, tier, start, end)


def current(calendar: Calendar, now_ms: int) -> Window:
    """The period that `now_ms` is in, up to the end of its hour; `window_s` is the length of all of it.

    Raises ZoneInfoNotFoundError.
    """
    begin_s, end_s = calendar.period(now_ms // 1000)
    return Window(end_s - begin_s, HOURS, begin_s, (now_ms // 1000 // HOURS.step_s + 1) * HOURS.step_s)


def quantiles(by_bucket: Longs) -> list[float | None]:
    """P50, P90 and P99 of counts by bucket, in µs: nearest-rank, within 1 %; None without any."""
    seen = np.cumsum(by_bucket)
    if not len(seen) or not seen[-1]:
        return [None] * len(PERMILLES)
    ranks = [-(-int(seen[-1]) * permille // 1000) for permille in PERMILLES]
    values: list[float | None] = _VALUES[np.searchsorted(seen, ranks, side="left")].tolist()
    return values


def summarize(rows: pl.DataFrame) -> Iterator[Summary]:
    """One summary for each `start`; `rows` as SloTable.read gives them: one series, sorted by start."""
    starts = rows["start"].to_numpy()
    first = np.flatnonzero(np.diff(starts, prepend=starts[:1] - 1))
    for begin, end in zip(first, [*first[1:], len(starts)], strict=False):  # no pair without rows
        yield summarize_all(rows[int(begin) : int(end)], int(starts[begin]))


def summarize_all(rows: pl.DataFrame, start_s: int) -> Summary:
    """All rows as one; `start_s` is the window's."""
    if rows.is_empty():
        return Summary(start_s)
    n = rows["n"].to_numpy()
    buckets = rows["bucket"].to_numpy()
    known = buckets != NO_BUCKET
    by_bucket = np.bincount(buckets[known], weights=n[known], minlength=1).astype(np.int64)
    p50, p90, p99 = quantiles(by_bucket)
    return Summary(
        start_s,
        total=int(n.sum()),
        good=int(n[rows["good"].to_numpy()].sum()),
        late=int(rows["late_n"].to_numpy().sum()),
        sum_us=int(rows["sum_us"].to_numpy().sum()),
        max_us=int(rows["max_us"].to_numpy().max()),
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        first_s=int(rows["start"].to_numpy().min()),
    )
