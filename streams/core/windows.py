"""Sums of slices over windows: totals, good events, latencies."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from streams.core.histogram import BOUNDS, value_of
from streams.core.slices import HOURS, MINUTES, SECONDS, Tier

_VALUES = np.array([value_of(bucket) for bucket in range(len(BOUNDS))])
PERMILLES = {"p50_us": 500, "p90_us": 900, "p99_us": 990}


@dataclass(frozen=True, slots=True)
class Window:
    """[start_s, end_s) of event time, read from `tier`; whole steps of it."""

    window_s: int
    tier: Tier
    start_s: int
    end_s: int


def tier_for(window_s: int) -> Tier:
    """The finest tier that still holds all of a window."""
    return next((tier for tier in (SECONDS, MINUTES) if window_s <= tier.keep_s), HOURS)


def sliding(window_s: int, now_ms: int) -> Window:
    """The window that ends with the step that `now_ms` is in; its start is rounded down to a step."""
    tier = tier_for(window_s)
    end = (now_ms // 1000 // tier.step_s + 1) * tier.step_s
    start = (now_ms // 1000 + 1 - window_s) // tier.step_s * tier.step_s
    return Window(window_s, tier, start, end)


def summarize(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a `start`: total, good, late, sum_us, max_us and the nearest-rank P50, P90, P99 (µs, within 1 %).

    `rows` as SloTable.read gives them: sorted by start and bucket, one series.
    """
    by_bucket = rows.group_by("start", "bucket").agg(pl.col("n").sum()).sort("start", "bucket")
    ranked = by_bucket.with_columns(seen=pl.col("n").cum_sum().over("start"), all=pl.col("n").sum().over("start"))
    quantiles = [
        pl.col("bucket").filter(pl.col("seen") * 1000 >= pl.col("all") * permille).first().alias(name)
        for name, permille in PERMILLES.items()
    ]
    buckets = ranked.group_by("start").agg(quantiles)
    values = pl.Series(_VALUES)
    latencies = buckets.select(
        "start", *(values.gather(buckets[name].clip(0).cast(pl.UInt32)).alias(name) for name in PERMILLES)
    )
    sums = rows.group_by("start").agg(
        pl.col("n").sum().alias("total"),
        pl.col("n").filter(pl.col("good")).sum().alias("good"),
        pl.col("late_n").sum().alias("late"),
        pl.col("sum_us").sum(),
        pl.col("max_us").max(),
    )
    return sums.join(latencies, on="start").sort("start")
