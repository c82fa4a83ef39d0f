"""Which SQL strangers may run on the embedded store: one reading statement, no files, no network, no code.

The engine decides what a text means, never a regular expression of ours: its parser counts and classes the statements,
its tokenizer finds the names. Behind this gate the role `reader` and `readonly = 1` refuse most of it again.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from streams.archive.ddl import DATABASE
from streams.archive.embedded import Handle, SqlError
from streams.archive.wire import escaped


class ErrorCode(IntEnum):
    """ClickHouse's names and numbers of what this endpoint refuses by itself."""

    BAD_ARGUMENTS = 36
    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    UNKNOWN_FORMAT = 73
    READONLY = 164
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    SOCKET_TIMEOUT = 209
    QUERY_IS_TOO_LARGE = 229
    SESSION_NOT_FOUND = 372
    SESSION_IS_LOCKED = 373
    INVALID_SESSION_TIMEOUT = 374
    QUERY_WAS_CANCELLED = 394
    SETTING_CONSTRAINT_VIOLATION = 452
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516


# Everything else that can stand after FROM with brackets reads files, opens connections or runs code. A list of what is
# allowed, so that what a later engine adds is refused. `merge` is out too: it finds tables by a pattern.
_TABLE_FUNCTIONS = frozenset({
    "format", "generate_series", "generateseries", "null", "numbers", "numbers_mt", "primes", "values", "view",
    "zeros", "zeros_mt",
})  # fmt: skip
# Scalar functions that no right and no readonly mode covers: reading files, running models, waiting, writing logs.
_FUNCTIONS = frozenset({"file", "sleep", "sleepeachrow", "catboostevaluate", "logtrace", "generateserialid"})
# Names that would reach more than data: this table stops every thread of the process with a signal, and in this
# database, which is laid over the working folder, every file is a table (the role keeps them shut, but not unseen).
_PLACES = frozenset({"stack_trace", "default"})
# What clients and people ask about the archive itself. The other system tables tell about the process, the machine and
# what others ask: they need the scope `system`.
_SYSTEM_TABLES = frozenset({
    "aggregate_function_combinators", "codecs", "collations", "columns", "completions", "constraints",
    "data_skipping_indices", "data_type_families", "database_engines", "databases", "documentation", "formats",
    "functions", "keywords", "numbers", "numbers_mt", "one", "parts", "parts_columns", "primes", "projections",
    "settings", "table_engines", "table_functions", "tables", "time_zones", "zeros", "zeros_mt",
})  # fmt: skip
_AI_FUNCTION = re.compile("[aA][iI][A-Z]")  # aiGenerate and its family call services
# Their schemas and templates are files, or they speak a wire protocol instead of giving a document.
_FORMATS = frozenset({
    "template", "capnproto", "protobuf", "protobufsingle", "protobuflist", "avroconfluent", "mysqlwire",
    "postgresqlwire",
})  # fmt: skip

_REMEMBERED, _REMEMBERED_CHARS = 64, 8_192
_QUOTES = '`"\u201c\u201d'  # the engine takes typographic quotes too


class RefusedError(SqlError):
    """Not run: this endpoint does not allow it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, f"Code: {code}. DB::Exception: {message}. ({code.name})")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run, its FORMAT clause taken off, and the format that the clause named."""

    sql: str
    output_format: str | None
    is_rows: bool = False
    """A SELECT that gives rows and nothing else: no totals below them."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What SET or USE says: for the session, not for the engine."""

    settings: dict[str, str]
    database: str | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """Who sends a statement, as far as that decides what it may name."""

    database: str
    in_session: bool = False
    sees_system: bool = True


@dataclass(frozen=True, slots=True)
class _Token:
    begin: int  # in bytes
    kind: str
    text: str

    @property
    def name(self) -> str | None:
        """The identifier it is, in lower case and without its quotes."""
        return self.text.strip(_QUOTES).lower() if self.kind in {"BareWord", "QuotedIdentifier"} else None


