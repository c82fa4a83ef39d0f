"""Kafka's record batches → columns, without taking them apart first.

A record of Kafka's format 2 is also an Avro record: its varints are Avro's longs, keys and values are lengths and
bytes, and a record without headers ends with a zero. With the fields of the value's schema in place of the value, a
whole batch is a block of an Avro file, which polars decodes in native code.

A value that is shorter or longer than its record shifts every later one. So the bytes that each row must have taken are
computed from its columns (`schemas.sizes`), and compared with the lengths that Kafka wrote ahead of the record and of
the value, and per batch with the batch's own. A row cannot take fewer bytes than that; none can have taken more when
all of them together are exactly the batches. So each row begins and ends where Kafka's record does.
"""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.catalog import SchemaVersion
from schemas.codec import FRAME_BYTES, MAX_VALUE_BYTES
from schemas.containers import bare, header_of, recast, widen, zigzag
from schemas.signatures import HEADER, SIGNATURE_BYTES
from schemas.sizes import Sizes, long_sizes, row_sizes, sizes
from schemas.traces import HEADER as TRACE_HEADER

Longs = npt.NDArray[np.int64]

KEY = "_key"
# Of readers that want them: the value of the signature's header, null without one, and the record's value as it came.
SIGNATURE, VALUE = "_signature", "_value"
_SIGNED = b"\x02" + zigzag(len(HEADER)) + HEADER.encode() + zigzag(SIGNATURE_BYTES)  # how the one header begins
_NAME = "_header_name"
_TRACE = "_trace"
# One header or none is what Avro calls a union with null; of two headers it is the first, when one is always there.
_OPTIONAL: list[Any] = [
    "null",
    {
        "type": "record",
        "name": "Header",
        "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": "string"}],
    },
]
_TRACED = zigzag(len(TRACE_HEADER)) + TRACE_HEADER.encode()
_SIGNED_ALONE = _SIGNED[: -len(zigzag(SIGNATURE_BYTES))]
_OFFSET = "_offset"
_MAGIC, _SCHEMA = "_magic", "_schema"
_AHEAD = (("_length", "long"), ("_attributes", "boolean"), ("_ts", "long"), (_OFFSET, "long"), (KEY, "string"))
_BOTH = 2  # one byte each: the record's attributes, and that there are no headers


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """`records`: the decompressed records, `count` by the batch's header, with consecutive offsets or not."""

    count: int
    records: bytes


