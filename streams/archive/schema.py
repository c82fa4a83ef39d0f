"""What the numbered files make of the store, read from their text, and how a store differs from it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streams.archive.ddl import DATABASE, HISTORY, Migration, migrations

_NAME = rf"{DATABASE}\.(?P<table>\w+)"
_CREATE = re.compile(rf"CREATE TABLE IF NOT EXISTS {_NAME}\s*\((?P<inside>.*)\)\s*ENGINE\b", re.DOTALL)
_VIEW = re.compile(
    rf"CREATE MATERIALIZED VIEW IF NOT EXISTS {_NAME} TO {DATABASE}\.(?P<to>\w+) AS\s+(?P<select>.*)", re.DOTALL
)
_ALTER = re.compile(rf"ALTER TABLE {_NAME}\s+(?P<clauses>.*)", re.DOTALL)
_CLAUSE = re.compile(
    r"(?P<verb>ADD|MODIFY|DROP) COLUMN (?:IF (?:NOT )?EXISTS )?(?P<column>`?\w+`?)(?P<rest>.*)", re.DOTALL
)
_NO_COLUMN = re.compile(r"(?:INDEX|CONSTRAINT|PROJECTION|PRIMARY KEY)\b")
_TYPE_ENDS = re.compile(
    r"\b(?:DEFAULT|MATERIALIZED|ALIAS|EPHEMERAL|CODEC|COMMENT|TTL|AFTER|FIRST|REMOVE|SETTINGS|STATISTICS)\b"
)

Columns = Mapping[str, str]


class SchemaError(RuntimeError):
    """The store is not as this version of the code knows it; the message says where, and what to do."""


@dataclass(frozen=True, slots=True)
class View:
    """A view that fills one table from inserts into another."""

    name: str
    to: str
    select: str


def expected_columns() -> dict[str, Columns]:
    """By table: the type of each column as ClickHouse writes it. Columns of which only the codec changed stay."""
    tables: dict[str, dict[str, str]] = {}
    for statement in _statements(migrations()):
        if created := _CREATE.match(statement):
            columns = (_column(part) for part in _split(created["inside"]) if not _NO_COLUMN.match(part))
            tables[created["table"]] = {name: kind for name, kind in columns if kind}
        elif altered := _ALTER.match(statement):
            _alter(tables[altered["table"]], altered["clauses"])
    return dict(tables)


def views() -> dict[str, View]:
    """The views by the table that they fill; a later file's replaces an earlier one's."""
    found = (_VIEW.match(statement) for statement in _statements(migrations()))
    return {view["to"]: View(view["table"], view["to"], view["select"].strip()) for view in found if view}


def refuse_newer(client: Any) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
    """Raises SchemaError when a newer fleetbeat has changed the store."""
    known = migrations()
    found = client.query(f"SELECT number, file FROM {HISTORY} ORDER BY number DESC LIMIT 1").result_rows  # noqa: S608
    if found and found[0][0] > len(known):
        number, file = found[0]
        raise SchemaError(
            f"{DATABASE}: the store is of schema {number} ({file}); this fleetbeat knows schemas up to {len(known)}: "
            "expected the fleetbeat that made it, or a newer one. Nothing was changed"
        )


def refuse_different(client: Any) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
    """Raises SchemaError when a table is not what the files make, with all differences."""
    rows = client.query(
        f"SELECT table, name, type FROM system.columns WHERE database = '{DATABASE}'"  # noqa: S608 - our own names
    ).result_rows
    there: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        there.setdefault(table, {})[name] = kind
    wrong = list(differences(expected_columns(), there))
    wrong += [f"{view.name}: no such view; it fills {view.to}" for view in views().values() if view.name not in there]
    if wrong:
        raise SchemaError(
            f"{DATABASE}: not as infra/clickhouse makes it: {'; '.join(wrong)}. Put the columns right by ALTER TABLE, "
            "or give the archive another store"
        )


def differences(expected: Mapping[str, Columns], there: Mapping[str, Columns]) -> Iterator[str]:
    """Every column that is missing or of another type. Further tables and columns are nobody's business."""
    for table, columns in expected.items():
        if table not in there:
            yield f"{table}: no such table"
            continue
        for name, kind in columns.items():
            found = there[table].get(name)
            if found is None:
                yield f"{table}.{name}: no such column; expected {kind}"
            elif found != kind:
                yield f"{table}.{name}: found {found}; expected {kind}"


def _statements(files: tuple[Migration, ...]) -> Iterator[str]:
    for migration in files:
        yield from migration.statements


def _alter(columns: dict[str, str], clauses: str) -> None:
    for clause in _split(clauses):
        found = _CLAUSE.match(clause)
        if found is None:
            continue
        name = found["column"].strip("`")
        if found["verb"] == "DROP":
            columns.pop(name, None)
        elif kind := _kind(found["rest"]):
            columns[name] = kind


def _column(part: str) -> tuple[str, str]:
    name, _, rest = part.partition(" ")
    return name.strip("`"), _kind(rest)


def _kind(rest: str) -> str:
    """The type at the start of what follows a column's name; empty when only something else is said."""
    end = _TYPE_ENDS.search(rest)
    return rest[: end.start() if end else None].strip()


def _split(text: str) -> list[str]:
    """At commas outside of brackets and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for place, sign in enumerate(text):
        if sign == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]
