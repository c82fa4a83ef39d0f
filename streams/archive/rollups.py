"""Rollups by minute and hour: how they differ from the rows they are made of, and how they are made again."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from streams.archive.ddl import DATABASE
from streams.archive.plans import Plan, where
from streams.archive.retention import whole_from
from streams.archive.schema import expected_columns, views

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
_WAIT_S, _PAUSE_S, _TRIES = 5.0, 0.05, 3
_SIMPLE = re.compile(r"SimpleAggregateFunction\((?P<function>\w+),")
_STATE = re.compile(r"AggregateFunction\((?P<function>\w+)(?P<parameters>\([^)]*\))?,")
_REBUILD_SETTINGS = "insert_deduplicate = 0, max_bytes_before_external_group_by = 268435456"


@dataclass(frozen=True, slots=True)
class Rollup:
    """One table that a view fills. `start` is its first column; `measures` says how to read each of the others."""

    table: str
    source: str
    start: str
    step_s: int
    keys: tuple[str, ...]
    measures: Mapping[str, str]
    finals: Mapping[str, str]
    select: str
    coarser: "Rollup | None" = None

    @property
    def raw(self) -> bool:
        """Whether it is made of raw rows."""
        return self.step_s == MINUTE_S


@dataclass(frozen=True, slots=True)
class Difference:
    """One series in one minute or hour; None where the source, or the rollup, has nothing of it."""

    rollup: str
    start: datetime
    received_on: date
    series: Mapping[str, str]
    source: Mapping[str, Any] | None
    kept: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Cells:
    """Minutes, or hours, by their start in seconds, as far as their rows arrived on one day."""

    day: date
    starts: tuple[int, ...]


@cache
def rollups() -> dict[str, Rollup]:
    """The rollups by minute, by the raw table that each is made of."""
    columns, made = expected_columns(), dict[str, Rollup]()
    for table, view in views().items():
        kinds = columns[table]
        start = next(iter(kinds))
        keys = tuple(name for name, kind in kinds.items() if "AggregateFunction(" not in kind)
        source = view.select.partition(f"FROM {DATABASE}.")[2].split()[0]
        measures = {name: _merged(name, kind) for name, kind in kinds.items() if name not in keys}
        finals = {
            name: f"finalizeAggregation({name})" if kinds[name].startswith("AggregateFunction(") else name
            for name in measures
        }
        step_s = MINUTE_S if start == "minute" else HOUR_S
        made[source] = Rollup(table, source, start, step_s, keys, measures, finals, view.select)
    return {raw: replace(rollup, coarser=made.get(rollup.table)) for raw, rollup in made.items() if rollup.raw}


def differences(client: Any, rollup: Rollup, cells: Cells, most: int = 100) -> list[Difference]:  # noqa: ANN401
    """Where the rollup is not what its source makes, `most` at most. Integers and sketches are compared, no ratios."""
    keys = ", ".join(rollup.keys)
    found = client.query(
        f"SELECT {keys}, countIf(side = 0), countIf(side = 1), anyIf(m, side = 0), anyIf(m, side = 1) "  # noqa: S608
        f"FROM ({_both(rollup, cells)}) GROUP BY {keys} HAVING count() != 2 OR uniqExact(m) != 1 "
        f"ORDER BY {keys} LIMIT {most}"
    )
    return [_difference(rollup, row) for row in found.result_rows]


def differing(client: Any, rollup: Rollup, cells: Cells) -> Cells:  # noqa: ANN401
    """The cells of `cells` in which any series differs."""
    keys = ", ".join(rollup.keys)
    found = client.query(
        f"SELECT DISTINCT toUnixTimestamp({rollup.start}) FROM (SELECT {keys} FROM ({_both(rollup, cells)}) "  # noqa: S608
        f"GROUP BY {keys} HAVING count() != 2 OR uniqExact(m) != 1) ORDER BY ALL"
    )
    return Cells(cells.day, tuple(start for (start,) in found.result_rows))


def rebuild(client: Any, rollup: Rollup, cells: Cells) -> None:  # noqa: ANN401
    """Makes these cells again from the source, and then what is coarser. May be broken off and repeated.

    An insert into the source meanwhile may be counted twice, or not at all: look again when it has ended.
    """
    for chunk in _by_hour(cells):
        client.command(
            f"DELETE FROM {DATABASE}.{rollup.table} WHERE {_of_table(rollup, chunk)} "  # noqa: S608
            "SETTINGS lightweight_deletes_sync = 2"
        )
        columns = ", ".join([*rollup.keys, *rollup.measures])
        client.command(
            f"INSERT INTO {DATABASE}.{rollup.table} ({columns}) SELECT {columns} "  # noqa: S608
            f"FROM ({_made(rollup, chunk)}) SETTINGS {_REBUILD_SETTINGS}"
        )
    if rollup.coarser:
        # the inserts above have gone through the coarser view as well, which is undone by this
        rebuild(client, rollup.coarser, coarse(cells, rollup.coarser))


def mend(client: Any, table: str, plans: Sequence[Plan]) -> str | None:  # noqa: ANN401
    """Makes the minutes that the plans' rows touch equal to the raw rows again; what keeps it from that, if anything.

    `table` is the full name of the raw table. Days of which raw rows may have expired are left as they are.
    """
    rollup = rollups().get(table.removeprefix(f"{DATABASE}."))
    asked = [plan for plan in plans if plan.rows]
    if rollup is None or not asked:
        return None
    whole = whole_from(client, rollup.source)
    for cells in touched(client, rollup, asked):
        if cells.day >= whole and (wrong := make_equal(client, rollup, cells)):
            return wrong
    return None


def make_equal(client: Any, rollup: Rollup, cells: Cells) -> str | None:  # noqa: ANN401
    """Rebuilds what differs until nothing does, also while others insert; a reason when it still does."""
    for attempt in range(_TRIES):
        wrong = differing(client, rollup, cells)
        hours = coarse(cells, rollup.coarser) if rollup.coarser else Cells(cells.day, ())
        wrong_hours = differing(client, rollup.coarser, hours) if rollup.coarser else hours
        if not wrong.starts and not wrong_hours.starts:
            return None
        if attempt == _TRIES - 1:
            break
        if wrong.starts:
            rebuild(client, rollup, wrong)
        elif rollup.coarser:
            rebuild(client, rollup.coarser, wrong_hours)
        if running := _outlast_inserts(client, rollup):
            return running
    return (
        f"{rollup.table}: {len(wrong.starts)} minutes and {len(wrong_hours.starts)} hours of {cells.day} differ from "
        f"{rollup.source}, also after they were made again"
    )


def touched(client: Any, rollup: Rollup, plans: Sequence[Plan]) -> list[Cells]:  # noqa: ANN401
    """The minutes of the plans' raw rows, by day of arrival."""
    return by_minute(client, rollup, where(plans))


