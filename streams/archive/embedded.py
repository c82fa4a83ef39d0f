"""The embedded store: one folder, one process, the whole ClickHouse engine inside it."""

import fcntl
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from xml.sax.saxutils import escape

from streams.archive.ddl import DATABASE

_CODE = re.compile(r"Code: (\d+)\. ")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*$")
_MIB = 1 << 20

# The only user owns nothing itself: its rights come from roles, so a handle that takes the role `reader` is left with
# SELECT on the telemetry and on the system tables, which this build lets everybody read. `default` has no password
# because nothing but this process can reach the engine.
_USERS = """<clickhouse>
    <profiles><default></default></profiles>
    <quotas><default></default></quotas>
    <roles>
        <owner><grants><query>GRANT ALL ON *.*</query></grants></owner>
        <reader><grants><query>GRANT SHOW, SELECT ON {database}.*</query></grants></reader>
    </roles>
    <users><default>
        <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
        <grants><query>GRANT owner</query><query>GRANT reader</query></grants>
    </default></users>
</clickhouse>
"""
# Parts are merged when together they are ten times the largest, not five: each row is written over fewer times, for a
# few more parts to look into. Marks are at hand for whoever asks first, after a start and of new parts.
_ENGINE = """<clickhouse>
    <max_server_memory_usage>{memory_cap_bytes}</max_server_memory_usage>
    <users_config>{users}</users_config>
    <merge_tree>
        <merge_selector_base>10</merge_selector_base>
        <prewarm_mark_cache>1</prewarm_mark_cache>
    </merge_tree>
</clickhouse>
"""
# The engine compiles what it sees for the third time. That takes 20 to 100 ms, in which a question has its answer.
_UNCOMPILED = {"compile_expressions": "0", "compile_aggregate_expressions": "0", "compile_sort_description": "0"}


class StoreInUseError(RuntimeError):
    """Another process owns the folder."""


