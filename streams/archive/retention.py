"""How long rows are kept: what was asked for, the TTL that does it, and of which days all raw rows are still there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from streams.archive.ddl import DATABASE, migrations

_DAY_MS, _MARGIN_MS = 86_400_000, 3_600_000
_HISTORY = f"{DATABASE}.archive_retention"
_CREATE = re.compile(
    rf"CREATE TABLE IF NOT EXISTS {DATABASE}\.(\w+) .*\bTTL (?P<at>\S+) \+ INTERVAL (?P<days>\d+) DAY DELETE", re.DOTALL
)
_FOUND = re.compile(r"\+ toIntervalDay\((?P<days>\d+)\)(?P<cold> TO VOLUME 'cold')?")
_AGE = re.compile(r"(?P<table>\w+)=(?P<days>[1-9]\d{0,3})d")
RAW = ("probe_results", "heartbeats", "request_counts")
_FIRST_DAYS = 14
"""Of raw rows, as the numbered files say it."""
_FOREVER_DAYS = 36_500
"""Of a table without a TTL, which somebody has made otherwise."""
_KEPT = {"heartbeats": 3}
"""Where the default is not what the numbered files say."""


class RetentionError(ValueError):
    """What was asked for cannot be; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Age:
    """After so many days rows are deleted, and before that, perhaps, moved to the volume `cold`."""

    days: int
    cold_days: int | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """A table that expires: by which expression, and when unless something else is asked for."""

    at: str
    days: int


def expiries() -> dict[str, Expiry]:
    """The tables that expire, by name."""
    found = (_CREATE.match(statement) for migration in migrations() for statement in migration.statements)
    return {made[1]: Expiry(made["at"], _KEPT.get(made[1], int(made["days"]))) for made in found if made}


def ages(keep: Sequence[str], cold_after: Sequence[str] = ()) -> dict[str, Age]:
    """The age of every table, from `TABLE=DAYSd` of --keep and --cold-after. Raises RetentionError."""
    tables = expiries()
    kept = {name: expiry.days for name, expiry in tables.items()} | _read(keep, "--keep", tables)
    cold = _read(cold_after, "--cold-after", tables)
    for table, days in cold.items():
        if days >= kept[table]:
            raise RetentionError(
                f"--cold-after {table}={days}d: rows are deleted after {kept[table]} days; expected less than that"
            )
    return {name: Age(days, cold.get(name)) for name, days in kept.items()}


def apply(client: Any, wanted: Mapping[str, Age]) -> dict[str, str]:  # noqa: ANN401 - clickhouse-connect is not typed
    """Changes every TTL that is not as `wanted`; returns the changes. Raises RetentionError, what the client raises."""
    found = client.query(
        f"SELECT name, create_table_query, storage_policy FROM system.tables WHERE database = '{DATABASE}'"  # noqa: S608
    )
    there = {name: (age_of(created), policy) for name, created, policy in found.result_rows}
    changes = {}
    for table, age in wanted.items():
        now, policy = there[table]
        if table in RAW:
            _note(client, table, now.days)  # what somebody has set by hand counts too
        if now == age:
            continue
        to = _cold_policy(client, policy) if age.cold_days else None
        if table in RAW:
            _note(client, table, age.days)  # before it can take effect
        for statement in statements(table, age, None if to == policy else to):
            client.command(statement)
        changes[table] = f"{_said(now)} -> {_said(age)}"
    return changes


def statements(table: str, age: Age, policy: str | None = None) -> list[str]:
    """What makes a table expire like that; `policy` moves it to a storage policy with a volume `cold` first."""
    at = expiries()[table].at
    cold = f"{at} + INTERVAL {age.cold_days} DAY TO VOLUME 'cold', " if age.cold_days else ""
    moved = [f"ALTER TABLE {DATABASE}.{table} MODIFY SETTING storage_policy = '{policy}'"] if policy else []
    return [
        # of parts that are there only the time of expiry is worked out anew, no row is written again
        f"ALTER TABLE {DATABASE}.{table} MODIFY SETTING materialize_ttl_recalculate_only = 1",
        *moved,
        f"ALTER TABLE {DATABASE}.{table} MODIFY TTL {cold}{at} + INTERVAL {age.days} DAY DELETE",
    ]


