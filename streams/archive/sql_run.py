"""One query on its way through the engine: judged, limited, run, and handed out in pieces. All of it on threads."""

import json
from dataclasses import dataclass, field

from streams.archive import wire
from streams.archive.embedded import Answer, EmbeddedStore, Handle, SqlError, Stream
from streams.archive.gate import Asking, Gate, SessionChange, Statement
from streams.archive.settings import admit_settings
from streams.archive.sql_handles import Handles
from streams.archive.sql_http import Query
from streams.archive.sql_limits import Limits
from streams.archive.sql_stream import HEADERLESS, Joiner, Packing, can_stream

# What clickhouse-connect asks first. It must see settings as changeable, or it refuses `settings=` on its own side.
_SETTINGS_HANDSHAKE = "SELECT name, value, readonly FROM system.settings LIMIT 10000"
# What clickhouse-go asks first, with its protocol version.
_HELLO = "SELECT displayName(), version(), revision(), timezone()"
_AT_ONCE_BYTES = 1 << 20  # what is smaller is sent with its length and its whole summary


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs queries: the store, its gate, connections for them, and what it says of itself."""

    store: EmbeddedStore
    gate: Gate
    handles: Handles
    version: str
    timezone: str


@dataclass(slots=True)
class Totals:
    """What a query cost so far."""

    result_rows: int = 0
    result_bytes: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class Run:
    """One query: `begin`, then `more` while `whole` is false, `close` in any case; each on one thread at a time."""

    engine: Engine
    query: Query
    limits: Limits
    asking: Asking
    session_settings: dict[str, str]
    comment: str = ""
    """By which the engine can be told to stop it; empty as long as it has not reached the engine."""
    output_format: str = ""
    totals: Totals = field(default_factory=Totals)
    whole: bool = False
    """Everything was handed out."""
    is_left_behind: bool = False
    """The engine did not stop it, so a thread is still in it: nothing of it may be touched."""
    change: SessionChange | None = None
    _handle: Handle | None = None
    _taken_for: dict[str, str] | None = None
    _stream: Stream | None = None
    _joiner: Joiner | None = None
    _packing: Packing = field(default_factory=lambda: Packing(compress=False, encoding=""))

    def begin(self) -> bytes:
        """All of a small result, then it is closed, or the beginning of a large one; not packed. Raises SqlError."""
        data = self._begin()
        if self.whole:
            self.close()
        return data

    def _begin(self) -> bytes:
        query = self.query
        self._packing = Packing(compress=query.compress, encoding=query.encoding)
        if query.protocol and query.sql == _HELLO:
            self._note(Answer(wire.hello_block(self.engine.version, self.engine.timezone), result_rows=1))
            self.output_format, self.whole = "Native", True
            return wire.hello_block(self.engine.version, self.engine.timezone)
        statement = self._admit()
        if isinstance(statement, SessionChange):
            return self._remember(statement)
        self.output_format = statement.output_format or query.output_format
        settings = self._settings(query.settings)
        self.engine.gate.check_format(self.output_format)
        streams = statement.is_rows and not query.waits and can_stream(self.output_format, settings)
        if not streams:
            settings["max_result_bytes"] = str(min(int(settings["max_result_bytes"]), self.limits.result_bytes))
        handle = self._take(statement, settings)
        if streams:
            return self._begin_stream(handle, statement)
        return self._all(handle, statement)

    def more(self) -> bytes:
        """The next piece, packed as the client wants it. Raises SqlError."""
        return self._packing.pack(self._next())

    def pack(self, data: bytes) -> bytes:
        """What `begin` gave, as the client wants it."""
        return self._packing.pack(data)

    def end(self) -> bytes:
        """What comes behind the last piece."""
        return self._packing.end()

    def unpacked(self) -> None:
        """Takes the encoding off: the answer is too short for it."""
        self._packing = Packing(compress=self.query.compress, encoding="")

    def close(self) -> None:
        """Ends the query and its handle."""
        stream, handle, self._stream, self._handle = self._stream, self._handle, None, None
        try:
            if stream is not None:
                stream.close()
        finally:
            if handle is not None:
                handle.close()

    @property
    def is_open(self) -> bool:
        """Whether it still has something of the engine's."""
        return self._handle is not None

    def prepare_next(self) -> None:
        """Has a connection at hand for the next query that is asked like this one."""
        if self._taken_for is not None:
            self.engine.handles.prepare(self.asking.database, self._taken_for)

    def _admit(self) -> Statement | SessionChange:
        gate, sql = self.engine.gate, self.query.sql
        if (known := gate.admitted(sql, self.asking)) is not None:
            return known
        # Of its own: with settings of who asks, such as `limit`, the gate would not see what it judges.
        with self.engine.store.handle() as handle:
            return gate.admit(handle, sql, self.query.params, self.asking)

    def _take(self, statement: Statement, settings: dict[str, str]) -> Handle:
        if statement.sql == _SETTINGS_HANDSHAKE:
            self._handle = handle = self.engine.store.handle()
            handle.restrict(self.asking.database, settings, readonly=2)
            return handle
        ready = self.engine.handles.take(self.asking.database, settings)
        self._handle, self.comment, self._taken_for = ready.handle, ready.comment, settings
        return ready.handle

    def _settings(self, asked: dict[str, str]) -> dict[str, str]:
        limits = self.limits.settings(self.engine.store.memory_cap_bytes)
        return admit_settings(self.session_settings | asked, limits)

    def _remember(self, change: SessionChange) -> bytes:
        """Tries in the engine what the session will have to live with."""
        settings = self._settings(self.query.settings | change.settings)
        with self.engine.store.handle() as handle:
            handle.restrict(change.database or self.asking.database, settings)
        self.change, self.whole = change, True
        self.output_format = self.query.output_format
        return b""

    def _begin_stream(self, handle: Handle, statement: Statement) -> bytes:
        self._stream = handle.stream(statement.sql, self.output_format, self.query.params)
        self._joiner = Joiner(self.output_format)
        data = bytearray()
        while len(data) < _AT_ONCE_BYTES and not self.whole:
            data += self._next()
        if not data:
            data += _empty(handle, statement.sql, self.output_format, self.query.params)
            self.totals.result_bytes = len(data)
        return bytes(data)

    def _next(self) -> bytes:
        stream, joiner = self._stream, self._joiner
        if stream is None or joiner is None:
            raise RuntimeError("a result that is whole has no more pieces")
        block = stream.fetch()
        totals = self.totals
        totals.read_rows, totals.read_bytes = stream.read_rows, stream.read_bytes
        self.whole = not block
        if self.whole and not totals.result_rows:
            return b""
        data = joiner.add(block) if block else joiner.end()
        totals.result_rows = stream.result_rows
        totals.result_bytes += len(data)
        return data

    def _all(self, handle: Handle, statement: Statement) -> bytes:
        answer = handle.query(statement.sql, self.output_format, self.query.params)
        self._note(answer)
        self.whole = True
        if not answer.data:
            return _empty(handle, statement.sql, self.output_format, self.query.params)
        return answer.data

    def _note(self, answer: Answer) -> None:
        self.totals = Totals(answer.result_rows, len(answer.data), answer.read_rows, answer.read_bytes)


