"""Bodies of one writer schema → an Avro object container → columns, decoded by polars in native code.

A body that is longer or shorter than its record shifts every later one, so each body is followed by its index as a
trailing long: only if all indices come back in order does every body hold exactly one record. The indices count from
a secret number: a body that knew the index after it could swallow the next message and speak under that one's key.
"""

import io
import json
import secrets
from collections.abc import Mapping
from typing import Any

import polars as pl
from fastavro import parse_schema, writer

from schemas.catalog import Schema, SchemaVersion

INDEX = "_index"
# Indices count from 2**48 + a random number: all of one length, and not to be guessed.
_SECRET_BITS = 48


class Container:
    """Decodes many bodies at once; may be used from several threads."""

    def __init__(self, version: SchemaVersion) -> None:
        self.version = version
        schema = bare(json.loads(version.text))
        self._ints = [field["name"] for field in schema["fields"] if widen(field)]
        schema["fields"].append({"name": INDEX, "type": "long"})
        self._header, self._sync = header_of(schema)
        self._first = (1 << _SECRET_BITS) | secrets.randbits(_SECRET_BITS)
        self._trailers: list[bytes] = []

    def indices(self, count: int) -> pl.Series:
        """What `_index` holds after `count` bodies that are one record each."""
        return pl.int_range(self._first, self._first + count, dtype=pl.Int64, eager=True)

    def read(self, bodies: list[bytes]) -> pl.DataFrame:
        """The bodies' columns and `_index`. Raises what polars raises on foreign bytes."""
        count = len(bodies)
        trailers = self._trailers
        if len(trailers) < count:
            # A new list, because another thread may be reading with the old one.
            self._trailers = trailers = [zigzag(self._first + number) for number in range(2 * count)]
        pieces = [b""] * (2 * count)
        pieces[::2] = bodies
        pieces[1::2] = trailers[:count]
        joined = b"".join(pieces)
        block = (self._header, zigzag(count), zigzag(len(joined)), joined, self._sync) if count else (self._header,)
        return recast(pl.read_avro(io.BytesIO(b"".join(block))), dict.fromkeys(self._ints, pl.Int32()))

    def try_read(self, bodies: list[bytes]) -> pl.DataFrame | None:
        """`read`, or None where polars cannot."""
        try:
            return self.read(bodies)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError, EOFError):
            return None


def recast(frame: pl.DataFrame, kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The frame with some columns as other types.

    Column by column, without polars' threads: on a busy machine these wait for their turn, and whoever asks waits too.
    """
    frame = frame.clone()
    for name, kind in kinds.items():
        frame.replace_column(frame.get_column_index(name), frame[name].cast(kind))
    return frame


def bare(schema: Any) -> Any:  # noqa: ANN401 - an Avro schema is any JSON
    """Without defaults and docs: a writer's schema needs neither, and polars refuses a number as default of a long."""
    if isinstance(schema, dict):
        return {key: bare(value) for key, value in schema.items() if key not in ("default", "doc")}
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    return schema


def widen(field: Schema) -> bool:
    """Whether the field is an int; it becomes a long, of the same form on the wire, as polars wraps too large ints."""
    kind = field["type"]
    if kind == "int":
        field["type"] = "long"
    elif kind == ["null", "int"]:
        field["type"] = ["null", "long"]
    return bool(field["type"] != kind)


def header_of(schema: Schema) -> tuple[bytes, bytes]:
    """What a file of this schema begins with, and the marker that ends its blocks."""
    out = io.BytesIO()
    writer(out, parse_schema(schema), [])
    header = out.getvalue()
    return header, header[-16:]


def zigzag(number: int) -> bytes:
    """A non-negative number as Avro writes a long."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