class LogContainer:
    """Decodes whole batches whose values are all of one schema version; may be used from several threads.

    Their records have no headers or, `signed`, each a signature and no other; `traced`, some a trace ahead of that.
    `values`: with SIGNATURE and VALUE.
    """

    def __init__(
        self, version: SchemaVersion, *, signed: bool = False, traced: bool = False, values: bool = False
    ) -> None:
        self._signed = signed
        self._traced = traced
        self._wants_values = values
        schema = bare(json.loads(version.text))
        self._ints = [field["name"] for field in schema["fields"] if widen(field)]
        self._fields: list[dict[str, Any]] = schema["fields"]
        # Four bytes are read as they are when they are said to be a float.
        value = (("_size", "long"), (_MAGIC, "long"), (_SCHEMA, "float"))
        ahead = [{"name": name, "type": kind} for name, kind in (*_AHEAD, *value)]
        count = (_TRACE, _OPTIONAL) if traced else ("_headers", "long")
        behind = [count, *([(_NAME, "string"), (SIGNATURE, "bytes")] if signed else [])]
        around = [*ahead, *self._fields, *({"name": name, "type": kind} for name, kind in behind)]
        self._header, self._sync = header_of({"type": "record", "name": "KafkaRecord", "fields": around})
        self._schema = int.from_bytes(version.id.to_bytes(4, "big"), sys.byteorder)

    def try_read(self, batches: Sequence[RecordBatch]) -> pl.DataFrame | None:
        """The columns of the values and `_key`, one row a record; None on any doubt."""
        counts = np.array([batch.count for batch in batches])
        lengths = np.array([len(batch.records) for batch in batches])
        count = int(counts.sum())
        parts = self._alike(batches)
        block = (self._header, zigzag(count), zigzag(int(lengths.sum())), *parts, self._sync)
        try:
            frame = recast(pl.read_avro(io.BytesIO(b"".join(block))), dict.fromkeys(self._ints, pl.Int32()))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError, EOFError):
            return None
        first = np.cumsum(counts) - counts
        if frame.height != count or not self._framed(frame, np.arange(count) - np.repeat(first, counts)):
            return None
        if not self._sums_agree(frame, first, lengths) or (self._traced and not self._counts_agree(frame, batches)):
            return None
        wanted = [KEY, *(field["name"] for field in self._fields)]
        if not self._wants_values:
            return frame[wanted]
        signatures = frame[SIGNATURE] if self._signed else pl.Series(SIGNATURE, [None] * count, pl.Binary)
        return frame[wanted].hstack([signatures, pl.Series(VALUE, self._values(frame, batches), pl.Binary)])

    def _framed(self, frame: pl.DataFrame, offsets: Longs) -> bool:
        """Every value begins as this schema's do, headers are those expected, and offsets are without gaps."""
        schemas = frame[_SCHEMA].to_numpy().view(np.uint32)
        return bool(
            (schemas == self._schema).all()
            and not frame[_MAGIC].to_numpy().any()
            and self._headed(frame)
            and (not self._signed or (frame[_NAME] == HEADER).all())
            and (frame[_OFFSET].to_numpy() == offsets).all()
        )

    def _headed(self, frame: pl.DataFrame) -> bool:
        if self._traced:
            return bool((frame[_TRACE].drop_nulls().struct.field("name") == TRACE_HEADER).all())
        return bool((frame["_headers"].to_numpy() == self._signed).all())

    def _alike(self, batches: Sequence[RecordBatch]) -> list[bytes]:
        """The records, with a count of one header that is a signature as the null of a trace that is not there."""
        parts = [batch.records for batch in batches]
        if not (self._traced and self._signed):
            return parts
        return [part.replace(_SIGNED_ALONE, b"\0" + _SIGNED_ALONE[1:]) for part in parts]

    def _counts_agree(self, frame: pl.DataFrame, batches: Sequence[RecordBatch]) -> bool:
        """Every record says that it has as many headers as were read, and nothing else was changed to read them."""
        joined = b"".join(batch.records for batch in batches)
        traced = frame[_TRACE].is_not_null().to_numpy()
        said = np.frombuffer(joined, np.uint8)[self._value_ends(frame)]
        if not (said == 2 * (traced + np.uint8(self._signed))).all():  # small numbers are doubled in one byte
            return False
        return not self._signed or joined.count(_SIGNED_ALONE) == len(traced) - int(traced.sum())

    def _sums_agree(self, frame: pl.DataFrame, first: Longs, lengths: Longs) -> bool:
        """Every row has taken as many bytes as its record has, and the rows of each batch as many as the batch."""
        said: Longs = frame["_size"].to_numpy()
        value = FRAME_BYTES + row_sizes(((field["name"], field["type"]) for field in self._fields), frame)
        if not (said == value).all() or said.max() > MAX_VALUE_BYTES:
            return False
        whole = _BOTH + said + long_sizes(said) + row_sizes(_AHEAD[2:], frame) + self._header_sizes(frame)
        said = frame["_length"].to_numpy()
        return bool((said == whole).all() and (np.add.reduceat(said + long_sizes(said), first) == lengths).all())

    def _header_sizes(self, frame: pl.DataFrame) -> Sizes:
        """The bytes of the headers behind their count, row by row."""
        found: Sizes = sizes(_OPTIONAL, frame[_TRACE]) - 1 if self._traced else 0
        if self._signed:
            signatures: Longs = frame[SIGNATURE].bin.size().cast(pl.Int64).to_numpy()
            found = found + row_sizes([(_NAME, "string")], frame) + signatures + long_sizes(signatures)
        return found

    def _value_ends(self, frame: pl.DataFrame) -> Longs:
        """Where each value ends and the count of headers stands, of rows whose sizes agree with the batches."""
        lengths: Longs = frame["_length"].to_numpy()
        ends: Longs = np.cumsum(lengths + long_sizes(lengths), dtype=np.int64)
        return ends - 1 - self._header_sizes(frame)

    def _values(self, frame: pl.DataFrame, batches: Sequence[RecordBatch]) -> list[bytes]:
        """The bytes of each value, of rows whose sizes agree with the batches."""
        ends = self._value_ends(frame)
        begins = ends - frame["_size"].to_numpy()
        joined = b"".join(batch.records for batch in batches)
        return [joined[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


def is_signed(batch: RecordBatch) -> bool:
    """Whether the last record has a signature, of its usual length and as its last header."""
    begin = len(batch.records) - SIGNATURE_BYTES - len(_SIGNED)
    return begin > 0 and batch.records.startswith(_SIGNED[1:], begin + 1)


def is_traced(batch: RecordBatch) -> bool:
    """Whether a record may have a trace as a header."""
    return _TRACED in batch.records


def value_prefix(batch: RecordBatch) -> bytes:
    """The frame of the first record's value; anything where there is none."""
    records, at = batch.records, 0
    for skipped in (1, 0, 0):  # length and then the attributes; time; offset
        _, at = _varint(records, at)
        at += skipped
    for _ in ("key", "value"):
        size, begin = _varint(records, at)
        at = begin + max(0, size)
    return records[begin : begin + FRAME_BYTES]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and the place behind it."""
    coded = shift = 0
    while at < len(data):
        byte = data[at]
        coded |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:  # noqa: PLR2004 - the highest bit says that more follows
            break
    return (coded >> 1) ^ -(coded & 1), at
