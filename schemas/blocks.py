"""Many framed values → columns at once, each row checked; doubtful stretches are read again in smaller ones.

Polars alone decides which rows are good and what they hold, and it always reads every column. So what becomes of a
row depends neither on its neighbours nor on the consumer, also where fastavro reads foreign bytes differently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import polars as pl

from schemas.catalog import load_catalog
from schemas.codec import FRAME_BYTES, MAX_VALUE_BYTES, DecodeError, read_body, split_frame, writer_of
from schemas.containers import INDEX, Container, recast
from schemas.record_batches import KEY, SIGNATURE, VALUE, LogContainer, RecordBatch, is_signed, is_traced, value_prefix
from schemas.rules import KEYED_BY_NODE, RULES

# A doubtful block is split into stretches of this many records, so that one bad record costs its neighbours little.
STRETCH = 256
# Whole batches are decoded in groups of about so many records: larger ones only need more memory.
GROUP = 32_768
# A doubtful group of batches is halved until it has so few records, which are then read one by one.
SMALL_GROUP = 2_048
# Faults that fastavro finds and polars cannot overlook, see `_sound`.
_CERTAIN = frozenset({"truncated", "trailing-bytes", "key-mismatch"})
_REFUSED = DecodeError("undecodable", "polars cannot read it: a number out of range or not written as Avro says")

# Schema id, and whether there are signatures and may be traces.
_Kind = tuple[int, bool, bool]


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


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one `read` was given, and the rejects it has found so far."""

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    rejects: list[Reject]


