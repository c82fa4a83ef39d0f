"""A range of a table as one Parquet file, written piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streams.archive.ddl import DATABASE
from streams.archive.rollups import Rollup, rollups
from streams.store.places import AskedWronglyError, Place, StoreError, read_range
from streams.store.steps import Steps

PIECE_ROWS = 200_000
_TIME = pa.timestamp("ms", "UTC")


@dataclass(frozen=True, slots=True)
class Exported:
    """How a table is read: its columns, where from, by which time, what else narrows that down, what is no text."""

    columns: str
    source: str
    time: str
    group: str = ""
    lower: str = ""
    opaque: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Event time from `first_s` up to, not including, `end_s`, which holds so many rows."""

    first_s: int
    end_s: int
    rows: int


def run_export(place: Place, table: str, file: Path, since: str, until: str) -> int:
    """Writes the file. Raises AskedWronglyError, StoreError."""
    known = tables()
    if table not in known:
        raise AskedWronglyError(f"table {table!r}: expected one of {', '.join(sorted(known))}")
    if file.exists():
        raise AskedWronglyError(f"{file}: exists already; expected a new file")
    begin, end = read_range(since, until)
    unfinished = file.with_name(file.name + ".unfinished")
    with place.opened() as client:
        try:
            rows = export(client, known[table], unfinished, begin, end)
        except OSError as cause:
            raise StoreError(f"{unfinished}: {cause.strerror or cause}") from cause
    unfinished.rename(file)
    print(f"{file}: {rows:,} rows of {table} from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}")
    return 0


def tables() -> dict[str, Exported]:
    """What can be written. Rollups are summed up, with their quantiles as a list."""
    found = {
        raw: Exported("*", raw, "ts", lower="received_at >= toDateTime64({first_s}, 3, 'UTC') - INTERVAL 5 SECOND")
        for raw in rollups()
    }
    found |= {
        "slo_windows": Exported("*", "slo_windows FINAL", "window_start"),
        "node_states": Exported("*", "node_states FINAL", "since"),
        "dead_letters": Exported("*", "dead_letters FINAL", "received_at", opaque=("key", "value")),
    }
    for rollup in rollups().values():
        for each in (rollup, rollup.coarser):
            if each:
                found[each.table] = _summed(each)
    return found


def export(client: Any, what: Exported, file: Path, begin: datetime, end: datetime) -> int:  # noqa: ANN401
    """Writes rows ordered by time; returns how many. In memory is one piece, of about 200,000 rows."""
    written, writer = 0, None
    first_s, end_s = int(begin.timestamp()), -int(-end.timestamp() // 1)
    todo = list(pieces(_counts(client, what, first_s, end_s), end_s))
    total = sum(piece.rows for piece in todo)
    try:
        with Steps("export") as steps:
            for piece in todo or [Piece(first_s, first_s, 0)]:
                part = _typed(client.query_arrow(_query(what, piece, begin, end), use_strings=False), what)
                writer = writer or pq.ParquetWriter(file, part.schema, compression="zstd")
                writer.write_table(part.cast(writer.schema))
                written += part.num_rows
                steps.at(written, total, "rows")
    finally:
        if writer:
            writer.close()
    return written


def pieces(counts: list[tuple[int, int]], end_s: int) -> Iterator[Piece]:
    """Minutes of (start in s, rows), in order, taken together up to 200,000 rows; larger ones are cut into seconds."""
    first_s, rows = None, 0
    for start, count in counts:
        if first_s is not None and rows + count > PIECE_ROWS:
            yield Piece(first_s, start, rows)
            first_s, rows = None, 0
        if count > PIECE_ROWS:
            parts = min(-(-count // PIECE_ROWS), 60)
            bounds = [start + 60 * part // parts for part in range(parts + 1)]
            for a, b in pairwise(bounds):
                yield Piece(a, b, count // parts)
            continue
        first_s = start if first_s is None else first_s
        rows += count
    if first_s is not None:
        yield Piece(first_s, end_s, rows)


def _typed(part: pa.Table, what: Exported) -> pa.Table:
    """As a reader needs it: ClickHouse gives all text as bytes, and a start of a minute as seconds.

    Text of ours is UTF-8; key and value of a dead letter are what somebody sent, which nobody could read.
    """
    for at, field in enumerate(part.schema):
        kind = field.type
        if field.name not in what.opaque:
            kind = _as_text(kind)
        if field.name == what.time and pa.types.is_uint32(kind):
            seconds = part[at].cast(pa.int64()).cast(pa.timestamp("s", "UTC"))
            part = part.set_column(at, field.with_type(_TIME), seconds.cast(_TIME))
        elif kind != field.type:
            part = part.set_column(at, field.with_type(kind), part[at].cast(kind))
    return part


def _as_text(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_map(kind):
        return pa.map_(_as_text(kind.key_type), _as_text(kind.item_type))
    return pa.string() if pa.types.is_binary(kind) else kind


def _counts(client: Any, what: Exported, first_s: int, end_s: int) -> list[tuple[int, int]]:  # noqa: ANN401
    lower = what.lower.format(first_s=first_s)
    found = client.query(
        f"SELECT toUnixTimestamp(toStartOfMinute(toDateTime({what.time}, 'UTC'))) AS minute_s, count() "  # noqa: S608
        f"FROM {DATABASE}.{what.source} WHERE {_between(what.time, first_s, end_s)}{f' AND {lower}' if lower else ''} "
        "GROUP BY minute_s ORDER BY minute_s"
    )
    return [(int(start), int(count)) for start, count in found.result_rows]


def _query(what: Exported, piece: Piece, begin: datetime, end: datetime) -> str:
    lower = what.lower.format(first_s=piece.first_s)
    exact = " AND ".join(
        f"{what.time} {sign} fromUnixTimestamp64Milli({int(at.timestamp() * 1000)}, 'UTC')"
        for sign, at in ((">=", begin), ("<", end))
    )
    return (
        f"SELECT {what.columns} FROM {DATABASE}.{what.source} WHERE {_between(what.time, piece.first_s, piece.end_s)} "  # noqa: S608
        f"AND {exact}{f' AND {lower}' if lower else ''} {what.group} ORDER BY {what.time}"
    )


def _between(time: str, first_s: int, end_s: int) -> str:
    return f"{time} >= toDateTime({first_s}, 'UTC') AND {time} < toDateTime({end_s}, 'UTC')"


def _summed(rollup: Rollup) -> Exported:
    keys = ", ".join(rollup.keys)
    measures = ", ".join(f"{how} AS {name}_" for name, how in rollup.measures.items())
    return Exported(f"{keys}, {measures}", rollup.table, rollup.start, f"GROUP BY {keys}")
