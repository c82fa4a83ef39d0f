"""Records of one topic → rows of its table, the plans they belong to, and what had to be rejected."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.blocks import BlockReader
from schemas.catalog import load_catalog
from schemas.event_time import clamp
from schemas.rules import KEYED_BY_NODE
from streams.archive.plans import Plan
from streams.pieces import Piece, Room, partition_of, pieces_of, places_of, read_pieces
from streams.raw import RawBatch

Ints = npt.NDArray[np.int64]
_NONE: Ints = np.empty(0, np.int64)


# A letter about one of these would only say that fleetbeat does not understand itself, round and round.
_SILENT = frozenset({"slo-status", "dead-letters"})
# The TTL of raw rows, as in infra/clickhouse.
KEPT_DAYS = 14
_FAR_AHEAD_MS = 1 << 62  # whatever is later is the same


@dataclass(frozen=True, slots=True)
class Route:
    """Where a topic goes.

    `replacing`: the table keeps one row a key, so that a doubtful batch is simply written again.
    `letters`: what cannot be read is sent to dead-letters by the archive.
    `raw`: records come as the broker's batches.
    """

    topic: str
    table: str
    replacing: bool = False
    letters: bool = False
    raw: bool = False


def routes() -> tuple[Route, ...]:
    """The archived topics; who reports unreadable records is the catalog's `validated_by`."""
    return (
        _route("probe-results", "probe_results"),
        _route("heartbeats", "heartbeats"),
        _route("request-counts", "request_counts"),
        _route("node-states", "node_states", replacing=True),
        _route("slo-status", "slo_windows", replacing=True),
        _route("dead-letters", "dead_letters", replacing=True),
    )


