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
    """Exact figures of one window of event time; latencies in microseconds, percentiles by nearest rank."""

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
    order = np.lexsort((latency, ts // width_ms))
    latency, good, bucket = latency[order], good[order], (ts // width_ms)[order]
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    totals = np.diff(np.r_[starts, bucket.size])
    columns = (
        bucket[starts] * width_ms,
        totals,
        np.add.reduceat(good.astype(np.int64), starts),
        np.add.reduceat(latency, starts),
        latency[starts + totals - 1],
        latency[starts + rank(totals, 50)],
        latency[starts + rank(totals, 99)],
    )
    return {start: Window(*rest) for start, *rest in zip(*(column.tolist() for column in columns), strict=True)}


def rank(totals: Ints, percent: int) -> Ints:
    """Index of the nearest-rank percentile in each group of that many sorted values: ⌈percent · n / 100⌉ − 1."""
    return -(-totals * percent // 100) - 1


def selected(results: Results, promise: Promise) -> npt.NDArray[np.bool_]:
    """True for each result that the SLO counts."""
    chosen = np.ones(results.ts.size, dtype=np.bool_)
    for column, value in promise.where:
        chosen &= results.name(column).equal(value)
    return chosen


def judged(results: Results, promise: Promise) -> npt.NDArray[np.bool_]:
    """True for each result that is good by the SLO's own threshold."""
    if promise.latency_us_le is None:
        return results.success
    return results.success & (results.latency_us <= promise.latency_us_le)