class SqlError(Exception):
    """What ClickHouse answers instead of rows: its error code, and its text as its own server would send it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def name(self) -> str:
        """ClickHouse's name of the code, such as TIMEOUT_EXCEEDED; empty where the text does not give it."""
        found = _NAME.search(self.text)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One result in its output format, and what it cost."""

    data: bytes
    result_rows: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    elapsed_ns: int = 0


class Handle:
    """One connection to the engine with a session of its own; belongs to one thread at a time."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - chdb is not typed
        self._connection = connection

    def query(self, sql: str, output_format: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Answer:
        """Runs one statement to its end. `params` are written as in a URL (escaped). Raises SqlError."""
        started_ns = time.perf_counter_ns()
        try:
            result = self._connection.query(sql, output_format, params=dict(params or {}))
        except RuntimeError as problem:
            raise _sql_error(str(problem)) from None
        return Answer(
            data=bytes(result.bytes() or b""),
            result_rows=result.rows_read(),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            elapsed_ns=time.perf_counter_ns() - started_ns,
        )

    def stream(self, sql: str, output_format: str, params: Mapping[str, str] | None = None) -> "Stream":
        """Begins one statement, whose blocks are fetched one by one. Raises SqlError, also while they are."""
        return Stream(self._connection, sql, output_format, dict(params or {}))

    def classify(self, sql: str) -> tuple[str, int]:
        """What the text would do (READ_ONLY, MUTATING, …; UNKNOWN if it does not parse), and how many statements."""
        found = self._connection._conn.classify_query(sql, DATABASE)  # noqa: SLF001 - chdb wraps it nowhere
        return found["query_class"].name, found["statement_count"]

    def restrict(self, database: str, settings: Mapping[str, str], *, readonly: int = 1) -> None:
        """Gives up every right but reading the telemetry, for good. Raises SqlError: unknown database or setting."""
        self.query(f"USE {_quoted(database, '`')}")
        given = _UNCOMPILED | dict(settings)
        self.query("SET " + ", ".join(f"{name} = {_quoted(value, chr(39))}" for name, value in given.items()))
        self.query("SET ROLE reader")
        self.query(f"SET readonly = {readonly}")

    def close(self) -> None:
        """Ends the session."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Stream:
    """The result of one statement, block by block; the engine waits while nobody fetches.

    The engine formats each block as a result of its own, with the header and the end that the format has. Of no rows it
    gives nothing at all. Totals and extremes are left out.
    """

    def __init__(self, connection: Any, sql: str, output_format: str, params: dict[str, str]) -> None:  # noqa: ANN401
        self.result_rows = self.read_rows = self.read_bytes = 0
        self._connection = connection
        connection.set_progress_callback(self._note)
        try:
            self._result = connection.send_query(sql, output_format, params=params)
        except RuntimeError as problem:
            raise _sql_error(str(problem)) from None

    def fetch(self) -> bytes:
        """The next block; nothing at the end. Raises SqlError."""
        try:
            block = self._result.fetch()
        except RuntimeError as problem:
            raise _sql_error(str(problem)) from None
        if block is None:
            return b""
        self.result_rows += block.rows_read()
        return bytes(block.bytes() or b"")

    def close(self) -> None:
        """Ends the statement, if it has not ended."""
        self._result.cancel()
        self._connection.set_progress_callback(None)

    def _note(self, progress: dict[str, int]) -> None:
        self.read_rows, self.read_bytes = progress["read_rows"], progress["read_bytes"]


class EmbeddedStore:
    """Owns a folder and the engine on it. Only one may be open in a process, and chdb must not be forked after that.

    The folder holds `data` (the engine's), `engine` (its configuration), `scratch` (inserts on their way, wiped at
    every start) and `owner` (the lock). Raises StoreInUseError when another process has it, OSError when it cannot be
    written. `left_behind` counts queries that would not end: then it cannot be closed, and `leave` ends the process.
    """

    def __init__(self, folder: Path, *, memory_cap_bytes: int | None = None) -> None:
        """Opens or creates the store. `memory_cap_bytes` is for the process: by default half of the machine."""
        self.folder = folder.resolve()
        self.left_behind = 0
        self.memory_cap_bytes = memory_cap_bytes or max(_machine_memory_bytes() // 2, 512 * _MIB)
        if set("?&#%") & set(str(self.folder)):
            raise ValueError(f"store {self.folder}: expected a path without ? & # %, which the engine reads as options")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._owner = _take(self.folder)
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._tempdir_before = (os.environ.get("TMPDIR"), tempfile.tempdir)
        try:
            self._use_scratch()
            self._anchor = self._start()
        except BaseException:
            self._release()
            raise

    @property
    def data(self) -> Path:
        """The engine's own folder."""
        return self.folder / "data"

    def handle(self) -> Handle:
        """A new connection with all rights, about half a millisecond; `restrict` it before strangers use it."""
        return Handle(_connect(str(self.data)))

    def client(self) -> Any:  # noqa: ANN401 - clickhouse-connect is not typed
        """A new clickhouse-connect client for one thread, with all rights; the store closes it at the latest."""
        import clickhouse_connect  # noqa: PLC0415 - needs an open engine

        client = clickhouse_connect.get_client(interface="chdb", path=str(self.data), database=DATABASE)
        self._clients.add(client)
        return client

    def stop_queries(self, comment: str | None = None) -> None:
        """Ends every running SELECT, or those with this `log_comment`; inserts go on."""
        which = "query_kind = 'Select'" if comment is None else f"Settings['log_comment'] = {_quoted(comment, chr(39))}"
        with self.handle() as handle:
            handle.query(f"KILL QUERY WHERE {which} ASYNC")

    def close(self) -> None:
        """Closes what is still open and gives the folder free. The process would hang at exit without it.

        With queries left behind it does nothing: what the engine has stored it will find again, as after a kill.
        """
        if self.left_behind:
            return
        for client in list(self._clients):
            client.close()
        self._anchor.close()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> Handle:
        config = self._write_config()
        anchor = Handle(_connect(f"{self.data}?config-file={config}"))
        try:
            anchor.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        except BaseException:
            anchor.close()
            raise
        return anchor

    def _write_config(self) -> Path:
        folder = self.folder / "engine"
        folder.mkdir(exist_ok=True)
        users, engine = folder / "users.xml", folder / "config.xml"
        users.write_text(_USERS.format(database=DATABASE), encoding="utf-8")
        engine.write_text(
            _ENGINE.format(memory_cap_bytes=self.memory_cap_bytes, users=escape(str(users))), encoding="utf-8"
        )
        return engine

    def _use_scratch(self) -> None:
        """Sends temporary files (every insert through clickhouse-connect writes one) where they are surely wiped."""
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)

    def _release(self) -> None:
        environment, directory = self._tempdir_before
        tempfile.tempdir = directory
        if environment is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = environment
        self._owner.close()


def leave(store: EmbeddedStore, status: int) -> int:
    """The status to end with, once the store is closed; with queries left behind it ends the process itself.

    Python would wait for the threads of such queries.
    """
    if store.left_behind:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


def _take(folder: Path) -> IO[str]:
    """The folder's lock, held until it is closed or the process ends in any way."""
    owner = (folder / "owner").open("a+", encoding="utf-8")
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner.seek(0)
        holder = owner.read().strip() or "unknown"
        owner.close()
        raise StoreInUseError(
            f"store {folder}: in use by process {holder}, and a store belongs to one process; "
            "query it through that process's SQL address, stop that process, or give another folder"
        ) from None
    owner.truncate(0)
    owner.write(str(os.getpid()))
    owner.flush()
    return owner


def _connect(connection_string: str) -> Any:  # noqa: ANN401 - chdb is not typed
    import chdb  # noqa: PLC0415 - 100 MB that only the embedded store needs

    try:
        return chdb.connect(connection_string)
    except RuntimeError as problem:
        reason = str(problem).partition("Stack trace")[0].strip(" ,\n")
        raise OSError(f"store {connection_string.partition('?')[0]}: the engine cannot open it: {reason}") from None


def _sql_error(message: str) -> SqlError:
    start = max(message.find("Code: "), 0)
    text = message[start:].strip()
    found = _CODE.match(text)
    return SqlError(int(found[1]) if found else 1002, text)  # 1002: UNKNOWN_EXCEPTION


def _quoted(text: str, quote: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return f"{quote}{escaped}{quote}"


def _machine_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