def _empty(handle: Handle, sql: str, output_format: str, params: dict[str, str]) -> bytes:
    """A result without rows, of which a stream gives nothing at all, and Native never does."""
    name = output_format.lower()
    if name != "native" and name not in HEADERLESS and name != "arrowstream":
        return b""
    columns = _columns(handle, sql, params)
    if name == "native":
        return wire.empty_block(columns)
    if name == "arrowstream":
        return handle.query(sql, output_format, params).data
    both = name.endswith("andtypes")
    texts = [[column for column, _ in columns], *([[kind for _, kind in columns]] if both else [])]
    if name.startswith("rowbinary"):
        return wire.varint(len(columns)) + b"".join(wire.string(text) for row in texts for text in row)
    return b"".join(_row(handle, row, HEADERLESS[name]) for row in texts)


def _row(handle: Handle, texts: list[str], output_format: str) -> bytes:
    """Names as the engine writes them in that format."""
    names = [f"p{number}" for number in range(len(texts))]
    asked = ", ".join(f"{{{name}:String}}" for name in names)
    values = {name: wire.escaped(text) for name, text in zip(names, texts, strict=True)}
    return handle.query(f"SELECT {asked}", output_format, values).data


def _columns(handle: Handle, sql: str, params: dict[str, str]) -> list[tuple[str, str]]:
    try:
        found = handle.query(f"DESCRIBE TABLE ({sql}\n)", "JSONCompactEachRow", params)
        return [(row[0], row[1]) for row in map(json.loads, found.data.splitlines())]
    except SqlError:  # SHOW and the like cannot be described, but are cheap to run again
        meta = json.loads(handle.query(sql, "JSONCompact", params).data)["meta"]
        return [(column["name"], column["type"]) for column in meta]
