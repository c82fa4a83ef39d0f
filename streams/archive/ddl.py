"""The numbered files of infra/clickhouse, applied in order and each once."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

DATABASE = "telemetry"
_HISTORY = f"{DATABASE}.archive_migrations"


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


def apply(client: Any) -> list[str]:  # noqa: ANN401 - clickhouse-connect is not typed
    """Brings the database up to date; returns the files applied now. Raises what the client raises."""
    client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    client.command(
        f"CREATE TABLE IF NOT EXISTS {_HISTORY} "
        "(number UInt32, file String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
        "ENGINE = ReplacingMergeTree ORDER BY number"
    )
    done = int(client.command(f"SELECT max(number) FROM {_HISTORY}"))  # noqa: S608 - our own names
    applied = []
    for migration in migrations():
        if migration.number <= done:
            continue
        for statement in migration.statements:
            client.command(statement)
        client.raw_insert(_HISTORY, ["number", "file"], f"{migration.number}\t{migration.file}\n", fmt="TabSeparated")
        applied.append(migration.file)
    return applied


def _parse(name: str, text: str) -> Migration:
    number = name.partition("_")[0]
    if not number.isdigit():
        raise ValueError(f"infra/clickhouse/{name}: expected a name like 0007_what_it_does.sql")
    code = "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
    statements = tuple(statement.strip() for statement in code.split(";") if statement.strip())
    return Migration(int(number), name, statements)
