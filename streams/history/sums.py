"""Sums over raw rows as SQL: which rows a table has sealed, in which step and bucket they are, and whether good. Pure.

The rules are those of the rollup (docs/adr/0004), written once more in another language. ClickHouse adds up; what
comes back has a row for each series, step, bucket and outcome.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from streams.core.histogram import BOUNDS, NO_BUCKET, buckets_of
from streams.core.objectives import Objective
from streams.core.series import LABELS
from streams.core.signing import Doubt
from streams.core.slices import LATENESS_MS, SLICE_MS, Tier
from streams.core.sources import COUNTS, PROBES
from streams.core.weights import KIND

TABLES = {PROBES: "telemetry.probe_results", COUNTS: "telemetry.request_counts"}
# Events are at most so far ahead of their append time, by which tables are cut into days.
AHEAD_MS = 5_000
# In the place of a bucket: rows that the tables do not have sealed yet.
NOT_SEALED = -2
SUMS = pl.Schema(
    {
        "start": pl.Int64(),
        "bucket": pl.Int16(),
        "good": pl.Boolean(),
        "n": pl.Int64(),
        "late_n": pl.Int64(),
        "sum_us": pl.Int64(),
        "max_us": pl.Int64(),
    }
)
LABELLED = pl.Schema([*dict.fromkeys(LABELS, pl.String()).items(), *SUMS.items()])


@dataclass(frozen=True, slots=True)
class Setback:
    """Records of a partition behind `after` and up to `to` whose frontier is `frontier_ms`, though appended earlier."""

    partition: int
    after: int
    to: int
    frontier_ms: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows of a topic that count: those sealed by each partition's frontier (ms). `setbacks` of append times."""

    source: str
    frontiers: Mapping[int, int]
    setbacks: Sequence[Setback] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Slices from `start_s` up to, not including, `end_s`."""

    start_s: int
    end_s: int


def sums_of_objective(  # noqa: PLR0913 - what rows, of what, and how summed
    cut: Cut, objective: Objective, judged: Collection[Span], span: Span, tier: Tier, *, histograms: bool
) -> str:
    """Rows as SUMS of what the objective's version selects, of the slices that it judges (`judged`)."""
    selected = [
        f"{label} = {quoted(value)}" for label, value in asdict(objective.selector).items() if value is not None
    ]
    within = " OR ".join(f"slice_s >= {each.start_s} AND slice_s < {each.end_s}" for each in judged) or "false"
    rows = _rows(cut, span, objective.latency_us_le, all_of([*selected, f"({within})"]))
    return _summed(rows, tier, "", histograms=histograms)


def sums_of_series(cut: Cut, span: Span, tier: Tier, *, histograms: bool) -> str:
    """Rows as LABELLED of all series, in which an event is good when it succeeded."""
    labels = ", ".join(f"toString({label}) AS {label}_" for label in LABELS)
    return _summed(_rows(cut, span, None, "true"), tier, f"{labels}, ", histograms=histograms)


def setbacks(source: str, since_ms: int, most: int) -> str:
    """Rows (partition, after, to, frontier_ms): where a record was appended earlier than one before it.

    Records that make no row count too: their append times are in dead_letters.
    """
    return f"""
SELECT toInt64(part) AS partition, lowest AS after, reach AS to, at AS frontier_ms FROM (
    SELECT part, at, lowest, max(highest) OVER (
        PARTITION BY part ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reach
    FROM (
        SELECT part, at, min(place) AS lowest, max(place) AS highest
        FROM ({places(source)}) WHERE at >= {since_ms} GROUP BY part, at
    )
) WHERE reach > lowest ORDER BY part, lowest LIMIT {most + 1}"""  # noqa: S608 - numbers and names of our own


def places(source: str) -> str:
    """A query of where all records of a topic stand that the archive knows of: part, place (offset), at (ms)."""
    return f"""
SELECT toInt64(kafka_partition) AS part, kafka_offset AS place, toUnixTimestamp64Milli(received_at) AS at
FROM {TABLES[source]}
UNION ALL SELECT toInt64(partition) AS part, offset AS place, toUnixTimestamp64Milli(append_ts) AS at
FROM telemetry.dead_letters WHERE topic = {quoted(source)}"""  # noqa: S608 - names of our own


def quoted(text: str) -> str:
    """A string as SQL has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def all_of(conditions: Collection[str]) -> str:
    """Their conjunction."""
    return " AND ".join(conditions) or "true"


def _summed(rows: str, tier: Tier, labels: str, *, histograms: bool) -> str:
    bucket = "in_bucket" if histograms else str(NO_BUCKET)
    keys = "start, bucket, good" + "".join(f", {label}_" for label in LABELS if labels)
    return f"""
WITH CAST({_bounds()}, 'Array(UInt64)') AS bounds, CAST({_nexts()}, 'Array(UInt16)') AS nexts
SELECT {labels}intDiv(slice_s, {tier.step_s}) * {tier.step_s} AS start,
    toInt16(if(is_sealed, {bucket}, {NOT_SEALED})) AS bucket, toBool(is_good) AS good,
    toInt64(sum(weight)) AS n, toInt64(sumIf(weight, was_late)) AS late_n,
    toInt64(sum(all_us)) AS sum_us, toInt64(max(most_us)) AS max_us
