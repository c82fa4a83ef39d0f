"""One record ⇄ bytes: a zero byte, the schema id (4 bytes, big endian), the Avro body. The slow, careful path."""

import io
import struct
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from schemas.catalog import SchemaVersion, Topic, load_catalog, load_topic
from schemas.records import (
    RECORD_TYPES,
    BucketCount,
    Label,
    ObjectiveRule,
    ObjectiveVersion,
    Record,
    SloWindow,
    Source,
)

MAX_VALUE_BYTES = 1 << 20
_FRAME = struct.Struct(">bI")
FRAME_BYTES = _FRAME.size
# By topic: what the items of its arrays are.
_ARRAYS: dict[str, dict[str, type]] = {
    "heartbeats": {"labels": Label},
    "probe-results": {"labels": Label},
    "request-counts": {"histogram": BucketCount, "labels": Label},
    "slo-partials": {"sources": Source, "series": str},
    "slo-status": {"windows": SloWindow},
    "objectives": {"objectives": ObjectiveVersion, "rules": ObjectiveRule},
}
_TOPIC_NAMES = {record_type: name for name, record_type in RECORD_TYPES.items()}


class DecodeError(ValueError):
    """A value that cannot be read: `reason` is a tag for counting, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def frame(schema_id: int, body: bytes) -> bytes:
    """The body with its five-byte header."""
    return _FRAME.pack(0, schema_id) + body


def split_frame(value: bytes | None) -> tuple[int, bytes]:
    """(schema id, body). Raises DecodeError for what is no frame, or too large to look at."""
    if value is None:
        raise DecodeError("empty", "the record has no value; expected a framed Avro record")
    if len(value) > MAX_VALUE_BYTES:
        raise DecodeError("too-large", f"{len(value)} bytes; expected at most {MAX_VALUE_BYTES}")
    if len(value) < _FRAME.size or value[0] != 0:
        raise DecodeError(
            "bad-frame", f"starts with {value[:5].hex() or 'nothing'}; expected 00 and a 4-byte schema id"
        )
    return _FRAME.unpack_from(value)[1], value[_FRAME.size :]


def encode(record: Record) -> bytes:
    """The record framed, by the latest schema of its topic."""
    # Its topic alone: whoever only writes one or two, on a small host, does not wait for the whole catalog.
    version = load_topic(_TOPIC_NAMES[type(record)]).latest
    out = io.BytesIO()
    schemaless_writer(out, version.parsed, _as_fields(record), strict=True)
    return frame(version.id, out.getvalue())


def _as_fields(value: Any) -> Any:  # noqa: ANN401 - whatever a field may hold
    """Records as dicts, in fields too; `dataclasses.asdict` copies every text as well, and takes ten times as long."""
    if isinstance(value, tuple):
        return [_as_fields(item) for item in value]
    kind = type(value)
    return {name: _as_fields(getattr(value, name)) for name in _names(kind)} if is_dataclass(kind) else value


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def decode(value: bytes | None) -> Record:
    """The record of a framed value. Raises DecodeError."""
    schema_id, body = split_frame(value)
    topic, version = writer_of(schema_id)
    return from_fields(topic.name, read_body(version, topic.latest, body))


def writer_of(schema_id: int) -> tuple[Topic, SchemaVersion]:
    """The topic and schema that the id stands for. Raises DecodeError for ids that are not ours."""
    found = _by_id().get(schema_id)
    if found is None:
        raise DecodeError("unknown-schema", f"schema id {schema_id}; expected one of {sorted(_by_id())}")
    return found


def read_body(writer: SchemaVersion, reader: SchemaVersion, body: bytes) -> dict[str, Any]:
    """The body's fields by name, times as integers. Raises DecodeError; the whole body must be used."""
    stream = io.BytesIO(body)
    try:
        fields = schemaless_reader(stream, _plain(writer.id), _plain(reader.id))
    except EOFError as cause:
        raise DecodeError("truncated", f"the body of {len(body)} bytes ends inside a field") from cause
    except Exception as cause:  # fastavro has no error of its own: anything it raises on foreign bytes means unreadable
        raise DecodeError("undecodable", f"{type(cause).__name__}: {cause}"[:300]) from cause
    if stream.tell() != len(body):
        raise DecodeError("trailing-bytes", f"the record ends at byte {stream.tell()} of {len(body)}")
    return fields  # type: ignore[return-value]


def from_fields(topic: str, fields: dict[str, Any]) -> Record:
    """The dataclass of a topic's decoded fields."""
    arrays = {
        name: tuple(items if kind is str else (kind(**item) for item in items))
        for name, kind in _ARRAYS.get(topic, {}).items()
        for items in (fields[name],)
    }
    return RECORD_TYPES[topic](**{**fields, **arrays})


@cache
def _by_id() -> dict[int, tuple[Topic, SchemaVersion]]:
    return {version.id: (topic, version) for topic, version in load_catalog().schemas()}


@cache
def _plain(schema_id: int) -> dict[str, Any]:
    return plain(_by_id()[schema_id][1].parsed)  # type: ignore[no-any-return]


def plain(schema: Any) -> Any:  # noqa: ANN401 - an Avro schema is any JSON
    """The schema without logical types, so that times stay the integers they are on the wire."""
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    return schema
