"""Steps of the stream's tables against sums of raw rows: every difference by series, step and field. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from streams.core.series import OVERFLOW
from streams.state.kept import NAMED

STEP = ["series", "start"]
ROW = [*STEP, "bucket", "good"]
_COUNTS = ("n", "late_n", "sum_us", "max_us")
_TOTALS = ("total", "good", "late", "sum_us", "max_us")


@dataclass(frozen=True, slots=True)
class Difference:
    """`field`: total, good, late, sum_us, max_us, or a column of one bucket when these are all equal."""

    series: str
    start_s: int
    field: str
    stream: int
    raw: int


def differences(stream: pl.DataFrame, raw: pl.DataFrame) -> Iterator[Difference]:
    """Of rows as NAMED, in order of series and time; of a step whose totals are equal the first bucket that differs."""
    raw = with_overflow(stream, raw)
    unequal = _unequal(stream, raw, ROW, _COUNTS)
    if unequal.is_empty():
        return
    steps = unequal.select(STEP).unique()
    ours, theirs = (_totals(rows.join(steps, on=STEP, how="semi")) for rows in (stream, raw))
    totals = _unequal(ours, theirs, STEP, _TOTALS)
    told = _fields(totals, _TOTALS)
    found = list(_differences(told))
    silent = unequal.join(told, on=STEP, how="anti").sort(ROW).group_by(STEP, maintain_order=True).first()
    for row in silent.iter_rows(named=True):
        where = f"bucket {row['bucket']} {'good' if row['good'] else 'bad'}"
        column = next(name for name in _COUNTS if row[name] != row[f"{name}_raw"])
        found.append(Difference(row["series"], row["start"], f"{column} of {where}", row[column], row[f"{column}_raw"]))
    yield from sorted(found, key=lambda each: (each.series, each.start_s))


def steps_of(stream: pl.DataFrame, raw: pl.DataFrame) -> int:
    """How many steps of series there are to compare."""
    return pl.concat([stream.select(STEP), raw.select(STEP)]).unique().height


def with_overflow(stream: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
    """Raw rows as a bounded table has them: of a step that has an overflow, what names lack is the overflow's.

    Which series had names in a step depends on what was sealed when (docs/adr/0018), so only the sum over names and
    overflow is exact there. Nothing is passed over by that: a name with more than its raw rows stays different, and so
    does an overflow of another size.
    """
    overflow = stream.filter(pl.col("series") == OVERFLOW)
    if overflow.is_empty():
        return raw
    bounded = raw.join(overflow.select("start").unique(), on="start", how="semi")
    named = bounded.join(stream.select(*ROW, *_COUNTS), on=ROW, how="left", suffix="_named")
    lacking = named.with_columns(pl.col(f"{name}_named").fill_null(0) for name in _COUNTS).filter(
        pl.col("n") > pl.col("n_named")
    )
    rest = lacking.select(
        pl.lit(OVERFLOW).alias("series"),
        *("start", "bucket", "good"),
        *(pl.col(name) - pl.col(f"{name}_named") for name in ("n", "late_n", "sum_us")),
        "max_us",
    )
    # The greatest latency of those without a name is at most this; which one it is the sums do not tell.
    sums = rest.group_by(ROW).agg(pl.col("n", "late_n", "sum_us").sum(), pl.col("max_us").max())
    known = overflow.select(*ROW, most="max_us")
    sums = sums.join(known, on=ROW, how="left").with_columns(
        max_us=pl.min_horizontal("max_us", pl.col("most").fill_null(pl.col("max_us")))
    )
    kept = lacking.filter(pl.col("n_named") > 0).select(
        *ROW, *(pl.col(f"{name}_named").alias(name) for name in _COUNTS)
    )
    others = raw.join(lacking.select(ROW), on=ROW, how="anti")
    return pl.concat([others.select(NAMED.names()), *(rows.select(NAMED.names()) for rows in (kept, sums))])


def _unequal(stream: pl.DataFrame, raw: pl.DataFrame, keys: list[str], columns: tuple[str, ...]) -> pl.DataFrame:
    """Both side by side, zeros where one has no row, without what is equal."""
    both = stream.select(*keys, *columns).join(
        raw.select(*keys, *columns), on=keys, how="full", coalesce=True, suffix="_raw"
    )
    both = both.with_columns(pl.exclude(keys).fill_null(0))
    return both.filter(pl.any_horizontal(pl.col(name) != pl.col(f"{name}_raw") for name in columns))


def _totals(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by(STEP).agg(
        total=pl.col("n").sum(),
        good=pl.col("n").filter(pl.col("good")).sum(),
        late=pl.col("late_n").sum(),
        sum_us=pl.col("sum_us").sum(),
        max_us=pl.col("max_us").max(),
    )


def _fields(totals: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """One row for each field that differs."""
    parts = [
        totals.filter(pl.col(name) != pl.col(f"{name}_raw")).select(
            *STEP, field=pl.lit(name), at=pl.lit(place), stream=pl.col(name), raw=pl.col(f"{name}_raw")
        )
        for place, name in enumerate(columns)
    ]
    return pl.concat(parts).sort(*STEP, "at")


def _differences(told: pl.DataFrame) -> Iterator[Difference]:
    for series, start_s, field, stream, raw in told.drop("at").iter_rows():
        yield Difference(series, start_s, field, stream, raw)