FROM ({rows}) GROUP BY {keys}"""  # noqa: S608 - as above


def _rows(cut: Cut, span: Span, latency_us_le: int | None, where: str) -> str:
    """One row for each bucket and outcome of a record."""
    from_ms, to_ms = span.start_s * SLICE_MS, span.end_s * SLICE_MS
    limit = (
        f"transform(toInt64(kafka_partition), {_longs(cut.frontiers)}, {_longs(cut.frontiers.values())}, toInt64(0))"
    )
    parts, kind = (_PROBE, "kind") if cut.source == PROBES else (_COUNT, quoted(KIND))
    return f"""
SELECT *, {_good(cut.source, latency_us_le)} AS is_good FROM (
    SELECT *, (slice_s + 1) * {SLICE_MS} + {LATENESS_MS} <= frontier_ms AS was_late,
        if(was_late, (intDiv(frontier_ms, {SLICE_MS}) + 1) * {SLICE_MS}, (slice_s + 1) * {SLICE_MS} + {LATENESS_MS})
            <= {limit} AS is_sealed
    FROM (
        SELECT service, endpoint, region, {kind} AS kind, kafka_partition, {parts},
            toInt64(intDiv(toUnixTimestamp64Milli(ts), {SLICE_MS})) AS slice_s, {_frontier(cut.setbacks)} AS frontier_ms
        FROM {TABLES[cut.source]}
        WHERE ts >= fromUnixTimestamp64Milli({from_ms}, 'UTC') AND ts < fromUnixTimestamp64Milli({to_ms}, 'UTC')
            AND received_at >= fromUnixTimestamp64Milli({from_ms - AHEAD_MS}, 'UTC')
            AND {_not_refused(cut.source, from_ms - AHEAD_MS)}
    )
) WHERE {where}{_judged(cut.source, latency_us_le)}"""  # noqa: S608 - as above


def _not_refused(source: str, since_ms: int) -> str:
    """Records that workers have refused for their signatures are rows, and letters too."""
    reasons = ", ".join(map(quoted, Doubt))
    return f"""(toInt32(kafka_partition), kafka_offset) NOT IN (
                SELECT partition, offset FROM telemetry.dead_letters WHERE topic = {quoted(source)}
                    AND reason IN ({reasons}) AND append_ts >= fromUnixTimestamp64Milli({since_ms}, 'UTC'))"""  # noqa: S608 - as above


_PROBE = """toUInt8(success) AS succeeded, toInt64(latency_us) AS all_us, all_us AS most_us, toInt64(1) AS weight,
            if(latency_us = 0, 0, transform(roundDown(toUInt64(latency_us - 1), bounds), bounds, nexts, toUInt16(0)))
                AS in_bucket"""
# As `streams.core.weights`: in order of buckets, what failed first; sum_us and max_us stand with the last one.
_COUNT = f"""arraySort(part -> (part.1, part.2), arrayFilter(part -> part.3 > 0, if(empty(histogram_bucket),
                [(toInt64({NO_BUCKET}), toUInt8(0), total - good), (toInt64({NO_BUCKET}), toUInt8(1), good)],
                arrayConcat(
                    arrayMap((b, t, g) -> (b, toUInt8(0), t - g), histogram_bucket, histogram_total, histogram_good),
                    arrayMap((b, g) -> (b, toUInt8(1), g), histogram_bucket, histogram_good))
            ))) AS outcomes,
            arrayJoin(arrayMap((part, nth) -> (part.1, part.2, part.3,
                if(nth = length(outcomes), sum_us, 0), if(nth = length(outcomes), max_us, 0)
            ), outcomes, arrayEnumerate(outcomes))) AS one,
            one.1 AS in_bucket, one.2 AS succeeded, one.3 AS weight, one.4 AS all_us, one.5 AS most_us"""


def _good(source: str, latency_us_le: int | None) -> str:
    if latency_us_le is None:
        return "succeeded"
    if source == PROBES:
        return f"succeeded AND all_us <= {latency_us_le}"
    return f"succeeded AND in_bucket <= {int(buckets_of(np.array([latency_us_le]))[0])}"


def _judged(source: str, latency_us_le: int | None) -> str:
    """A threshold says nothing of requests whose latency nobody knows."""
    return f" AND in_bucket != {NO_BUCKET}" if source == COUNTS and latency_us_le is not None else ""


def _frontier(found: Sequence[Setback]) -> str:
    """The greatest append time up to a record: its own, unless append times went back."""
    own = "toUnixTimestamp64Milli(received_at)"
    if not found:
        return own
    columns = zip(*[(each.partition, each.after, each.to, each.frontier_ms) for each in found], strict=True)
    parts, afters, ends, times = (_longs(column) for column in columns)
    inside = "part = toInt64(kafka_partition) AND after < kafka_offset AND kafka_offset <= until"
    met = f"arrayMap((part, after, until, at) -> if({inside}, at, 0), {parts}, {afters}, {ends}, {times})"
    return f"greatest({own}, toInt64(arrayMax({met})))"


def _longs(values: Collection[int]) -> str:
    return f"CAST([{', '.join(map(str, values))}], 'Array(Int64)')"


def _bounds() -> list[int]:
    """Every bound of a bucket once: many of the first buckets are empty."""
    return [int(bound) for bound in np.unique(BOUNDS)]


def _nexts() -> list[int]:
    """For each of them the bucket of what is just above it."""
    _, first = np.unique(BOUNDS, return_index=True)
    return [*first[1:].tolist(), len(BOUNDS)]
