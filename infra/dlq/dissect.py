"""A value taken apart, field by field, up to the byte where it cannot be read any further. Pure.

The readers of `schemas` say whether a whole record is good. Here somebody wants to see where it stops being so.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.dlq.words import moment
from schemas.catalog import SchemaVersion, Topic, load_catalog
from schemas.codec import FRAME_BYTES, DecodeError, split_frame, writer_of

MAX_FIELDS = 500
MAX_TEXT = 200
_LONG_BYTES = 10


@dataclass(frozen=True, slots=True)
class Field:
    """A value that could be read, from byte `at` on; `path` is its name, with dots and indices inside of others."""

    path: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Where reading ended before its time."""

    at: int
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Dissection:
    """`schema` is the one that was read with; `guessed` when it is not the frame's, but one of the topic that fits."""

    schema_id: int | None
    schema: SchemaVersion | None
    guessed: bool
    fields: tuple[Field, ...]
    stop: Stop | None


def dissect(topic: str, value: bytes) -> Dissection:
    """As much of a topic's value as can be read."""
    try:
        schema_id, _ = split_frame(value)
    except DecodeError as error:
        return Dissection(None, None, guessed=False, fields=(), stop=Stop(0, "", error.detail))
    try:
        _, schema = writer_of(schema_id)
    except DecodeError as error:
        guess = _fitting(topic, value)
        if guess is None:
            return Dissection(schema_id, None, guessed=False, fields=(), stop=Stop(1, "", error.detail))
        return Dissection(schema_id, guess, guessed=True, fields=_read(guess, value)[0], stop=None)
    fields, stop = _read(schema, value)
    return Dissection(schema_id, schema, guessed=False, fields=fields, stop=stop)


def name_of(schema: SchemaVersion) -> str:
    """The schema for people: topic and version."""
    topic, _ = writer_of(schema.id)
    return f"{topic.name} v{schema.version}"


def _fitting(topic: str, value: bytes) -> SchemaVersion | None:
    """The newest schema of the topic that reads the body from its first byte to its last."""
    known: Topic | None = load_catalog().topics.get(topic)
    versions = known.versions if known is not None else ()
    return next((version for version in reversed(versions) if _read(version, value)[1] is None), None)


def _read(schema: SchemaVersion, value: bytes) -> tuple[tuple[Field, ...], Stop | None]:
    reader = _Reader(value)
    fields: list[Field] = []
    try:
        for field in reader.walk(json.loads(schema.text), ""):
            fields.append(field)
            if len(fields) == MAX_FIELDS:
                return tuple(fields), Stop(reader.at, field.path, f"only the first {MAX_FIELDS} fields are shown")
    except _UnreadableError as unreadable:
        return tuple(fields), Stop(unreadable.at, reader.path, unreadable.why)
    if reader.at < len(value):
        return tuple(fields), Stop(reader.at, "", f"the record ends here; {len(value) - reader.at} bytes more follow")
    return tuple(fields), None


class _UnreadableError(Exception):
    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


class _Reader:
    """A place in Avro bytes that moves forward; `path` is the field that is being read."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._named: dict[str, Any] = {}
        self.at = FRAME_BYTES
        self.path = ""

    def walk(self, schema: Any, path: str) -> Iterator[Field]:  # noqa: ANN401 - an Avro schema is any JSON
        self.path = path
        schema = self._named.get(schema, schema) if isinstance(schema, str) else schema
        start = self.at
        if isinstance(schema, list):
            yield from self.walk(schema[self._index(len(schema), "branch of the union")], path)
            return
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(schema, dict) and "name" in schema:
            self._named[schema["name"]] = schema
        match kind:
            case "record":
                for field in schema["fields"]:
                    yield from self.walk(field["type"], f"{path}.{field['name']}" if path else field["name"])
            case "array" | "map":
                yield from self._blocks(schema, path)
            case "enum":
                yield Field(path, schema["symbols"][self._index(len(schema["symbols"]), "symbol")], start)
            case str() if kind in _PRIMITIVES:
                text = _PRIMITIVES[kind](self)
                if isinstance(schema, dict) and schema.get("logicalType") == "timestamp-millis":
                    text = f"{text} ({moment(int(text))})"
                yield Field(path, text, start)
            case _:
                yield from self.walk(kind, path)

    def _blocks(self, schema: dict[str, Any], path: str) -> Iterator[Field]:
        number = 0
        start = self.at
        while (count := self.long()) != 0:
            if count < 0:  # then the block's size in bytes comes before its items
                count = -count
                self.long()
            for _ in range(count):
                item = f"{path}[{number}]"
                number += 1
                if schema["type"] == "map":
                    yield Field(f"{item}.key", self.text(), self.at)
                yield from self.walk(schema.get("items", schema.get("values")), item)
            self.path = path
        if number == 0:
            yield Field(path, "none", start)

    def _index(self, size: int, what: str) -> int:
        start = self.at
        index = self.long()
        if not 0 <= index < size:
            raise _UnreadableError(start, f"{what} {index}; expected 0 to {size - 1}")
        return index

    def long(self) -> int:
        start, number = self.at, 0
        for place in range(_LONG_BYTES):
            byte = self.take(1, "a number")[0]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follows
                return (number >> 1) ^ -(number & 1)
        raise _UnreadableError(start, f"a number of more than {_LONG_BYTES} bytes")

    def bytes_(self) -> bytes:
        start = self.at
        size = self.long()
        if size < 0:
            raise _UnreadableError(start, f"a length of {size}")
        return self.take(size, f"{size} bytes")

    def text(self) -> str:
        start = self.at
        try:
            return _short(self.bytes_().decode())
        except UnicodeDecodeError as cause:
            raise _UnreadableError(start, f"text that is not UTF-8: {cause.reason}") from cause

    def boolean(self) -> str:
        byte = self.take(1, "a boolean")[0]
        if byte > 1:
            raise _UnreadableError(self.at - 1, f"a boolean of {byte}; expected 0 or 1")
        return "true" if byte else "false"

    def take(self, size: int, what: str) -> bytes:
        left = len(self._value) - self.at
        if size > left:
            raise _UnreadableError(self.at, f"the value ends {left} bytes further on; expected {what}")
        taken = self._value[self.at : self.at + size]
        self.at += size
        return taken


_PRIMITIVES = {
    "null": lambda _: "null",
    "boolean": _Reader.boolean,
    "int": lambda reader: str(reader.long()),
    "long": lambda reader: str(reader.long()),
    "float": lambda reader: repr(struct.unpack("<f", reader.take(4, "4 bytes"))[0]),
    "double": lambda reader: repr(struct.unpack("<d", reader.take(8, "8 bytes"))[0]),
    "bytes": lambda reader: _short(reader.bytes_().hex()),
    "string": _Reader.text,
}


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} in all)"
