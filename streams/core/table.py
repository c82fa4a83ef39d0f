"""From cumulative cells to tiers of slices: the state of one partition of `slo-partials`.

Rules (docs/adr/0004): of each (source partition, cell) the row set with the greatest applied offset counts; cells that
had been sealed before a record are ignored; a record's cells are folded first, then its frontier seals. Both the open
cells and each chunk are functions of the input up to their own applied offset, whatever the batches were, so pages
written at different offsets fit together again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from streams.core.rollup import CELL, CELL_ROWS, by_slot
from streams.core.slices import HOURS, LATENESS_MS, ON_TIME, SLICE_MS, TIERS, Tier

OPEN_SCHEMA = pl.Schema({**CELL_ROWS, "applied": pl.Int64, "offset": pl.Int64})
STEP_SCHEMA = pl.Schema(
    {
        "start": pl.Int64,
        "series": pl.UInt32,
        "bucket": pl.Int16,
        "good": pl.Boolean,
        "n": pl.Int64,
        "late_n": pl.Int64,
        "sum_us": pl.Int64,
        "max_us": pl.Int64,
    }
)
_STEP = ["start", "series", "bucket", "good"]
_STEP_SUMS = (pl.col("n", "late_n", "sum_us").sum(), pl.col("max_us").max())
NEVER = -1


@dataclass(frozen=True, slots=True)
class Heading:
    """A partial record without its cells: its offset, and (partition, applied offset, frontier or None) a source."""

    offset: int
    sources: tuple[tuple[int, int, int | None], ...]


@dataclass(slots=True)
class Chunk:
    """Steps of one tier within one stretch of event time; `applied` is the input offset it stands for."""

    rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=STEP_SCHEMA))
    applied: int = NEVER
    dirty: bool = False


ChunkKey = tuple[str, int]


class SloTable:
    """Open cells and tiers of the series of one partition. Not thread-safe; the caller runs one step at a time."""

    def __init__(self, *, histograms_in_hours: bool) -> None:
        """Without `histograms_in_hours` the hour tier keeps counts only."""
        self.applied = NEVER
        self.frontiers: dict[int, int] = {}
        self.chunks: dict[ChunkKey, Chunk] = {}
        self.expired: set[ChunkKey] = set()
        self._steps: dict[int, list[tuple[int, int]]] = {}
        self._slots: dict[int, list[pl.DataFrame]] = {}
        self._loose: set[int] = set()  # slots that may hold a cell more than once
        self._heads: list[tuple[int, int, int, int]] = []
        self._pending: list[pl.DataFrame] = []
        self._hour_histograms = histograms_in_hours

    def restore(self, applied: int, frontiers: dict[int, int], open_rows: pl.DataFrame) -> None:
        """Take the open cells as a page has them. Chunks are put into `chunks` by the caller."""
        self.applied = applied
        self.frontiers = dict(frontiers)
        self._slots = {key: [part] for key, part in by_slot(open_rows)}

    def fold(self, records: Sequence[Heading], rows: pl.DataFrame) -> None:
        """Fold records in log order.

        `rows`: cells as CELL_ROWS with `offset`, the record's. Records at or below `applied` are skipped. The rows are
        looked at when next needed, many records at once: what a record may still change was decided by `before`,
        the frontier ahead of it, so the result is the same.
        """
        fresh = [record for record in records if record.offset > self.applied]
        if not fresh:
            return
        if len(fresh) < len(records):
            rows = rows.filter(pl.col("offset") > self.applied)
        self._advance(fresh)
        if not rows.is_empty():
            self._pending.append(rows)

    def seal(self) -> None:
        """Move cells that their source's frontier has sealed into every tier that still holds their time."""
        self._catch_up()
        moved = [part for key in list(self._slots) for part in self._sealed_part(key)]
        if moved:
            rows = pl.concat(moved)
            for tier in TIERS:
                self._add(tier, rows)
        self._steps.clear()
        self._expire()

    def open_rows(self) -> pl.DataFrame:
        """Every open cell, one row set each."""
        self._catch_up()
        parts = [self._compact(key) for key in self._slots]
        return pl.concat(parts) if parts else pl.DataFrame(schema=OPEN_SCHEMA)

    def dirty_chunks(self) -> Iterator[tuple[ChunkKey, Chunk]]:
        """Chunks that have changed since they were last marked clean."""
        return ((key, chunk) for key, chunk in self.chunks.items() if chunk.dirty)

    def read(self, series: int, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """Rows (STEP_SCHEMA) of one series with start_s ≤ start < end_s (multiples of the tier's step), open cells included."""
        wanted = (pl.col("series") == series) & pl.col("start").is_between(start_s, end_s - 1)
        chunks = [
            chunk.rows
            for (name, start), chunk in self.chunks.items()
            if name == tier.name and start < end_s and start + tier.chunk_s > start_s
        ]
        still_open = self.open_rows().filter(pl.col("series") == series).with_columns(sealed_at=pl.lit(0, pl.Int64))
        steps = _steps_of(still_open, tier, histograms=True).select(STEP_SCHEMA.names())
        return pl.concat([*chunks, steps]).filter(wanted).group_by(_STEP).agg(_STEP_SUMS).sort(_STEP)

    def sealed_to_ms(self) -> int:
        """Event time up to which the slices of every source partition heard of are sealed; 0 before any."""
        return max(0, (min(self.frontiers.values(), default=0) - LATENESS_MS) // SLICE_MS * SLICE_MS)

    def _advance(self, records: Sequence[Heading]) -> None:
        for record in records:
            for source, applied, _ in record.sources:
                self._heads.append((record.offset, source, applied, self.frontiers.get(source, 0)))
            for source, _, frontier in record.sources:
                if frontier is not None and frontier > self.frontiers.get(source, 0):
                    self.frontiers[source] = frontier
                    self._steps.setdefault(source, []).append((frontier, record.offset))
            self.applied = record.offset

    def _catch_up(self) -> None:
        """Put pending rows into their slots, but for cells that had been sealed before their record."""
        if self._pending:
            schema = {"offset": pl.Int64, "source": pl.Int32, "applied": pl.Int64, "before": pl.Int64}
            heads = pl.DataFrame(self._heads, schema=schema, orient="row")
            rows = pl.concat(self._pending).join(heads, on=["offset", "source"])
            for key, part in by_slot(rows.filter(_seal_ms() > pl.col("before")).select(OPEN_SCHEMA.names())):
                self._slots.setdefault(key, []).append(part)
                self._loose.add(key)
            self._pending.clear()
        self._heads.clear()

    def _compact(self, key: int) -> pl.DataFrame:
        if key in self._loose:
            self._slots[key] = [_latest(pl.concat(self._slots[key]))]
            self._loose.discard(key)
        return self._slots[key][0]

    def _sealed_part(self, key: int) -> Iterator[pl.DataFrame]:
        limit = _slot_seal_ms(key)
        sealed = {source: self._sealing_offset(source, limit) for source, at in self.frontiers.items() if at >= limit}
        if not sealed:
            return
        rows = self._compact(key)
        where = pl.col("source").is_in(list(sealed))
        part = rows.filter(where)
        if part.is_empty():
            return
        rest = rows.filter(~where)
        if rest.is_empty():
            del self._slots[key]
        else:
            self._slots[key] = [rest]
        offsets = pl.DataFrame(list(sealed.items()), schema={"source": pl.Int32, "sealed_at": pl.Int64}, orient="row")
        yield part.join(offsets, on="source")

    def _sealing_offset(self, source: int, limit: int) -> int:
        """Offset of the record whose frontier sealed a cell, among those folded since the last seal."""
        return next((offset for frontier, offset in self._steps.get(source, ()) if frontier >= limit), self.applied)

    def _add(self, tier: Tier, rows: pl.DataFrame) -> None:
        steps = _steps_of(rows, tier, histograms=tier is not HOURS or self._hour_histograms)
        chunked = steps.with_columns(_chunk=pl.col("start") // tier.chunk_s * tier.chunk_s)
        for (start,), part in chunked.partition_by("_chunk", as_dict=True, include_key=False).items():
            key = (tier.name, int(start))  # type: ignore[call-overload]
            if self._is_expired(key):
                continue
            chunk = self.chunks.setdefault(key, Chunk())
            fresh = part.filter(pl.col("sealed_at") > chunk.applied).select(STEP_SCHEMA.names())
            if fresh.is_empty():
                continue
            chunk.rows = pl.concat([chunk.rows, fresh]).group_by(_STEP).agg(_STEP_SUMS).select(STEP_SCHEMA.names())
            chunk.applied = self.applied
            chunk.dirty = True

    def _is_expired(self, key: ChunkKey) -> bool:
        tier = next(tier for tier in TIERS if tier.name == key[0])
        now_s = max(self.frontiers.values(), default=0) // 1000
        return key[1] + tier.chunk_s + tier.keep_s < now_s

    def _expire(self) -> None:
        for key in [key for key in self.chunks if self._is_expired(key)]:
            del self.chunks[key]
            self.expired.add(key)


def _latest(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each cell the row set with the greatest applied offset; a replayed flush has the same, then the later record's."""
    for version in ("applied", "offset"):
        rows = rows.filter(pl.col(version) == pl.col(version).max().over(CELL))
    return rows


def _steps_of(rows: pl.DataFrame, tier: Tier, *, histograms: bool) -> pl.DataFrame:
    """Cells as steps of a tier, summed; keeps `sealed_at` as a further key."""
    bucket = pl.col("bucket") if histograms else pl.lit(-1, pl.Int16)
    late_n = pl.when(pl.col("late") != ON_TIME).then(pl.col("n")).otherwise(0)
    steps = rows.with_columns(start=pl.col("slice") // tier.step_s * tier.step_s, bucket=bucket, late_n=late_n)
    return steps.group_by([*_STEP, "sealed_at"]).agg(_STEP_SUMS)


def _seal_ms() -> pl.Expr:
    on_time = (pl.col("slice") + 1) * SLICE_MS + LATENESS_MS
    return pl.when(pl.col("late") == ON_TIME).then(on_time).otherwise((pl.col("late") + 1) * SLICE_MS)


def _slot_seal_ms(key: int) -> int:
    return (key + 1) * SLICE_MS + LATENESS_MS if key >= 0 else (-key - 1) * SLICE_MS
