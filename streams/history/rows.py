"""The archive's raw rows, asked over ClickHouse's HTTP protocol: sums of them, and how far they reach."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from streams.core.slices import SLICE_MS
from streams.history.sums import AHEAD_MS, TABLES, Setback, Span, places, quoted, setbacks
from streams.sql.client import Endpoint

HOUR_S = 3_600
# Of one question, so that it is answered well within the time that the embedded store allows: some million rows a
# second and core.
MOST_ROWS = 20_000_000
MOST_SETBACKS = 2_000


class RawRowsError(RuntimeError):
    """The raw rows are not such that sums of them could be compared with tables; says why."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the archive holds of one partition of a topic.

    Rows of all records from the one appended at `first_ms`, whose offset is `first`, up to that of offset `last`. The
    frontier there is `frontier_ms`. `missing`: rows that the last plan announces and that are not there yet.
    """

    first: int
    first_ms: int
    last: int
    frontier_ms: int
    missing: int

    @property
    def whole_from_ms(self) -> int:
        """Nothing appended from then on is missing; 0 when nothing ever was."""
        return self.first_ms if self.first else 0


class RawRows:
    """Asks one ClickHouse. Every method raises ServerError and UnreachableError."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.asked = 0

    def frame(self, sql: str, schema: pl.Schema) -> pl.DataFrame:
        """An answer with its columns in this order and of these types, whatever they are called."""
        self.asked += 1
        data = b"".join(self._endpoint.ask(sql, "ArrowStream"))
        if not data:
            return pl.DataFrame(schema=schema)
        found = pl.read_ipc_stream(io.BytesIO(data))
        return found.rename(dict(zip(found.columns, schema.names(), strict=True))).cast(schema)

    def reaches(self, source: str) -> dict[int, Reach]:
        """By partition, of those that have a plan."""
        rows = self.frame(
            "SELECT toInt64(partition), tupleElement(last, 1), tupleElement(last, 2), toInt64(tupleElement(last, 3)), "  # noqa: S608 - names of our own
            "tupleElement(last, 4) FROM (SELECT partition, argMax((first_offset, last_offset, rows, "
            "toUnixTimestamp64Milli(received_to)), revision) AS last FROM telemetry.archive_plans "
            f"WHERE topic = {quoted(source)} GROUP BY partition)",
            _longs("partition", "first", "last", "rows", "received_to"),
        )
        plans = {row[0]: row[1:] for row in rows.iter_rows()}
        if not plans:
            return {}
        planned = " OR ".join(
            f"kafka_partition = {partition} AND kafka_offset BETWEEN {first} AND {last}"
            for partition, (first, last, *_) in plans.items()
        )
        counted = self.frame(
            f"SELECT toInt64(kafka_partition) AS part, toInt64(uniqExact(kafka_offset)) FROM {TABLES[source]} "  # noqa: S608 - as above
            f"WHERE {planned} GROUP BY part",
            _longs("partition", "rows"),
        )
        there = dict(counted.iter_rows())
        lasts = f"transform(part, {list(plans)}, {[last for _, last, *_ in plans.values()]}, toInt64(-1))"
        ends = self.frame(
            f"SELECT part, min(place), argMin(at, place), max(at) FROM ({places(source)}) "  # noqa: S608 - as above
            f"WHERE place <= {lasts} GROUP BY part",
            _longs("partition", "first", "first_ms", "frontier_ms"),
        )
        known = {row[0]: row[1:] for row in ends.iter_rows()}
        return {
            partition: _reach(known.get(partition), last, received_to, rows - there.get(partition, 0))
            for partition, (_, last, rows, received_to) in plans.items()
        }

    def setbacks(self, source: str, since_s: int) -> list[Setback]:
        """Where append times went back, among records that slices from `since_s` on are in. Raises RawRowsError."""
        sql = setbacks(source, since_s * SLICE_MS - AHEAD_MS, MOST_SETBACKS)
        found = self.frame(sql, _longs("partition", "after", "to", "frontier_ms"))
        if found.height > MOST_SETBACKS:
            raise RawRowsError(
                f"append times of {source} went back at more than {MOST_SETBACKS} places; expected brokers' clocks "
                "that go on"
            )
        return [Setback(*row) for row in found.iter_rows()]

    def spans(self, source: str, span: Span) -> list[Span]:
        """The hours of a span that have rows, as stretches of not too many rows each."""
        from_ms, to_ms = span.start_s * SLICE_MS, span.end_s * SLICE_MS
        rows = self.frame(
            f"SELECT toInt64(toUnixTimestamp(toStartOfHour(ts))) AS hour, toInt64(count()) FROM {TABLES[source]} "  # noqa: S608 - as above
            f"WHERE ts >= fromUnixTimestamp64Milli({from_ms}, 'UTC') AND ts < fromUnixTimestamp64Milli({to_ms}, 'UTC') "
            "GROUP BY hour",
            _longs("hour", "rows"),
        )
        return packed(dict(rows.iter_rows()), span)


def packed(rows: Mapping[int, int], span: Span, most: int = MOST_ROWS) -> list[Span]:
    """Hours (by their first second) with so many rows each, in stretches of at most `most`, or of one hour."""
    found: list[Span] = []
    held = 0
    for hour, n in sorted(rows.items()):
        begin, end = max(hour, span.start_s), min(hour + HOUR_S, span.end_s)
        if found and held + n <= most:
            found[-1] = Span(found[-1].start_s, end)
            held += n
        else:
            found.append(Span(begin, end))
            held = n
    return found


def _reach(known: tuple[int, int, int] | None, last: int, received_to: int, missing: int) -> Reach:
    """Of a partition of which no record is there any more, everything up to the last plan is missing."""
    first, first_ms, frontier_ms = known or (last + 1, received_to, received_to)
    return Reach(first, first_ms, last, max(frontier_ms, received_to), missing)


def _longs(*names: str) -> pl.Schema:
    return pl.Schema(dict.fromkeys(names, pl.Int64()))
