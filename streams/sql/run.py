"""Runs `fleetbeat sql`: one statement, one query of the library, its list, or the prompt."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.sql.client import Endpoint, ServerError, UnreachableError
from streams.sql.library import fill, find, library

DEFAULT_URL = "http://127.0.0.1:8123"
URL_VARIABLE = "FLEETBEAT_SQL"  # so that no password stands on a command line
FAILED, NO_ANSWER = 1, 3


class OptionsError(ValueError):
    """Options that do not go together, or cannot be read."""


class OutputError(RuntimeError):
    """The answer cannot be written to where it should go."""


@dataclass(frozen=True, slots=True)
class SqlOptions:
    """What `fleetbeat sql` was asked for; with neither a query nor a name, the prompt, or statements from stdin."""

    url: str | None = None
    query: str | None = None
    name: str | None = None
    params: tuple[str, ...] = ()
    output_format: str | None = None
    library: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """What is sent."""

    sql: str
    params: dict[str, str]


def run_sql(options: SqlOptions) -> int:
    """The exit status: 0, 1 for an error of ClickHouse, 3 for no answer. Raises ValueError for what cannot be asked."""
    if options.library:
        write(describe())
        return 0
    endpoint = Endpoint.parse(options.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    if options.name is None and options.query is None and sys.stdin.isatty():
        from streams.sql.prompt import run_prompt  # noqa: PLC0415 - its package is only for the prompt

        return run_prompt(endpoint, options.output_format)
    statement = _statement(options)
    try:
        show(endpoint, statement, options.output_format or _usual_format(named=options.name is not None))
    except (ServerError, UnreachableError, OutputError) as cause:
        sys.stderr.write(f"{cause}\n")
        return NO_ANSWER if isinstance(cause, UnreachableError) else FAILED
    return 0


def show(endpoint: Endpoint, statement: Statement, output_format: str) -> None:
    """Writes an answer as it comes. Raises ServerError and UnreachableError."""
    sys.stdout.flush()
    answer = endpoint.ask(statement.sql, output_format, statement.params)
    with contextlib.closing(answer), _reader_may_leave():
        for piece in answer:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def named(name: str, pairs: Iterable[str]) -> Statement:
    """A query of the library with its parameters. Raises LibraryError and OptionsError."""
    query = find(name)
    return Statement(query.sql, query.fill(read_pairs(pairs), datetime.now(UTC)))


def read_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE each. Raises OptionsError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.isidentifier():
            raise OptionsError(f"parameter {pair!r}: expected KEY=VALUE")
        if key in found:
            raise OptionsError(f"parameter {key}: {found[key]!r} and {value!r}; expected it once")
        found[key] = value
    return found


def describe() -> Iterator[str]:
    """The library: each query with what it answers, and its parameters."""
    for query in library().values():
        yield query.name
        yield f"  {query.answers}."
        for parameter in query.parameters:
            empty = "''"
            default = "needed" if parameter.default is None else f"= {parameter.default or empty}"
            yield f"    {parameter.name:14}{parameter.kind:21}{default:8}{parameter.says}".rstrip()


def write(lines: Iterable[str]) -> None:
    """Lines for whoever asked."""
    with _reader_may_leave():
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def _statement(options: SqlOptions) -> Statement:
    if options.name is not None and options.query is not None:
        raise OptionsError("--name and --query: expected one of them")
    if options.name is not None:
        _require_text(*options.params)
        return named(options.name, options.params)
    sql = _read_stdin() if options.query is None else options.query
    if not sql.strip():
        raise OptionsError("nothing to ask; expected --query, --name or a statement on stdin")
    _require_text(sql, *options.params)
    return Statement(sql, fill(sql, read_pairs(options.params), datetime.now(UTC)))


def _read_stdin() -> str:
    return sys.stdin.buffer.read().decode(errors="surrogateescape")  # as arguments are; what is no text is refused


def _require_text(*given: str) -> None:
    """Bytes that are no UTF-8 cannot be sent. Raises OptionsError."""
    for text in given:
        try:
            text.encode()
        except UnicodeEncodeError as cause:
            byte = ord(text[cause.start]) & 0xFF
            raise OptionsError(f"byte 0x{byte:02x} at character {cause.start + 1}; expected UTF-8") from None


def _usual_format(*, named: bool) -> str:
    if sys.stdout.isatty():
        return "PrettyCompact"
    return "TabSeparatedWithNames" if named else "TabSeparated"


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """`| head` has seen enough: that is no error. Raises OutputError, for a full disk."""
    try:
        yield
    except OSError as cause:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer, at exit
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"stdout: {cause.strerror or cause}") from cause
