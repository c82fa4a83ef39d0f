"""Many framed values → columns at once, each row checked; doubtful stretches are read again one by one.

Bodies of one writer schema, joined, are an Avro container block, which polars decodes in native code. A body that
is longer or shorter than its record shifts every later one, so each body is followed by its index as a trailing
long: only if all indices come back in order does every body hold exactly one record.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from fastavro import parse_schema, writer

from schemas.catalog import Schema, SchemaVersion, load_catalog
from schemas.codec import MAX_VALUE_BYTES, DecodeError, read_body, split_frame, writer_of
from schemas.rules import KEYED_BY_NODE, RULES

# A doubtful block is split into stretches of this many records, so that one bad record costs its neighbours little.
STRETCH = 256
_INDEX = "_index"


@dataclass(frozen=True, slots=True)
class Reject:
    """Row `row` of the input cannot be used; `reason` is a tag, `detail` says field, value and what was expected."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Block:
    """Good rows in input order, with `_row` (UInt32) as their index into the input, and the rest."""

    frame: pl.DataFrame
    rejects: tuple[Reject, ...]


class BlockReader:
    """Reads the values of one topic; `columns` are those wanted (None: all)."""

    def __init__(self, topic: str, columns: Sequence[str] | None = None) -> None:
        self._topic = load_catalog().topic(topic)
        latest = self._topic.latest
        names = [field["name"] for field in latest.parsed["fields"]]
        wanted = set(names if columns is None else columns) | {rule.column for rule in RULES[topic]}
        self._keyed = topic in KEYED_BY_NODE
        self._columns = [name for name in names if name in wanted or (self._keyed and name == "node_id")]
        self._containers = {version.id: _Container(version) for version in self._topic.versions}
        self._empty = _millis(self._containers[latest.id].read([], self._columns)).drop(_INDEX)
        self._violation = _violation(topic)
        self._prefixes = {b"\0" + schema_id.to_bytes(4, "big"): schema_id for schema_id in self._containers}

    def read(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Block:
        """Decode and check `values` (framed, one a record) against `keys`, both of the same length."""
        rejects: list[Reject] = []
        frames = []
        for schema_id, rows in self._by_writer(values, rejects).items():
            frames += self._read_rows(schema_id, rows, keys, values, rejects)
        frame = pl.concat([self._empty.with_columns(pl.lit(0, pl.UInt32).alias("_row")).clear(), *frames])
        if len(self._containers) > 1 or rejects:
            frame = frame.sort("_row")
        frame = self._apply_rules(frame, rejects)
        return Block(frame, tuple(sorted(rejects, key=lambda reject: reject.row)))

    def _by_writer(self, values: Sequence[bytes | None], rejects: list[Reject]) -> dict[int, Sequence[int]]:
        for prefix, schema_id in self._prefixes.items():
            if all(value is not None and value.startswith(prefix) and len(value) <= MAX_VALUE_BYTES for value in values):
                return {schema_id: range(len(values))}
        groups: dict[int, list[int]] = {}
        for row, value in enumerate(values):
            try:
                schema_id, _ = split_frame(value)
                owner, _ = writer_of(schema_id)
                if owner.name != self._topic.name:
                    detail = f"schema id {schema_id} is for {owner.name}; expected {sorted(self._containers)}"
                    raise DecodeError("unknown-schema", detail)  # noqa: TRY301 - one way out for all frame errors
            except DecodeError as error:
                rejects.append(Reject(row, error.reason, error.detail))
            else:
                groups.setdefault(schema_id, []).append(row)
        return groups

    def _read_rows(
        self,
        schema_id: int,
        rows: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        rejects: list[Reject],
    ) -> list[pl.DataFrame]:
        whole = self._fast(schema_id, rows, keys, values)
        if whole is not None:
            return [whole]
        frames = []
        for start in range(0, len(rows), STRETCH):
            stretch = rows[start : start + STRETCH]
            frame = self._fast(schema_id, stretch, keys, values)
            frames.append(frame if frame is not None else self._slow(schema_id, stretch, keys, values, rejects))
        return frames

    def _fast(
        self, schema_id: int, rows: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]
    ) -> pl.DataFrame | None:
        """The rows as columns, or None on any doubt."""
        every = isinstance(rows, range) and len(rows) == len(values)
        picked = values if every else [values[row] for row in rows]
        frame = self._containers[schema_id].try_read([value[5:] for value in picked if value is not None], self._columns)
        if frame is None or frame.height != len(rows):
            return None
        if not (frame[_INDEX] == pl.int_range(len(rows), dtype=pl.Int64, eager=True)).all():
            return None
        if self._keyed:
            said = pl.Series(keys if every else [keys[row] for row in rows], dtype=pl.Binary)
            if not (said.is_not_null().all() and (frame["node_id"].cast(pl.Binary) == said).all()):
                return None
        index = pl.Series("_row", rows, dtype=pl.UInt32)
        frame = _millis(frame.drop(_INDEX)).with_columns(index)
        return frame if schema_id == self._topic.latest.id else self._completed(frame)

    def _slow(
        self,
        schema_id: int,
        rows: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        rejects: list[Reject],
    ) -> pl.DataFrame:
        """One by one with fastavro: says exactly which record is bad and why, at a tenth of the speed."""
        writer_version = self._containers[schema_id].version
        good: list[dict[str, Any]] = []
        kept: list[int] = []
        for row in rows:
            try:
                fields = read_body(writer_version, self._topic.latest, split_frame(values[row])[1])
                if self._keyed:
                    _check_key(keys[row], fields["node_id"])
            except DecodeError as error:
                rejects.append(Reject(row, error.reason, error.detail))
            else:
                good.append({name: fields[name] for name in self._columns})
                kept.append(row)
        frame = pl.DataFrame(good, schema=self._empty.schema)
        return frame.with_columns(pl.Series("_row", kept, dtype=pl.UInt32))

    def _completed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of an older writer with the reader's defaults for what it did not know."""
        defaults = {field["name"]: field.get("default") for field in self._topic.latest.parsed["fields"]}
        missing = [name for name in self._columns if name not in frame.columns]
        columns = [pl.lit(defaults[name], self._empty.schema[name]).alias(name) for name in missing]
        return frame.with_columns(columns).select(*self._columns, "_row")

    def _apply_rules(self, frame: pl.DataFrame, rejects: list[Reject]) -> pl.DataFrame:
        if self._violation is None or frame.is_empty():
            return frame
        which = frame.select(self._violation).to_series()
        if which.null_count() == frame.height:
            return frame
        rules = RULES[self._topic.name]
        bad = frame.with_columns(which.alias("_rule")).filter(pl.col("_rule").is_not_null())
        for fields in bad.iter_rows(named=True):
            rule = rules[fields["_rule"]]
            detail = f"{rule.column}: {str(fields[rule.column])[:100]!r}; expected {rule.expected}"
            rejects.append(Reject(fields["_row"], "invalid-value", detail))
        return frame.filter(which.is_null())


