"""What could come next at the prompt: tables, columns of those that are named, functions, the library's queries."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from streams.sql.client import Endpoint
from streams.sql.library import NamedQuery

_WORD = re.compile(r"[\w\\]*$")
_AFTER_FROM = re.compile(r"\b(from|join|table|describe|desc)\s+(\w+\.)?\w*$", re.IGNORECASE)
_RUN = re.compile(r"\\run\s+(\w+)?(\s.*)?$", re.DOTALL)
_KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "HAVING", "WITH", "JOIN", "LEFT JOIN", "USING", "FINAL",
    "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS NULL", "AS", "DESC", "DISTINCT", "INTERVAL", "UNION ALL", "FORMAT",
    "SHOW TABLES", "DESCRIBE", "EXPLAIN",
)  # fmt: skip
COMMANDS = {
    "\\run": "a query of the library: \\run NAME KEY=VALUE …",
    "\\library": "what it can be asked",
    "\\tables": "tables and how many rows they hold",
    "\\format": "how answers are shown: \\format Vertical",
    "\\help": "these commands",
    "\\quit": "the end, as Ctrl-D",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What an endpoint knows: its tables with (column, type), and its functions."""

    tables: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """What could stand instead of the last `replaces` characters, and what it is."""

    text: str
    replaces: int
    meaning: str


def read_words(endpoint: Endpoint) -> Words:
    """Asks for them. Raises ServerError and UnreachableError."""
    columns = "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() ORDER BY table, position"
    tables: dict[str, list[tuple[str, str]]] = {}
    for table, name, kind in _rows(endpoint, columns):
        tables.setdefault(table, []).append((name, kind))
    return Words(tables, tuple(name for (name,) in _rows(endpoint, "SELECT name FROM system.functions ORDER BY name")))


def candidates(words: Words, queries: dict[str, NamedQuery], before: str) -> Iterator[Candidate]:
    """What fits behind the text before the cursor, the likeliest first."""
    found = _WORD.search(before)
    word = found[0] if found else ""
    seen = set()
    for text, meaning in _possible(words, queries, before):
        if text.lower().startswith(word.lower()) and text != word and text not in seen:
            seen.add(text)
            yield Candidate(text, len(word), meaning)


def _possible(words: Words, queries: dict[str, NamedQuery], before: str) -> Iterator[tuple[str, str]]:
    if run := _RUN.match(before):
        if run[2] is None:
            yield from ((name, query.answers) for name, query in queries.items())
        elif query := queries.get(run[1]):
            yield from ((f"{parameter.name}=", parameter.kind) for parameter in query.parameters)
        return
    if before.lstrip().startswith("\\"):
        yield from COMMANDS.items()
        return
    tables = [(name, f"table of {len(columns)} columns") for name, columns in words.tables.items()]
    if _AFTER_FROM.search(before):
        yield from tables
        return
    named = set(re.findall(r"\w+", before))
    those = {table: columns for table, columns in words.tables.items() if table in named} or words.tables
    for table, columns in those.items():
        yield from ((name, f"{kind} of {table}") for name, kind in columns)
    yield from tables
    if before and not before[-1].isspace():  # an empty word would bring all of them
        yield from ((keyword, "") for keyword in _KEYWORDS)
        yield from ((f"{name}(", "function") for name in words.functions)


def _rows(endpoint: Endpoint, sql: str) -> list[list[str]]:
    answer = b"".join(endpoint.ask(sql, "JSONCompactEachRow"))
    return [json.loads(line) for line in answer.splitlines()]