def by_minute(client: Any, rollup: Rollup, condition: str) -> list[Cells]:  # noqa: ANN401
    """The minutes of the raw rows that meet a condition, by day of arrival."""
    found = client.query(
        "SELECT DISTINCT toDate(received_at), toUnixTimestamp(toStartOfMinute(toDateTime(ts, 'UTC'))) "  # noqa: S608
        f"FROM {DATABASE}.{rollup.source} WHERE {condition} ORDER BY ALL"
    )
    return _cells(found.result_rows)


def filled(client: Any, rollup: Rollup, since: datetime, until: datetime) -> list[Cells]:  # noqa: ANN401
    """Hours of event time in which raw rows or the rollup have anything, each with all its minutes."""
    a, b = int(since.timestamp()), int(until.timestamp())
    hours = "SELECT DISTINCT {day} AS day, toUnixTimestamp(toStartOfHour({at})) AS hour FROM telemetry.{table}"
    raw = hours.format(day="toDate(received_at)", at="toDateTime(ts, 'UTC')", table=rollup.source)
    kept = hours.format(day="received_on", at="minute", table=rollup.table)
    early = (
        f"received_at >= fromUnixTimestamp64Milli({(a - MINUTE_S) * 1000}, 'UTC')"  # ts is never 5 s later than that
    )
    found = client.query(
        f"SELECT day, hour FROM ({raw} WHERE {early} AND {_from_to('ts', a, b)} UNION DISTINCT "  # noqa: S608
        f"{kept} WHERE minute >= toDateTime({a}, 'UTC') AND minute < toDateTime({b}, 'UTC')) ORDER BY ALL"
    )
    minutes = ((day, hour + n) for day, hour in found.result_rows for n in range(0, HOUR_S, MINUTE_S))
    return [
        chunk
        for cells in _cells((day, minute) for day, minute in minutes if a <= minute < b)
        for chunk in _by_hour(cells)
    ]


def fill(client: Any, table: str, told: Callable[[str], None] = lambda _: None) -> int:  # noqa: ANN401
    """Makes the whole rollup of raw rows that were there before it; returns how many hours."""
    rollup = next(rollup for rollup in rollups().values() if rollup.table == table)
    hours = filled(client, rollup, datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(1 << 32, UTC))
    for done, cells in enumerate(hours):
        told(f"{table}: {done} of {len(hours)} hours")
        rebuild(client, rollup, cells)
    return len(hours)


def coarse(cells: Cells, coarser: Rollup) -> Cells:
    """The hours that the minutes are in."""
    return Cells(cells.day, tuple(sorted({start - start % coarser.step_s for start in cells.starts})))