class _Container:
    """Wraps bodies of one writer schema as an Avro object container."""

    def __init__(self, version: SchemaVersion) -> None:
        self.version = version
        schema = _bare(json.loads(version.text))
        schema["fields"].append({"name": _INDEX, "type": "long"})
        self._names = {field["name"] for field in schema["fields"]}
        self._header, self._sync = _header(schema)
        self._indices: list[bytes] = []

    def read(self, bodies: list[bytes], columns: Sequence[str]) -> pl.DataFrame:
        """The bodies' columns and `_index`. Raises what polars raises on foreign bytes."""
        count = len(bodies)
        while len(self._indices) < count:
            self._indices.append(_zigzag(len(self._indices)))
        pieces = [b""] * (2 * count)
        pieces[::2] = bodies
        pieces[1::2] = self._indices[:count]
        joined = b"".join(pieces)
        block = (self._header, _zigzag(count), _zigzag(len(joined)), joined, self._sync) if count else (self._header,)
        wanted = [name for name in columns if name in self._names]
        return pl.read_avro(io.BytesIO(b"".join(block)), columns=[*wanted, _INDEX])

    def try_read(self, bodies: list[bytes], columns: Sequence[str]) -> pl.DataFrame | None:
        """`read`, or None where polars cannot."""
        try:
            return self.read(bodies, columns)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError, EOFError):
            return None


def _bare(schema: Any) -> Any:  # noqa: ANN401 - an Avro schema is any JSON
    """Without defaults and docs: a writer's schema needs neither, and polars refuses a number as default of a long."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in ("default", "doc")}
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    return schema


def _header(schema: Schema) -> tuple[bytes, bytes]:
    out = io.BytesIO()
    writer(out, parse_schema(schema), [])
    header = out.getvalue()
    return header, header[-16:]


def _zigzag(number: int) -> bytes:
    """A non-negative number as Avro writes a long."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _millis(frame: pl.DataFrame) -> pl.DataFrame:
    """Times as Int64 milliseconds and enums as strings, also inside nested records."""
    return frame.cast({name: plain for name, dtype in frame.schema.items() if (plain := _plain(dtype)) != dtype})


def _plain(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.Datetime):
        return pl.Int64()
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(_plain(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return dtype


def _check_key(key: bytes | None, node_id: str) -> None:
    if key != node_id.encode():
        said = "null" if key is None else repr(key[:100])
        raise DecodeError("key-mismatch", f"key {said}; expected node_id {node_id[:100]!r}")


def _violation(topic: str) -> pl.Expr | None:
    """Index of the first rule a row breaks, null where it breaks none."""
    rules = RULES[topic]
    if not rules:
        return None
    return pl.coalesce(
        pl.when(~rule.holds).then(pl.lit(number, pl.Int32)) for number, rule in enumerate(rules)
    ).alias("_rule")