class _Verdicts:
    """The last texts that may run: the same questions are asked again, with other parameters.

    A verdict hangs on the text and on who asks. Texts that substitute identifiers are not kept: there parameters count.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Asking], Statement] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sql: str, asking: Asking) -> Statement | None:
        """What came out the last time."""
        with self._lock:
            if (known := self._known.get((sql, asking))) is not None:
                self._known.move_to_end((sql, asking))
            return known

    def keep(self, sql: str, asking: Asking, statement: Statement) -> None:
        """For `get`, unless it is long."""
        if len(sql) > _REMEMBERED_CHARS:
            return
        with self._lock:
            self._known[sql, asking] = statement
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


class Gate:
    """Knows the engine's functions and formats; asks it about every text that it has not let through lately."""

    def __init__(self, handle: Handle) -> None:
        self._verdicts = _Verdicts()
        tables = _names(handle, "SELECT name FROM system.table_functions")
        functions = _names(handle, "SELECT name FROM system.functions")
        outputs = _names(handle, "SELECT name FROM system.formats WHERE is_output")
        self._shut = (
            frozenset(_names(handle, "SELECT name FROM system.tables WHERE database = 'system'")) - _SYSTEM_TABLES
        )
        self._denied = frozenset(
            {name.lower() for name in tables} - _TABLE_FUNCTIONS
            | _FUNCTIONS
            | _PLACES
            | {name.lower() for name in functions if _AI_FUNCTION.match(name)}
        )
        self._formats = frozenset(name.lower() for name in outputs) - _FORMATS

    def admitted(self, sql: str, asking: Asking) -> Statement | None:
        """The statement, if the same text was let through lately for who asks alike."""
        return self._verdicts.get(sql, asking)

    def admit(self, handle: Handle, sql: str, params: Mapping[str, str], asking: Asking) -> Statement | SessionChange:
        """The statement to run, or what a session has to remember; `handle` must have no settings of who asks.

        Raises RefusedError, or SqlError for what does not parse.
        """
        if "\0" in sql:
            # Of an insert its rows come behind it: say that it may not write.
            _check_class(handle, sql.partition("\0")[0])
            raise RefusedError(ErrorCode.SYNTAX_ERROR, "Syntax error: the query contains a zero byte")
        if asking.in_session and handle.classify(sql) == ("CONTROL", 1) and (change := _change(_tokens(handle, sql))):
            return change
        _check_class(handle, sql)
        tokens = _tokens(handle, sql)
        _check_settings(handle, sql, tokens)
        self._check_names(tokens, params)
        if not asking.sees_system:
            self._check_system(tokens, params, asking.database)
        statement = _without_format(sql, tokens)
        if statement.sql != sql:
            _check_class(handle, statement.sql)
        if not any(token.name == "identifier" for token in tokens):
            self._verdicts.keep(sql, asking, statement)
        return statement

    def check_format(self, name: str) -> None:
        """Raises RefusedError for a format that is unknown, or reads or writes files."""
        if name.lower() not in self._formats:
            raise RefusedError(ErrorCode.UNKNOWN_FORMAT, f"Unknown format {name}, or not allowed on this endpoint")

    def _check_names(self, tokens: Sequence[_Token], params: Mapping[str, str]) -> None:
        substitutes = False
        before = ""
        for token in tokens:
            name = token.name
            if name is None:
                continue
            if token.kind == "QuotedIdentifier" and "\\" in token.text:
                raise RefusedError(
                    ErrorCode.ACCESS_DENIED, f"Escapes in quoted names are not allowed on this endpoint: {token.text}"
                )
            # At the end it cannot be called; ArrowStream is the name of a table function too.
            names_format = before == "format" and token is tokens[-1] and name in self._formats
            if name in self._denied and not names_format:
                raise RefusedError(
                    ErrorCode.ACCESS_DENIED,
                    f"{token.text}: not allowed on this read-only endpoint, not even as a name: it could reach files, "
                    "the network or code. Choose another alias if it is one",
                )
            if before == "format" and name in _FORMATS:
                self.check_format(name)
            substitutes |= name == "identifier"
            before = name
        if substitutes:
            for value in params.values():
                if any(part.strip(_QUOTES).lower() in self._denied for part in value.split(".")):
                    raise RefusedError(
                        ErrorCode.ACCESS_DENIED, f"{value}: not allowed on this read-only endpoint as an identifier"
                    )

    def _check_system(self, tokens: Sequence[_Token], params: Mapping[str, str], database: str) -> None:
        """Refuses system tables that tell more than how to ask; by name, since this engine lets everybody read them."""
        names = [token.name if token.kind != "Dot" else "." for token in tokens]
        found = {
            table
            for place, dot, table in zip(names, names[1:], names[2:], strict=False)
            if (place, dot) == ("system", ".")
        }
        substituted = set()
        if "identifier" in names:
            substituted = {part.strip(_QUOTES).lower() for value in params.values() for part in value.split(".")}
            found |= substituted
        if "system" in {database.lower(), *substituted} or names[:1] == ["show"]:
            found |= set(names)
        if "processlist" in found:
            found.add("processes")
        for name in sorted(self._shut & {name for name in found if name}):
            raise RefusedError(
                ErrorCode.ACCESS_DENIED, f"system.{name}: not allowed for this user, who lacks the scope `system`"
            )


