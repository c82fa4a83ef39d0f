"""`migrate` and `usage`: the tables as a whole."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from streams.archive import ddl, retention
from streams.archive.ddl import DATABASE
from streams.store.places import Place
from streams.store.steps import Steps

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Usage:
    """One table. `days_left` until its oldest rows go, which for most tables is with all of their day, or month."""

    table: str
    rows: int
    bytes: int
    bytes_a_row: float
    oldest: str | None
    kept_days: int | None
    days_left: float | None


def run_migrate(place: Place) -> int:
    """Applies what is missing. Raises SchemaError, AskedWronglyError, StoreError."""
    with place.opened() as client, Steps("migrate") as steps:
        applied = ddl.apply(client, lambda progress: steps.at(0, 1, progress))
    print(f"applied {', '.join(applied)}" if applied else "up to date")
    return 0


def run_usage(place: Place, *, as_json: bool) -> int:
    """Prints it. Raises AskedWronglyError, StoreError."""
    with place.opened() as client:
        tables = usage(client)
        free, total = client.query("SELECT sum(free_space), sum(total_space) FROM system.disks").result_rows[0]
        # of what arrived in the last day, as it is on disk now
        daily = client.query(
            f"SELECT sum(bytes_on_disk) FROM system.parts WHERE database = '{DATABASE}' AND active "  # noqa: S608
            "AND partition = toString(yesterday())"
        ).result_rows[0][0]
    if as_json:
        disk = {"free_bytes": free, "total_bytes": total, "raw_bytes_of_yesterday": daily}
        print(json.dumps({"tables": [asdict(table) for table in tables], "disk": disk}))
        return 0
    shown = Table("table", "rows", "bytes", "bytes a row", "oldest", "kept days", "days left", box=None)
    for column in shown.columns[1:4] + shown.columns[5:]:
        column.justify = "right"
    for table in tables:
        shown.add_row(
            table.table,
            f"{table.rows:,}",
            f"{table.bytes:,}",
            f"{table.bytes_a_row:.1f}",
            table.oldest or "-",
            str(table.kept_days or "-"),
            "-" if table.days_left is None else f"{table.days_left:.1f}",
        )
    Console(width=200).print(shown)  # a narrow terminal breaks its lines, and nobody wants half a name
    full = f", as much as raw rows of yesterday take {free // daily:,} times" if daily else ""
    print(f"disk: {free:,} bytes free of {total:,}{full}")
    return 0


def usage(client: Any) -> list[Usage]:  # noqa: ANN401 - clickhouse-connect is not typed
    """What each table takes, the largest first."""
    found = client.query(
        "SELECT t.name, t.engine, t.create_table_query, sum(p.rows), sum(p.bytes_on_disk) "  # noqa: S608 - our own names
        f"FROM system.tables AS t LEFT JOIN (SELECT * FROM system.parts WHERE database = '{DATABASE}' AND active) AS p "
        f"ON t.name = p.table WHERE t.database = '{DATABASE}' AND t.engine LIKE '%MergeTree' "
        "GROUP BY ALL ORDER BY 5 DESC, 1"
    )
    expiries = retention.expiries()
    return [
        _usage(client, name, created, rows, size, expiries.get(name))
        for name, _, created, rows, size in found.result_rows
    ]


def _usage(client: Any, name: str, created: str, rows: int, size: int, expiry: retention.Expiry | None) -> Usage:  # noqa: ANN401, PLR0913
    a_row = round(size / rows, 2) if rows else 0.0
    if expiry is None or not rows:
        return Usage(name, rows, size, a_row, None, None if expiry is None else retention.age_of(created).days, None)
    column = expiry.at.removeprefix("toDateTime(").removesuffix(")")
    first_s, now_s = client.query(
        f"SELECT toUnixTimestamp(toDateTime(min({column}), 'UTC')), toUnixTimestamp(now()) FROM {DATABASE}.{name}"  # noqa: S608
    ).result_rows[0]
    kept = retention.age_of(created).days
    goes = "max" if "ttl_only_drop_parts = 1" in created else "min"
    (gone_s,) = client.query(
        f"SELECT toUnixTimestamp(min(delete_ttl_info_{goes})) FROM system.parts WHERE database = '{DATABASE}' "  # noqa: S608
        f"AND table = '{name}' AND active AND rows > 0 AND delete_ttl_info_{goes} > toDateTime(0)"
    ).result_rows[0]
    left = max((gone_s or first_s + kept * _DAY_S) - now_s, 0) / _DAY_S
    oldest = f"{datetime.fromtimestamp(first_s, UTC):%Y-%m-%dT%H:%MZ}"
    return Usage(name, rows, size, a_row, oldest, kept, round(left, 2))
