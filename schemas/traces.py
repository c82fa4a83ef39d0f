"""The trace of a probe result in a header of its record (W3C Trace Context), made from the record alone.

So it is the same when the record waited on disk, when it is sent again, and after an upgrade. It is light to import:
every agent does. docs/producing.md describes the header for other languages.
"""

import io
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from fastavro import schemaless_reader

from schemas.catalog import load_topic
from schemas.codec import FRAME_BYTES, plain

HEADER = "traceparent"
_FIELD = "trace_id"
_DIGITS = 32
# How a trace id stands in a record: there (1 of null and text), and so long. Hardly any other text looks like it.
_LOOKS_TRACED = re.compile(b"\x02" + bytes([2 * _DIGITS]) + b"[0-9a-f]{%d}" % _DIGITS)
_GOOD = re.compile(r"[0-9a-f]{16}(?!0{16})[0-9a-f]{16}")


def span_id(trace_id: str) -> str:
    """Of the trace's first span: its id's second half, as in other tracers whose ids came to have 128 bits later."""
    return trace_id[_DIGITS // 2 :]


def traceparent(trace_id: str, *, sampled: bool) -> str:
    """The header's value for whoever is called within the trace's first span."""
    return f"00-{trace_id}-{span_id(trace_id)}-{int(sampled):02x}"


def trace_headers(topic: str, value: bytes) -> list[tuple[str, bytes]]:
    """The header of a framed record that has a trace id; none for others, and for what is no record of the topic.

    Sampled: whoever sees the record finds the id stored.
    """
    if _LOOKS_TRACED.search(value) is None or (schema := _schemas(topic).get(value[:FRAME_BYTES])) is None:
        return []
    try:
        fields: dict[str, Any] = schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)  # type: ignore[assignment]
    except Exception:  # noqa: BLE001 - fastavro has no error of its own; nobody takes such a record anyway
        return []
    found = fields[_FIELD]
    if found is None or _GOOD.fullmatch(found) is None:
        return []
    return [(HEADER, traceparent(found, sampled=True).encode())]


def kept_headers(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """Of a record's headers those that belong to what is made of it, too: a dead letter, and the record sent again."""
    return [(name, value) for name, value in headers if name == HEADER and value is not None]


@cache
def _schemas(topic: str) -> dict[bytes, dict[str, Any]]:
    """Of the topic's versions that know trace ids, by frame; times stay integers."""
    return {
        b"\0" + version.id.to_bytes(4, "big"): plain(version.parsed)
        for version in load_topic(topic).versions
        if any(field["name"] == _FIELD for field in version.parsed["fields"])
    }