def _route(topic: str, table: str, *, replacing: bool = False) -> Route:
    letters = topic not in _SILENT and load_catalog().topic(topic).validated_by == "archive"
    # What nodes say is most of the traffic, and of a topic that is never compacted.
    return Route(topic, f"telemetry.{table}", replacing, letters, raw=topic in KEYED_BY_NODE)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one Kafka partition; the four lists are of the same length, at least one."""

    partition: int
    offsets: Sequence[int]
    append_ms: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def first(self) -> int:
        """The lowest offset."""
        return self.offsets[0]

    @property
    def next(self) -> int:
        """The offset after the last record."""
        return self.offsets[-1] + 1

    @property
    def held_bytes(self) -> int:
        """The size of all values."""
        return sum(map(len, filter(None, self.values)))


@dataclass(frozen=True, slots=True)
class RawChunk:
    """The same as the broker's batches, at least one; the first may hold records before those that are wanted."""

    partition: int
    batches: Sequence[RawBatch]

    def __len__(self) -> int:
        return sum(batch.count for batch in self.batches)

    @property
    def first(self) -> int:
        """The lowest offset that is wanted."""
        return self.batches[0].first

    @property
    def next(self) -> int:
        """The offset after the last record."""
        return self.batches[-1].next_offset

    @property
    def held_bytes(self) -> int:
        """The size of all batches, compressed."""
        return sum(len(batch.data) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that makes no row."""

    reason: str
    detail: str
    partition: int
    offset: int
    append_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Shaped:
    """Rows as the table has them, of so many records, one plan a partition (in their order, also without rows).

    `left`: what there was no room for; it comes after what was shaped.
    """

    records: int
    frame: pl.DataFrame
    plans: tuple[Plan, ...]
    rejected: tuple[Rejected, ...]
    left: tuple[RawChunk, ...] = ()


class Shaper:
    """Shapes the chunks of one topic. Not for several threads at once."""

    def __init__(self, route: Route) -> None:
        self._topic = route.topic
        self._reader = BlockReader(route.topic)
        self._table_rows = {
            "probe-results": _probe_results,
            "heartbeats": _heartbeats,
            "request-counts": _request_counts,
            "slo-status": _slo_windows,
            "node-states": _node_states,
            "dead-letters": _dead_letters,
        }[route.topic]

    def shape(self, chunks: Sequence[Chunk | RawChunk]) -> Shaped:
        """The rows of `chunks`, all of one kind, which hold each partition's records in offset order.

        Of batches only as many as there is room for at once, usually all.
        """
        raw = [chunk for chunk in chunks if isinstance(chunk, RawChunk)]
        return self._shape_batches(raw) if raw else self._shape_records(cast("Sequence[Chunk]", chunks))

    def _shape_batches(self, chunks: Sequence[RawChunk]) -> Shaped:
        room, pieces, left = Room(), list[Piece](), list[RawChunk]()
        for chunk in chunks:
            found, taken = pieces_of(chunk.batches, chunk.first, room)
            pieces += found
            if taken < len(chunk.batches):
                left.append(RawChunk(chunk.partition, chunk.batches[taken:]))
        read = read_pieces(self._reader, pieces)
        places = [(_NONE, _NONE), *map(places_of, read.pieces)]
        offsets, append_ms = (np.concatenate(column) for column in zip(*places, strict=True))
        partitions = np.repeat([partition_of(piece) for piece in read.pieces], [len(piece) for piece in read.pieces])
        origin = _Origin(partitions, offsets, append_ms)
        frame = self._table_rows(origin.beside(read.frame))
        rejected = tuple(
            Rejected(reject.reason, reject.detail, at.partition, at.offset, at.timestamp, at.key, at.value)
            for reject, at in zip(read.rejects, read.rejected, strict=True)
        )
        return Shaped(len(offsets), frame, _plans(self._topic, origin, frame), rejected, tuple(left))

    def _shape_records(self, chunks: Sequence[Chunk]) -> Shaped:
        keys = list(chain.from_iterable(chunk.keys for chunk in chunks))
        values = list(chain.from_iterable(chunk.values for chunk in chunks))
        origin = _Origin(
            np.repeat([chunk.partition for chunk in chunks], [len(chunk.offsets) for chunk in chunks]),
            np.concatenate([np.array(chunk.offsets, np.int64) for chunk in chunks]),
            np.concatenate([np.array(chunk.append_ms, np.int64) for chunk in chunks]),
        )
        rows = origin
        wanted = {"slo-status": is_minute, "node-states": _is_said}.get(self._topic)
        if wanted is not None:
            kept = [row for row, key in enumerate(keys) if wanted(key, values[row])]
            keys, values = [keys[row] for row in kept], [values[row] for row in kept]
            rows = origin.at(np.array(kept, np.int64))
        block = self._reader.read(keys, values)
        found = [(reject.row, reject.reason, reject.detail) for reject in block.rejects]
        frame = block.frame
        if self._topic == "slo-status":
            frame, foreign = _keyed_by_minute(frame, keys)
            found += foreign
        frame = self._table_rows(rows.beside(frame))
        rejected = tuple(
            Rejected(reason, detail, *rows.of(row), keys[row], values[row]) for row, reason, detail in sorted(found)
        )
        return Shaped(len(origin.offsets), frame, _plans(self._topic, origin, frame), rejected)


def arrow_stream(frame: pl.DataFrame) -> bytes:
    """The frame as an Arrow IPC stream for ClickHouse, labels as a map."""
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if "labels" in frame.columns:
        # ClickHouse does not take a list of nullable structs for a map; the three arrays are shared, not copied
        labels = table.column("labels").combine_chunks()
        pairs = labels.values
        columns = (labels.offsets.cast(pa.int32()), pairs.field(0).cast(pa.string()), pairs.field(1).cast(pa.string()))
        place = table.schema.get_field_index("labels")
        table = table.set_column(place, "labels", pa.MapArray.from_arrays(*columns))
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def is_minute(key: bytes | None, value: bytes | None) -> bool:
    """Whether a record of slo-status is a minute (key `slo@start in ms`) and no tombstone."""
    return value is not None and key is not None and key.rpartition(b"@")[2].isdigit() and b"@" in key


def _is_said(_: bytes | None, value: bytes | None) -> bool:
    """Whether a record of node-states is a state and no tombstone of a node that has left."""
    return value is not None


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where input rows come from: partition, offset and append time, arrays of the same length."""

    partitions: Ints
    offsets: Ints
    append_ms: Ints

    def at(self, rows: Ints) -> "_Origin":
        return _Origin(self.partitions[rows], self.offsets[rows], self.append_ms[rows])

    def of(self, row: int) -> tuple[int, int, int]:
        return int(self.partitions[row]), int(self.offsets[row]), int(self.append_ms[row])

    def beside(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with the origin of each of its rows, found by `_row`."""
        here = self.at(frame["_row"].to_numpy().astype(np.int64))
        return frame.drop("_row").with_columns(
            pl.Series("received_at", here.append_ms, pl.Int64),
            pl.Series("kafka_partition", here.partitions, pl.UInt16),
            pl.Series("kafka_offset", here.offsets, pl.Int64),
        )


def _plans(topic: str, origin: _Origin, frame: pl.DataFrame) -> tuple[Plan, ...]:
    rows = dict(frame.group_by("kafka_partition").len().iter_rows())
    plans = []
    for partition in dict.fromkeys(origin.partitions.tolist()):
        mine = origin.partitions == partition
        offsets, append_ms = origin.offsets[mine], origin.append_ms[mine]
        span = int(offsets[0]), int(offsets[-1])
        plans.append(Plan(topic, partition, *span, rows.get(partition, 0), int(append_ms.min()), int(append_ms.max())))
    return tuple(plans)


def _keyed_by_minute(
    frame: pl.DataFrame, keys: Sequence[bytes | None]
) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
    """Rows whose key is exactly `slo@start in ms` of each of their windows; the others as rejects."""
    said = pl.Series("key", [(keys[row] or b"").decode(errors="replace") for row in frame["_row"]], pl.String)
    starts = pl.col("windows").list.eval(pl.element().struct.field("start")).list.unique()
    expected = pl.col("slo") + "@" + starts.cast(pl.List(pl.String)).list.join(",")
    frame = frame.with_columns(said, expected.alias("expected"))
    foreign = frame.filter(pl.col("key") != pl.col("expected"))
    rejects = [
        (row, "key-mismatch", f"key {key[:100]!r}; expected {expected[:100]!r}")
        for row, key, expected in foreign.select("_row", "key", "expected").iter_rows()
    ]
    return frame.filter(pl.col("key") == pl.col("expected")).drop("key", "expected"), rejects


def _time(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("ms", "UTC"))


def _with_event_time(frame: pl.DataFrame) -> pl.DataFrame:
    reported = frame["ts"]
    held = pl.Series("ts", clamp(reported.to_numpy(), frame["received_at"].to_numpy()), pl.Int64)
    return frame.with_columns(held, pl.when(held != reported).then(reported).alias("reported_ts_ms")).with_columns(
        _time("ts"), _time("received_at")
    )


def _probe_results(frame: pl.DataFrame) -> pl.DataFrame:
    return _with_event_time(frame)


def _heartbeats(frame: pl.DataFrame) -> pl.DataFrame:
    return _with_event_time(frame).rename({"boot_ts": "boot_ts_ms"})


def _request_counts(frame: pl.DataFrame) -> pl.DataFrame:
    """`ts` is the window's last millisecond, as the worker counts it."""
    began = pl.col("ts").clip(upper_bound=_FAR_AHEAD_MS)
    items = [
        pl.col("histogram").list.eval(pl.element().struct.field(name)).alias(f"histogram_{name}")
        for name in ("bucket", "total", "good")
    ]
    frame = frame.with_columns(pl.col("ts").alias("began_ms"), began + pl.col("window_ms") - 1, *items)
    return _with_event_time(frame.drop("histogram"))


def _slo_windows(frame: pl.DataFrame) -> pl.DataFrame:
    return (
        frame.rename({"ts": "reported_at", "applied_offset": "revision"})
        .explode("windows")
        .unnest("windows")
        .rename({"start": "window_start", "end": "window_end"})
        .with_columns(
            _time(name) for name in ("reported_at", "complete_to", "received_at", "window_start", "window_end")
        )
        .with_columns(pl.col("revision").clip(lower_bound=0))
    )


def _node_states(frame: pl.DataFrame) -> pl.DataFrame:
    times = [_time(name) for name in ("since", "last_seen", "received_at")]
    return frame.rename({"boot_ts": "boot_ts_ms"}).with_columns(times)


def _dead_letters(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(_time("append_ts"), _time("received_at"))
