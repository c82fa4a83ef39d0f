"""The prompt of `fleetbeat sql`: history, completion, statements over several lines that end with a semicolon."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.lexers import PygmentsLexer
except ModuleNotFoundError as missing:
    from streams.sql.run import OptionsError

    raise OptionsError(f"the prompt needs {missing.name}: install fleetbeat[sql], or give --query or --name") from None
from pygments.lexers.sql import SqlLexer

from streams.sql.client import Endpoint, ServerError, UnreachableError
from streams.sql.completion import COMMANDS, Words, candidates, read_words
from streams.sql.library import library
from streams.sql.run import NO_ANSWER, Statement, describe, named, show, write

_TABLES = "SELECT name, total_rows AS rows, comment FROM system.tables WHERE database = currentDatabase() ORDER BY name"


class Suggestions(Completer):
    """Completion for prompt_toolkit."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._queries = library()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002 - its interface
        """What fits before the cursor."""
        for candidate in candidates(self._words, self._queries, document.text_before_cursor):
            yield Completion(candidate.text, -candidate.replaces, display_meta=candidate.meaning)


class Prompt:
    """Reads and answers until the end of input; what goes wrong is said, and the next statement is read."""

    def __init__(self, endpoint: Endpoint, output_format: str | None, history: Path) -> None:
        """Raises ServerError and UnreachableError."""
        self._endpoint = endpoint
        self._format = output_format or "PrettyCompact"
        self._session: PromptSession[str] = PromptSession(
            history=_kept(history),
            completer=Suggestions(read_words(endpoint)),
            complete_in_thread=True,
            lexer=PygmentsLexer(SqlLexer),
            multiline=Condition(lambda: not is_whole(get_app().current_buffer.text)),
            prompt_continuation="     -> ",
            enable_history_search=True,
        )

    def run(self) -> int:
        """The exit status."""
        while True:
            try:
                text = self._session.prompt("sql> ").strip().rstrip(";")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            if text in {"\\quit", "\\q", "quit", "exit"}:
                return 0
            try:
                self._do(text)
            except KeyboardInterrupt:
                sys.stderr.write("stopped reading\n")
            except (ValueError, ServerError, UnreachableError) as cause:
                sys.stderr.write(f"{cause}\n")

    def _do(self, text: str) -> None:
        command, *rest = shlex.split(text, posix=False) if text.startswith("\\") else ("",)
        match command:
            case "" if text:
                show(self._endpoint, Statement(text, {}), self._format)
            case "":
                pass
            case "\\run" if rest:
                show(self._endpoint, named(rest[0], (pair.strip("'\"") for pair in rest[1:])), self._format)
            case "\\library":
                write(describe())
            case "\\tables":
                show(self._endpoint, Statement(_TABLES, {}), self._format)
            case "\\format" if rest:
                self._format = rest[0]
            case _:
                write(_help())


def _kept(file: Path) -> History:
    """On disk; in memory where nothing can be written, as in a container."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as cause:
        sys.stderr.write(f"{file}: {cause.strerror}; what is asked is not kept\n")
        return InMemoryHistory()
    return FileHistory(str(file))


def is_whole(text: str) -> bool:
    """Whether Enter sends it, instead of beginning a new line."""
    text = text.strip()
    return not text or text.startswith("\\") or text.endswith(";") or text in {"quit", "exit"}


def run_prompt(endpoint: Endpoint, output_format: str | None) -> int:
    """The exit status."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    try:
        prompt = Prompt(endpoint, output_format, state / "fleetbeat" / "sql_history")
    except UnreachableError as cause:
        sys.stderr.write(f"{cause}\n")
        return NO_ANSWER
    write([f"{endpoint}: a statement ends with ; and Tab completes. \\library lists queries, \\help the rest."])
    return prompt.run()


def _help() -> Iterable[str]:
    return (f"{name:10} {meaning}" for name, meaning in COMMANDS.items())
