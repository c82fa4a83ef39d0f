"""Rows of a tier in a fraction of the memory: for chunks that are closed, and hardly ever read or changed again."""

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from streams.core.histogram import NO_BUCKET
from streams.core.rows import STEP_SCHEMA, Keys, Steps, of_series, renumbered, series_in
from streams.core.series import Mask, Numbers

_COUNTS = ("n", "late_n", "sum_us", "max_us")


@dataclass(frozen=True, slots=True)
class Packed:
    """`series`: the numbers that occur, ascending; `data`: the rows, with places in `series` instead of numbers."""

    series: Numbers
    data: bytes

    @classmethod
    def of(cls, steps: Steps) -> Self:
        """Of rows in key order."""
        series = numbers_in(steps.key)
        places = np.zeros(int(series[-1]) + 1 if len(series) else 0, np.uint32)
        places[series] = np.arange(len(series), dtype=np.uint32)
        local = Steps(renumbered(steps.key, places), *(getattr(steps, name) for name in _COUNTS)).frame()
        # Most rows are of one event: what they say twice costs next to nothing as a difference. Of columns in
        # ascending order differences are small, too.
        columns = local.cast({"series": pl.Int64}).with_columns(
            *[pl.col(name).diff().fill_null(pl.col(name).first()) for name in ("start", "series")],
            pl.col("bucket") - NO_BUCKET,
            sum_us=pl.col("sum_us") - pl.col("max_us"),
        )
        out = io.BytesIO()
        narrow = columns.select(pl.Series(column).shrink_dtype() for column in columns)
        narrow.write_ipc_stream(out, compression="zstd", compat_level=pl.CompatLevel.oldest())
        return cls(series, out.getvalue())

    def steps(self) -> Steps:
        """The rows."""
        narrow = pl.read_ipc_stream(io.BytesIO(self.data)).cast(dict.fromkeys(_WIDE, pl.Int64))
        numbers = pl.Series(self.series, dtype=pl.UInt32)
        columns = narrow.with_columns(
            pl.col("start").cum_sum(),
            (pl.col("bucket") + NO_BUCKET).cast(pl.Int16),
            series=numbers.gather(narrow["series"].cum_sum()) if narrow.height else numbers,
            sum_us=pl.col("sum_us") + pl.col("max_us"),
        )
        return Steps.from_frame(columns.select(STEP_SCHEMA.names()))

    def of_series(self, series: int) -> Steps:
        """The rows of one series; those of others are not looked at when it has none."""
        place = int(np.searchsorted(self.series, series))
        if place == len(self.series) or self.series[place] != series:
            return Steps.empty()
        steps = self.steps()
        return steps.where(of_series(steps.key, series))


_WIDE = ("start", "series", "bucket", *_COUNTS)


def numbers_in(keys: Keys) -> Numbers:
    """The series that occur in some keys, ascending."""
    series = series_in(keys)
    used: Mask = np.zeros(int(series.max()) + 1 if len(series) else 0, np.bool_)
    used[series] = True
    return np.flatnonzero(used).astype(np.uint32)