class BlockReader:
    """Reads the values of one topic; `columns` are those wanted (None: all)."""

    def __init__(self, topic: str, columns: Sequence[str] | None = None, *, signatures: bool = False) -> None:
        """`signatures`: what `read_batches` returns has SIGNATURE and VALUE too."""
        self.signatures = signatures
        self._extra = (SIGNATURE, VALUE) if signatures else ()
        self._topic = load_catalog().topic(topic)
        latest = self._topic.latest
        names = [field["name"] for field in latest.parsed["fields"]]
        wanted = set(names if columns is None else columns) | {rule.column for rule in RULES[topic]}
        self._keyed = topic in KEYED_BY_NODE
        self._traces = "trace_id" in names
        self._columns = [name for name in names if name in wanted or (self._keyed and name == "node_id")]
        self._containers = {version.id: Container(version) for version in self._topic.versions}
        self._logs = {
            (version.id, signed, traced): LogContainer(version, signed=signed, traced=traced, values=signatures)
            for version in self._topic.versions
            for signed in (False, True)
            for traced in ((False, True) if self._traces else (False,))
        }
        self._empty = _millis(self._containers[latest.id].read([]).select(self._columns))
        self._no_rows = self._empty.with_columns(pl.lit(0, pl.UInt32).alias("_row")).clear()
        extra = {name: pl.Series(dtype=pl.Binary) for name in self._extra}
        self._no_whole = self._empty.clear().with_columns(**extra, _row=pl.Series(dtype=pl.UInt32))
        self._violation = _violation(topic)
        self._prefixes = {b"\0" + schema_id.to_bytes(4, "big"): schema_id for schema_id in self._containers}

    def read(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Block:
        """Decode and check `values` (framed, one a record) against `keys`, both of the same length."""
        rejects: list[Reject] = []
        batch = _Batch(keys, values, rejects)
        frames = []
        for schema_id, rows in self._by_writer(values, rejects).items():
            frames += self._read_rows(schema_id, rows, batch)
        frame = pl.concat([self._no_rows, *frames])
        if len(self._containers) > 1 or rejects:
            frame = frame.sort("_row")
        frame = self._apply_rules(frame, rejects)
        return Block(frame, tuple(sorted(rejects, key=lambda reject: reject.row)))

    def read_batches(self, batches: Sequence[RecordBatch]) -> tuple[pl.DataFrame, set[int]]:
        """Decode and check whole batches; `_row` of the good rows counts over all records of all of them.

        Returns the batches too in which there is any doubt. No row is taken of these: `read` decides about each.
        """
        counts = [batch.count for batch in batches]
        first = [0, *accumulate(counts)]
        frames, doubtful = [self._no_whole], set[int]()
        for kind, members in self._by_kind(batches).items():
            waiting = _groups(members, counts)
            while waiting:
                group = waiting.pop()
                frame = self._whole(kind, [batches[number] for number in group])
                if frame is not None:
                    rows = np.concatenate([np.arange(first[n], first[n + 1], dtype=np.uint32) for n in group])
                    frames.append(frame.hstack([pl.Series("_row", rows)]))
                elif len(group) == 1 or sum(counts[number] for number in group) <= SMALL_GROUP:
                    doubtful.update(group)
                else:
                    waiting += [group[: len(group) // 2], group[len(group) // 2 :]]
        # The batches of one group are in order.
        return frames[-1] if len(frames) <= 2 else pl.concat(frames).sort("_row"), doubtful  # noqa: PLR2004 - none and one

    def _by_kind(self, batches: Sequence[RecordBatch]) -> Mapping[_Kind, Sequence[int]]:
        """By the schema of their first value, and by whether they are signed; what is in doubt there is for any."""
        signed = [is_signed(batch) for batch in batches]
        # Who expects traces reads batches without them, too, and one group of all is read sooner than two.
        traced = self._traces and any(map(is_traced, batches))
        if len(self._containers) == 1 and not any(signed):
            return {(self._topic.latest.id, False, traced): range(len(batches))}
        groups: dict[_Kind, list[int]] = {}
        for number, batch in enumerate(batches):
            writer = self._prefixes.get(value_prefix(batch), self._topic.latest.id)
            groups.setdefault((writer, signed[number], traced), []).append(number)
        return groups

    def _whole(self, kind: _Kind, batches: Sequence[RecordBatch]) -> pl.DataFrame | None:
        """The rows of whole batches, or None on any doubt."""
        frame = self._logs[kind].try_read(batches)
        if frame is None or (self._keyed and not (frame[KEY] == frame["node_id"]).all()):
            return None
        known = [name for name in self._columns if name in frame.columns]
        frame = _millis(frame[[*known, *self._extra]])
        if kind[0] != self._topic.latest.id:
            frame = self._completed(frame, [*self._columns, *self._extra])
        if self._violation is not None and frame.select(self._violation.is_not_null().any()).item():
            return None
        return frame

    def _by_writer(self, values: Sequence[bytes | None], rejects: list[Reject]) -> Mapping[int, Sequence[int]]:
        only = self._only_writer(values)
        if only is not None:
            return {only: range(len(values))}
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

    def _only_writer(self, values: Sequence[bytes | None]) -> int | None:
        """The one known schema id that all values carry, none of them empty or too large; else None."""
        whole = [value for value in values if value is not None]
        if len(whole) < len(values) or max(map(len, whole), default=0) > MAX_VALUE_BYTES:
            return None
        prefixes = {value[:5] for value in whole}
        return self._prefixes.get(prefixes.pop()) if len(prefixes) == 1 else None

    def _read_rows(self, schema_id: int, rows: Sequence[int], batch: _Batch) -> list[pl.DataFrame]:
        whole = self._fast(schema_id, rows, batch)
        if whole is not None:
            return [whole]
        frames: list[pl.DataFrame] = []
        for start in range(0, len(rows), STRETCH):
            stretch = rows[start : start + STRETCH]
            frame = self._fast(schema_id, stretch, batch)
            if frame is None:
                frames += self._halves(schema_id, self._sound(schema_id, stretch, batch), batch)
            else:
                frames.append(frame)
        return frames

    def _fast(self, schema_id: int, rows: Sequence[int], batch: _Batch) -> pl.DataFrame | None:
        """The rows as columns, or None on any doubt."""
        every = isinstance(rows, range) and len(rows) == len(batch.values)
        picked = batch.values if every else [batch.values[row] for row in rows]
        container = self._containers[schema_id]
        frame = container.try_read([value[FRAME_BYTES:] for value in picked if value is not None])
        if frame is None or frame.height != len(rows):
            return None
        if not (frame[INDEX] == container.indices(len(rows))).all():
            return None
        if self._keyed:
            said = pl.Series(batch.keys if every else [batch.keys[row] for row in rows], dtype=pl.Binary)
            if not (said.is_not_null().all() and (frame["node_id"].cast(pl.Binary) == said).all()):
                return None
        known = [name for name in self._columns if name in frame.columns]
        frame = _millis(frame[known]).hstack([pl.Series("_row", rows, dtype=pl.UInt32)])
        return frame if schema_id == self._topic.latest.id else self._completed(frame, [*self._columns, "_row"])

    def _sound(self, schema_id: int, rows: Sequence[int], batch: _Batch) -> list[int]:
        """The rows without a fault that polars cannot overlook either; one by one, at a tenth of the speed."""
        sound: list[int] = []
        for row in rows:
            error = self._fault(schema_id, row, batch)
            if error is not None and error.reason in _CERTAIN:
                batch.rejects.append(Reject(row, error.reason, error.detail))
            else:
                sound.append(row)
        return sound

    def _halves(self, schema_id: int, rows: Sequence[int], batch: _Batch) -> list[pl.DataFrame]:
        """Ever smaller blocks, down to the single records that polars refuses."""
        frame = self._fast(schema_id, rows, batch)
        if frame is not None:
            return [frame]
        if len(rows) == 1:
            error = self._fault(schema_id, rows[0], batch) or _REFUSED
            batch.rejects.append(Reject(rows[0], error.reason, error.detail))
            return []
        middle = len(rows) // 2
        return self._halves(schema_id, rows[:middle], batch) + self._halves(schema_id, rows[middle:], batch)

    def _fault(self, schema_id: int, row: int, batch: _Batch) -> DecodeError | None:
        """What fastavro or the key says against the row."""
        try:
            body = split_frame(batch.values[row])[1]
            fields = read_body(self._containers[schema_id].version, self._topic.latest, body)
            if self._keyed:
                _check_key(batch.keys[row], fields["node_id"])
        except DecodeError as error:
            return error
        return None

    def _completed(self, frame: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
        """Rows of an older writer with the reader's defaults for what it did not know; the columns in this order."""
        defaults = {field["name"]: field.get("default") for field in self._topic.latest.parsed["fields"]}
        missing = [name for name in self._columns if name not in frame.columns]
        columns = [pl.lit(defaults[name], self._empty.schema[name]).alias(name) for name in missing]
        return frame.with_columns(columns).cast(self._empty.schema).select(wanted)

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


def _groups(members: Sequence[int], counts: Sequence[int]) -> list[Sequence[int]]:
    """Consecutive members with about GROUP records together."""
    groups, first, size = list[Sequence[int]](), 0, 0
    for place, number in enumerate(members):
        size += counts[number]
        if size >= GROUP:
            groups.append(members[first : place + 1])
            first, size = place + 1, 0
    if first < len(members):
        groups.append(members[first:])
    return groups


def _millis(frame: pl.DataFrame) -> pl.DataFrame:
    """Times as Int64 milliseconds and enums as strings, also inside nested records."""
    return recast(frame, {name: plain for name, dtype in frame.schema.items() if (plain := _plain(dtype)) != dtype})


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
    return pl.coalesce(pl.when(~rule.holds).then(pl.lit(number, pl.Int32)) for number, rule in enumerate(rules)).alias(
        "_rule"
    )
