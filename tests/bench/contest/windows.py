"""What every peer must come to: windows of 60 s every 10 s for each (service, endpoint), as integers. Pure.

A window that starts at s holds [s, s + 60) of event time; s is a multiple of 10. Its histogram counts events by the
buckets of streams/core/histogram.py, whose bounds are worked out here once more.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Longs = npt.NDArray[np.int64]

SIZE_S, STEP_S = 60, 10
WINDOW = ["pair", "start_s"]
# Of one bucket of one pair, at a second of event time or in a window that starts there.
COUNTED = pl.Schema(
    {"pair": pl.String, "start_s": pl.Int64, "bucket": pl.Int64, "n": pl.Int64, "good": pl.Int64, "sum_us": pl.Int64}
)
TOTALS = pl.Schema({"pair": pl.String, "start_s": pl.Int64, "total": pl.Int64, "good": pl.Int64, "sum_us": pl.Int64})
HISTOGRAM = pl.Schema({"pair": pl.String, "start_s": pl.Int64, "bucket": pl.Int64, "n": pl.Int64})


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows that hold an event: rows as TOTALS, and as HISTOGRAM without zeros; both sorted."""

    totals: pl.DataFrame
    histogram: pl.DataFrame

    @classmethod
    def of(cls, totals: pl.DataFrame, histogram: pl.DataFrame) -> "Windows":
        """Of rows in any order."""
        return cls(
            totals.select(TOTALS.names()).cast(TOTALS).sort(WINDOW),
            histogram.select(HISTOGRAM.names()).cast(HISTOGRAM).filter(pl.col("n") != 0).sort(*WINDOW, "bucket"),
        )

    @property
    def count(self) -> int:
        """How many windows there are."""
        return self.totals.height


def bounds() -> list[int]:
    """The greatest latency of each bucket in µs, up to a day: 0, then the whole parts of 1.02 to 0, 1, 2 and so on."""
    found = [0]
    while found[-1] < 86_400_000_000:
        found.append(51 ** (len(found) - 1) // 50 ** (len(found) - 1))
    return found


def slide(counted: pl.DataFrame) -> Windows:
    """The windows of rows (COUNTED) whose `start_s` is a second of event time."""
    sums = pl.col("n", "good", "sum_us").sum()
    stepped = counted.with_columns(pl.col("start_s") // STEP_S * STEP_S).group_by(*WINDOW, "bucket").agg(sums)
    shifted = [stepped.with_columns(pl.col("start_s") - back) for back in range(0, SIZE_S, STEP_S)]
    rows = pl.concat(shifted).group_by(*WINDOW, "bucket").agg(sums)
    totals = rows.group_by(WINDOW).agg(
        total=pl.col("n").sum(), good=pl.col("good").sum(), sum_us=pl.col("sum_us").sum()
    )
    return Windows.of(totals, rows)


def recompute(
    pairs: Sequence[str], codes: Longs, ts_ms: Longs, good: npt.NDArray[np.bool_], latency_us: Longs
) -> Windows:
    """The windows of events in columns; `codes` are indices into `pairs`."""
    limits = bounds()
    values, places = np.unique(latency_us, return_inverse=True)
    buckets = np.array([bisect_left(limits, value) for value in values.tolist()], dtype=np.int64)[places]
    rows = {"code": codes, "start_s": ts_ms // 1_000, "bucket": buckets, "good": good, "latency_us": latency_us}
    seconds = pl.DataFrame(rows).group_by("code", "start_s", "bucket")
    counted = seconds.agg(n=pl.len(), good=pl.col("good").sum(), sum_us=pl.col("latency_us").sum())
    names = pl.Series("pair", pairs, dtype=pl.String)
    return slide(counted.with_columns(pair=names.gather(counted["code"])).select(COUNTED.names()).cast(COUNTED))


def from_lists(found: Iterable[tuple[str, int, Sequence[int]]]) -> Windows:
    """Of (pair, start in s, [total, good, sum_us, first bucket, counts from there on…]) for each window."""
    rows = list(found)
    totals = [(pair, start_s, *counts[:3]) for pair, start_s, counts in rows]
    histogram = [row for pair, start_s, counts in rows for row in _buckets(pair, start_s, counts)]
    return Windows.of(
        pl.DataFrame(totals, schema=TOTALS, orient="row"), pl.DataFrame(histogram, schema=HISTOGRAM, orient="row")
    )


def _buckets(pair: str, start_s: int, counts: Sequence[int]) -> Iterator[tuple[str, int, int, int]]:
    return ((pair, start_s, bucket, n) for bucket, n in enumerate(counts[4:], counts[3]) if n)


def difference(expected: Windows, found: Windows) -> str:
    """What is not equal, with an example; empty when all integers are."""
    parts = [
        _frames("totals", WINDOW, expected.totals, found.totals),
        _frames("histogram", [*WINDOW, "bucket"], expected.histogram, found.histogram),
    ]
    return "; ".join(part for part in parts if part)


def _frames(what: str, key: list[str], expected: pl.DataFrame, found: pl.DataFrame) -> str:
    if expected.equals(found):
        return ""
    missing = expected.join(found, on=expected.columns, how="anti")
    foreign = found.join(expected, on=expected.columns, how="anti")
    example: dict[str, Any] = next(iter((missing if missing.height else foreign).sort(key).to_dicts()), {})
    whose = "expected" if missing.height else "not expected"
    return (
        f"{what}: {missing.height} rows missing and {foreign.height} foreign of {expected.height}; {whose}: {example}"
    )