def whole_from(client: Any, raw: str) -> date:  # noqa: ANN401 - clickhouse-connect is not typed
    """The first day (of received_at, UTC) of which no raw row can have expired."""
    return first_whole_day(*_history(client, raw))


def kept_from_ms(client: Any, table: str) -> int:  # noqa: ANN401 - clickhouse-connect is not typed
    """The append time from which on no row can have expired, in ms, of a raw table by its full name.

    0 for a table whose rows are not looked up by offset.
    """
    raw = table.removeprefix(f"{DATABASE}.")
    return gone_to_ms(*_history(client, raw)) if raw in RAW else 0


def first_whole_day(now_ms: int, history: Sequence[tuple[int, int]]) -> date:
    """The first day of which no row can have expired, from what `gone_to_ms` takes."""
    return date(1970, 1, 1) + timedelta(days=-(-gone_to_ms(now_ms, history) // _DAY_MS))


def gone_to_ms(now_ms: int, history: Sequence[tuple[int, int]]) -> int:
    """From (since in ms, days) in order; what was kept too short once does not come back when more is kept later."""
    gone_to, days = 0, _FIRST_DAYS
    for since_ms, then_days in history:
        gone_to, days = max(gone_to, since_ms - days * _DAY_MS), then_days
    return max(gone_to, now_ms - days * _DAY_MS) + _MARGIN_MS


def _history(client: Any, raw: str) -> tuple[int, Sequence[tuple[int, int]]]:  # noqa: ANN401
    """The store's time in ms, and how long rows were kept since when."""
    found = client.query(
        "SELECT toUnixTimestamp64Milli(now64(3)), arraySort(groupUniqArray((toUnixTimestamp64Milli(since), days))) "  # noqa: S608
        f"FROM {_HISTORY} WHERE raw = '{raw}'"
    )
    (now_ms, history) = found.result_rows[0]
    return now_ms, history


def _note(client: Any, raw: str, days: int) -> None:  # noqa: ANN401
    """Writes down how long rows are kept from now on, unless that is what was said last."""
    last = client.query(
        f"SELECT days FROM {_HISTORY} WHERE raw = '{raw}' ORDER BY since DESC LIMIT 1"  # noqa: S608 - our own names
    ).result_rows
    if (last[0][0] if last else _FIRST_DAYS) != days:
        client.command(f"INSERT INTO {_HISTORY} (raw, since, days) VALUES ('{raw}', now64(3), {days})")  # noqa: S608


def age_of(created: str) -> Age:
    """From a CREATE TABLE as the engine says it."""
    ttl = created.rpartition(" TTL ")[2].partition(" SETTINGS ")[0]
    found = {bool(part["cold"]): int(part["days"]) for part in _FOUND.finditer(ttl)}
    return Age(found.get(False, _FOREVER_DAYS), found.get(True))


def _cold_policy(client: Any, current: str) -> str:  # noqa: ANN401
    """A storage policy with a volume `cold` that a table can change to: the table's own if it has one."""
    found = client.query("SELECT policy_name, groupArray(volume_name) FROM system.storage_policies GROUP BY 1")
    policies = {name: set(volumes) for name, volumes in found.result_rows}
    needed = policies[current] | {"cold"}
    having = sorted(name for name, volumes in policies.items() if needed <= volumes)
    if not having:
        shown = "; ".join(f"{name}: {', '.join(sorted(volumes))}" for name, volumes in sorted(policies.items()))
        raise RetentionError(
            f"--cold-after: the store has no storage policy with the volumes {', '.join(sorted(needed))} "
            f"(found {shown}); expected one in the server's storage_configuration"
        )
    return current if current in having else having[0]


def _read(given: Sequence[str], option: str, tables: Mapping[str, Expiry]) -> dict[str, int]:
    read = {}
    for text in given:
        found = _AGE.fullmatch(text)
        if found is None or found["table"] not in tables:
            raise RetentionError(
                f"{option} {text}: expected TABLE=DAYSd, such as heartbeats=3d, with one of {', '.join(sorted(tables))}"
            )
        read[found["table"]] = int(found["days"])
    return read


def _said(age: Age) -> str:
    return f"{age.days} d" + (f", cold after {age.cold_days} d" if age.cold_days else "")
