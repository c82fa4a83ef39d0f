"""What raw rows say of the time before an objective, whatever tables have of it."""

from dataclasses import replace

import polars as pl

from streams.core.objectives import Objective
from streams.core.past import Question
from streams.core.rows import Steps
from streams.core.slices import COUNTS
from streams.history.rows import RawRows
from streams.history.sums import SUMS, Cut, Span, sums_of_objective
from streams.sql.client import Endpoint

# Asked in the background of a cluster that has other work: what takes more is refused, and asked again later.
_MOST_S = 30
_SETTINGS = {"max_execution_time": _MOST_S, "max_threads": 1, "max_memory_usage": 1 << 30}
_ANSWER_S = _MOST_S + 10.0
_SEALS_ALL_MS = 1 << 62


class RawPast:
    """Asks one ClickHouse, a question after the other. Every method raises ServerError and UnreachableError."""

    def __init__(self, rows: RawRows, partitions: int) -> None:
        self._rows = rows
        self._frontiers = dict.fromkeys(range(partitions), _SEALS_ALL_MS)

    @classmethod
    def at(cls, url: str, partitions: int) -> "RawPast":
        """Within limits of time and memory. Raises AddressError."""
        settings = tuple((name, str(value)) for name, value in _SETTINGS.items())
        return cls(RawRows(replace(Endpoint.parse(url), timeout_s=_ANSWER_S, settings=settings)), partitions)

    def parts(self, source: str, question: Question) -> tuple[Question, ...]:
        """The question in parts of not too many rows each, the newest first; none where no event is."""
        spans = self._rows.spans(source, Span(question.start_s, question.end_s))
        return tuple(Question(question.tier, span.start_s, span.end_s) for span in reversed(spans))

    def steps(self, objective: Objective, question: Question) -> Steps:
        """As the objective judges, under series 0. Late is what came late for its own append time."""
        span = Span(question.start_s, question.end_s)
        cut = Cut(objective.source, self._frontiers)
        histograms = question.tier is not COUNTS
        sql = sums_of_objective(cut, objective, [span], span, question.tier, histograms=histograms)
        return Steps.from_frame(self._rows.frame(sql, SUMS).with_columns(pl.lit(0, pl.UInt32).alias("series")))
