"""Steps of tables as raw rows have them: sums made in ClickHouse, under the names that series have in tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from streams.core.series import LABELS, series_name
from streams.core.slices import Tier
from streams.history.judging import Judging
from streams.history.rows import RawRows
from streams.history.sums import LABELLED, NOT_SEALED, SUMS, Cut, Span, sums_of_objective, sums_of_series

STEPS = pl.Schema({"series": pl.String(), **SUMS})


@dataclass(slots=True)
class Recount:
    """Counts again what tables have sealed that stand at `cuts`, one of each topic; `not_sealed`: events beyond."""

    rows: RawRows
    cuts: Mapping[str, Cut]
    not_sealed: int = 0
    _spans: dict[tuple[str, Span], list[Span]] = field(default_factory=dict)

    def objective(self, series: str, judging: Judging, span: Span, tier: Tier, *, histograms: bool) -> pl.DataFrame:
        """Rows as STEPS of one version of an objective; `span` has whole steps."""
        parts = [pl.DataFrame(schema=STEPS)]
        cut = self.cuts.get(judging.objective.source)
        if cut is None:  # nothing of its topic is sealed
            return parts[0]
        for part in self._parts(cut.source, span):
            judged = [each for each in judging.slices if each.start_s < part.end_s and each.end_s > part.start_s]
            if not judged:
                continue
            sql = sums_of_objective(cut, judging.objective, judged, part, tier, histograms=histograms)
            found = self._sealed(self.rows.frame(sql, SUMS))
            parts.append(found.select(pl.lit(series).alias("series"), *SUMS.names()))
        return pl.concat(parts)

    def plain(self, span: Span, tier: Tier, *, histograms: bool) -> Iterator[pl.DataFrame]:
        """Rows as STEPS of all plain series, a stretch of time after the other."""
        for source, cut in self.cuts.items():
            for part in self._parts(source, span):
                found = self._sealed(self.rows.frame(sums_of_series(cut, part, tier, histograms=histograms), LABELLED))
                yield _named(found, source)

    def _parts(self, source: str, span: Span) -> list[Span]:
        if (source, span) not in self._spans:
            self._spans[source, span] = self.rows.spans(source, span)
        return self._spans[source, span]

    def _sealed(self, rows: pl.DataFrame) -> pl.DataFrame:
        self.not_sealed += int(rows.filter(pl.col("bucket") == NOT_SEALED)["n"].sum())
        return rows.filter(pl.col("bucket") != NOT_SEALED)


def _named(rows: pl.DataFrame, source: str) -> pl.DataFrame:
    labels = rows.select(LABELS).unique()
    names = [
        series_name(service, endpoint, region, kind, source) for service, endpoint, region, kind in labels.iter_rows()
    ]
    known = labels.with_columns(series=pl.Series(names, dtype=pl.String))
    return rows.join(known, on=LABELS, how="left").select(STEPS.names())
