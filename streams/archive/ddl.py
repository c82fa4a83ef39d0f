"""The numbered files of infra/clickhouse, applied in order and each once."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

DATABASE = "telemetry"
HISTORY = f"{DATABASE}.archive_migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; every statement may run twice, since a crash can come between two of them."""

    number: int
    file: str
    statements: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """All migrations by number. Raises ValueError when two files carry the same number."""
    folder = files("infra") / "clickhouse"
    found = sorted(
        (
            _parse(entry.name, entry.read_text(encoding="utf-8"))
            for entry in folder.iterdir()
            if entry.name.endswith(".sql")
        ),
        key=lambda migration: migration.number,
    )
    for number, migration in enumerate(found, start=1):
        if migration.number != number:
            raise ValueError(f"infra/clickhouse/{migration.file}: number {migration.number}; expected {number}")
    return tuple(found)


def apply(client: Any, told: Callable[[str], None] = lambda _: None) -> list[str]:  # noqa: ANN401 - clickhouse-connect is not typed
    """Brings the database up to date and looks whether it is; returns the files applied now.

    A new rollup is made of the raw rows that are there, which `told` hears about. Raises SchemaError and what the
    client raises.
    """
    client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    client.command(
        f"CREATE TABLE IF NOT EXISTS {HISTORY} "
        "(number UInt32, file String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
        "ENGINE = ReplacingMergeTree ORDER BY number"
    )
    from streams.archive import rollups, schema  # noqa: PLC0415 - they read the files, by this module

    schema.refuse_newer(client)
    done = int(client.command(f"SELECT max(number) FROM {HISTORY}"))  # noqa: S608 - our own names
    applied = []
    for migration in migrations():
        if migration.number <= done:
            continue
        for statement in migration.statements:
            client.command(statement)
        for rollup in rollups.rollups().values():
            if any(f" TO {DATABASE}.{rollup.table} " in statement for statement in migration.statements):
                rollups.fill(client, rollup.table, told)
        client.raw_insert(HISTORY, ["number", "file"], f"{migration.number}\t{migration.file}\n", fmt="TabSeparated")
        applied.append(migration.file)
    schema.refuse_different(client)
    return applied


def _parse(name: str, text: str) -> Migration:
    number = name.partition("_")[0]
    if not number.isdigit():
        raise ValueError(f"infra/clickhouse/{name}: expected a name like 0007_what_it_does.sql")
    code = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    statements = tuple(statement.strip() for statement in code.split(";") if statement.strip())
    return Migration(int(number), name, statements)