def _outlast_inserts(client: Any, rollup: Rollup) -> str | None:  # noqa: ANN401
    """Waits for other archives' inserts that run now: they may have been counted by halves."""
    running = (
        "SELECT query_id FROM system.processes WHERE query_kind = 'Insert' "  # noqa: S608 - our own names
        f"AND position(query, '{DATABASE}.{rollup.source}') > 0"
    )
    ids = {row[0] for row in client.query(running).result_rows}
    deadline = time.monotonic() + _WAIT_S
    while ids:
        if time.monotonic() > deadline:
            return f"{rollup.table}: the inserts {', '.join(sorted(ids))} still run"
        time.sleep(_PAUSE_S)
        ids &= {row[0] for row in client.query(running).result_rows}
    return None


def _both(rollup: Rollup, cells: Cells) -> str:
    """A row a series with side 0, as the source makes it, and one with side 1, as the rollup has it."""
    keys = ", ".join(rollup.keys)
    made = f"SELECT 0 AS side, {keys}, tuple({', '.join(rollup.finals.values())}) AS m FROM ({_made(rollup, cells)})"  # noqa: S608
    kept = (
        f"SELECT 1 AS side, {keys}, tuple({', '.join(rollup.measures.values())}) AS m "  # noqa: S608
        f"FROM {DATABASE}.{rollup.table} WHERE {_of_table(rollup, cells)} GROUP BY {keys}"
    )
    return f"{made} UNION ALL {kept}"


def _made(rollup: Rollup, cells: Cells) -> str:
    """The view's statement over the source rows of these cells."""
    condition = _of_raw(cells) if rollup.raw else _of_source(rollup, cells)
    name = f"{DATABASE}.{rollup.source}"
    return rollup.select.replace(f"FROM {name}", f"FROM (SELECT * FROM {name} WHERE {condition})")  # noqa: S608


def _of_raw(cells: Cells) -> str:
    first, last = _day_s(cells.day), _day_s(cells.day) + DAY_S
    minute = "toStartOfMinute(toDateTime(ts, 'UTC'))"
    return (
        f"{_from_to('received_at', first, last)} AND "
        f"{_from_to('ts', min(cells.starts), max(cells.starts) + MINUTE_S)} AND {_one_of(minute, cells.starts)}"
    )


def _of_source(rollup: Rollup, cells: Cells) -> str:
    """Of minutes, for hours."""
    return (
        f"received_on = '{cells.day}' AND minute >= toDateTime({min(cells.starts)}, 'UTC') "
        f"AND minute < toDateTime({max(cells.starts) + rollup.step_s}, 'UTC') "
        f"AND {_one_of('toStartOfHour(minute)', cells.starts)}"
    )


def _of_table(rollup: Rollup, cells: Cells) -> str:
    return (
        f"received_on = '{cells.day}' AND {rollup.start} >= toDateTime({min(cells.starts)}, 'UTC') "
        f"AND {rollup.start} <= toDateTime({max(cells.starts)}, 'UTC') AND {_one_of(rollup.start, cells.starts)}"
    )


def _one_of(start: str, starts: Sequence[int]) -> str:
    return f"toUnixTimestamp({start}) IN ({', '.join(map(str, starts))})"


def _from_to(column: str, first_s: int, end_s: int) -> str:
    at, end = (f"fromUnixTimestamp64Milli({second * 1000}, 'UTC')" for second in (first_s, end_s))
    return f"{column} >= {at} AND {column} < {end}"


def _by_hour(cells: Cells) -> Iterator[Cells]:
    hours: dict[int, list[int]] = {}
    for start in cells.starts:
        hours.setdefault(start // HOUR_S, []).append(start)
    return (Cells(cells.day, tuple(starts)) for starts in hours.values())


def _cells(rows: Iterable[Sequence[Any]]) -> list[Cells]:
    """By day of arrival and day of event, so that no statement grows too long."""
    days: dict[tuple[date, int], list[int]] = {}
    for day, start in rows:
        days.setdefault((day, start // DAY_S), []).append(start)
    return [Cells(day, tuple(starts)) for (day, _), starts in days.items()]


def _day_s(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_S


def _merged(name: str, kind: str) -> str:
    """How a column of an aggregate's kind is summed up over rows of the same key."""
    if simple := _SIMPLE.match(kind):
        return f"{simple['function']}({name})"
    if state := _STATE.match(kind):
        return f"{state['function']}Merge{state['parameters'] or ''}({name})"
    raise ValueError(f"column {name} {kind}: expected an aggregate")


def _difference(rollup: Rollup, row: Sequence[Any]) -> Difference:
    width = len(rollup.keys)
    at = dict(zip(rollup.keys, row[:width], strict=True))
    made, kept, source, own = row[width:]
    start, day = at.pop(rollup.start), at.pop("received_on")
    return Difference(
        rollup.table,
        start if start.tzinfo else start.replace(tzinfo=UTC),
        day,
        at,
        dict(zip(rollup.measures, source, strict=True)) if made else None,
        dict(zip(rollup.measures, own, strict=True)) if kept else None,
    )
