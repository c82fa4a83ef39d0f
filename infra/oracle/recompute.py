"""What the views must show, recomputed from the ledger with plain sorting: no histogram, no state, no stream code."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.oracle.ledger import Results
from infra.oracle.objectives import Promise

SLICE_MS = 1_000
MINUTE_MS = 60_000
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Exact figures of one window of event time; latencies in microseconds, percentiles by nearest rank.

    Where no latency was measured, those and the percentiles are 0.
    """

    total: int
    good: int
    sum_us: int
    max_us: int
    p50_us: float
    p99_us: float


def windows(results: Results, promise: Promise, width_ms: int) -> dict[int, Window]:
    """The windows with at least one selected result, by their start in ms, a multiple of the width."""
    chosen = selected(results, promise)
    if not chosen.any():
        return {}
    ts, latency, good = results.ts[chosen], results.latency_us[chosen], judged(results, promise)[chosen]
    known = measured(results)[chosen]
    order = np.lexsort((latency, known, ts // width_ms))  # in each window what was not measured is first, as 0
    latency, good, bucket, known = latency[order], good[order], (ts // width_ms)[order], known[order]
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    totals = np.diff(np.r_[starts, bucket.size])
    knowns = np.add.reduceat(known.astype(np.int64), starts)
    lasts = starts + totals - 1
    columns = (
        bucket[starts] * width_ms,
        totals,
        np.add.reduceat(good.astype(np.int64), starts),
        np.add.reduceat(latency, starts),
        latency[lasts],
        *(latency[np.minimum(lasts - knowns + 1 + rank(knowns, percent), lasts)] for percent in (50, 99)),
    )
    return {start: Window(*rest) for start, *rest in zip(*(column.tolist() for column in columns), strict=True)}


def rank(totals: Ints, percent: int) -> Ints:
    """Index of the nearest-rank percentile in each group of that many sorted values: ⌈percent · n / 100⌉ − 1."""
    return -(-totals * percent // 100) - 1


def measured(results: Results) -> npt.NDArray[np.bool_]:
    """True for each result whose latency is known."""
    return np.ones(results.ts.size, dtype=np.bool_) if results.measured is None else results.measured


def selected(results: Results, promise: Promise) -> npt.NDArray[np.bool_]:
    """True for each result that the SLO counts: with a threshold those only whose latency is known."""
    chosen = np.ones(results.ts.size, dtype=np.bool_) if promise.latency_us_le is None else measured(results)
    for column, value in promise.where:
        chosen = chosen & results.name(column).equal(value)
    return chosen


def judged(results: Results, promise: Promise) -> npt.NDArray[np.bool_]:
    """True for each result that is good by the SLO's own threshold."""
    if promise.latency_us_le is None:
        return results.success
    return results.success & (results.latency_us <= promise.latency_us_le)
