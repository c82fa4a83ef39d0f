"""Request counts → rows with weights, as the rollup groups them: one for each bucket and outcome of a record.

A row stands for `n` requests. A record's `sum_us` and `max_us` are not told apart by bucket: they stand with its last
row, so sums over all rows of a record are what it says. Without a histogram the rows have no bucket.
"""

import polars as pl

from streams.core.histogram import NO_BUCKET
from streams.core.series import LABELS

KIND = "requests"
_LAST_MS = 1 << 62  # whatever is later is the same: far ahead of every clock
WANTED = ("service", "endpoint", "region", "ts", "window_ms", "total", "good", "sum_us", "max_us", "histogram")


def weigh(counts: pl.DataFrame) -> pl.DataFrame:
    """Rows with `_row`, the four labels, ts, success, bucket, n, sum_us, max_us, in the order of `counts`.

    The requests of a window count where it ends: in the second of its last millisecond. A window that ends now would
    be late where it begins.
    """
    told = counts.select(
        "_row",
        *[label for label in LABELS if label != "kind"],
        pl.lit(KIND).alias("kind"),
        (pl.col("ts").clip(upper_bound=_LAST_MS) + pl.col("window_ms") - 1).alias("ts"),
        *("total", "good", "sum_us", "max_us"),
        pl.when(pl.col("histogram").list.len() > 0).then(pl.col("histogram")).alias("histogram"),
    )
    bare = told.filter(pl.col("histogram").is_null()).with_columns(pl.lit(NO_BUCKET, pl.Int16).alias("bucket"))
    items = told.filter(pl.col("histogram").is_not_null()).drop("total", "good").explode("histogram")
    items = items.unnest("histogram").with_columns(pl.col("bucket").cast(pl.Int16))
    columns = [name for name in bare.columns if name != "histogram"]
    both = pl.concat([bare.select(columns), items.select(columns)])
    rows = pl.concat(
        [
            both.with_columns(pl.lit(outcome).alias("success"), n.alias("n")).drop("total", "good")
            for outcome, n in ((True, pl.col("good")), (False, pl.col("total") - pl.col("good")))
        ]
    ).filter(pl.col("n") > 0)
    rows = rows.sort("_row", "bucket", "success")
    last = pl.col("_row").ne_missing(pl.col("_row").shift(-1))
    return rows.with_columns(pl.when(last).then(pl.col(name)).otherwise(0).alias(name) for name in ("sum_us", "max_us"))