def _change(tokens: Sequence[_Token]) -> SessionChange | None:
    """What a SET of plain values or a USE says; None for anything else, such as SET ROLE."""
    match tokens:
        case [verb, place] if verb.name == "use" and place.kind in {"BareWord", "QuotedIdentifier"}:
            database = place.text.strip(_QUOTES)
            return SessionChange({}, DATABASE if database == "default" else database)  # as everywhere at this endpoint
        case [verb, *rest] if verb.name == "set":
            settings = {}
            for assignment in _split(rest):
                match assignment:
                    case [name, sign, *value] if name.kind == "BareWord" and sign.kind == "Equals":
                        text = _value(value)
                        if text is None:
                            return None
                        settings[name.text] = text
                    case _:
                        return None
            return SessionChange(settings) if settings else None
        case _:
            return None


def _split(tokens: Sequence[_Token]) -> list[list[_Token]]:
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token.kind == "Comma":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _value(tokens: Sequence[_Token]) -> str | None:
    match tokens:
        case [_Token(kind="Number") as number]:
            return number.text
        case [_Token(kind="Minus"), _Token(kind="Number") as number]:
            return f"-{number.text}"
        case [_Token(kind="BareWord") as word] if word.name in {"true", "false"}:
            return "1" if word.name == "true" else "0"
        case [_Token(kind="StringLiteral") as text] if not {"\\", "'"} & set(text.text[1:-1]):
            return text.text[1:-1]
        case _:
            return None


def _check_settings(handle: Handle, sql: str, tokens: Sequence[_Token]) -> None:
    """Refuses every SETTINGS clause.

    The engine's readonly mode says nothing about one in a subquery. Our limits held against those that were tried, but
    what each of its settings does there is nothing to rely on.
    """
    unclear = False
    for clause, setting, sign in zip(tokens, tokens[1:], [*tokens[2:], None], strict=False):
        if clause.kind == "BareWord" and clause.name == "settings" and setting.name:
            if sign is not None and sign.text in {"=", "."}:
                raise _cannot_modify(setting)
            unclear = True
    if not unclear:
        return
    # A setting without a value, which means 1, or a column of that name before an alias or a keyword. The engine writes
    # AS before aliases, and what is its own in capitals.
    plain = handle.query("SELECT formatQuerySingleLine({q:String})", "RawBLOB", {"q": escaped(sql)}).data.decode()
    for clause, setting in pairwise(_tokens(handle, plain)):
        if clause.text == "SETTINGS" and setting.name and not setting.text.isupper():
            raise _cannot_modify(setting)


def _cannot_modify(setting: _Token) -> RefusedError:
    return RefusedError(
        ErrorCode.READONLY,
        f"Cannot modify {setting.text!r} setting in readonly mode: give it with the request, not in the query",
    )


def _check_class(handle: Handle, sql: str) -> None:
    kind, statements = handle.classify(sql)
    if kind == "UNKNOWN":
        raise _syntax_error(handle, sql)
    if statements != 1:
        raise RefusedError(
            ErrorCode.SYNTAX_ERROR, f"Syntax error (Multi-statements are not allowed): {statements} statements"
        )
    if kind != "READ_ONLY":
        raise RefusedError(ErrorCode.READONLY, "Cannot execute query in readonly mode: this endpoint only reads")


def _syntax_error(handle: Handle, sql: str) -> SqlError:
    """Where the parser stopped, in the engine's own words."""
    try:
        handle.query("SELECT formatQuery({q:String})", params={"q": escaped(sql)})
    except SqlError as problem:
        where, ours, _ = problem.text.partition(": In scope SELECT formatQuery(")
        return SqlError(problem.code, f"{where}. (SYNTAX_ERROR)") if ours else problem
    return RefusedError(ErrorCode.SYNTAX_ERROR, "Syntax error")


def _tokens(handle: Handle, sql: str) -> list[_Token]:
    """The text as the engine cuts it, without blanks, comments and semicolons."""
    answer = handle.query("SELECT tokenizeQuery({q:String})", "JSONCompactEachRow", {"q": escaped(sql)})
    raw = sql.encode()
    return [
        _Token(int(found["begin"]), found["type"], raw[int(found["begin"]) : int(found["end"])].decode())
        for found in json.loads(answer.data)[0]
        if found["type"] not in {"Whitespace", "Comment", "Semicolon"}
    ]


def _without_format(sql: str, tokens: Sequence[_Token]) -> Statement:
    names = [token.name for token in tokens]
    is_rows = (names[0] in {"select", "with", "from"} or tokens[0].text == "(") and (
        ("with", "totals") not in pairwise(names)
    )
    match tokens[-2:]:
        case [_Token(kind="BareWord") as clause, last] if clause.name == "format" and last.name:
            return Statement(sql.encode()[: clause.begin].decode().rstrip(), last.text.strip(_QUOTES), is_rows)
    return Statement(sql, None, is_rows)


def _names(handle: Handle, sql: str) -> list[str]:
    return handle.query(sql).data.decode().split()
