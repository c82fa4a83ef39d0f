"""From cumulative cells to tiers of slices: the state of one partition of `slo-partials`.

Rules (docs/adr/0004): of each (source partition, cell) the row set with the greatest applied offset counts; cells that
had been sealed before a record are ignored; a record's cells are folded first, then its frontier seals. Both the open
cells and each chunk are functions of the input up to their own applied offset, whatever the batches were, so pages
written at different offsets fit together again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.lineage import RETIRED_MS, Lineage
from streams.core.rollup import CELL
from streams.core.rows import OPEN_SCHEMA, OpenCells, Steps, of_series, restarted, starts_of
from streams.core.slices import HOURS, LATENESS_MS, ON_TIME, SLICE_MS, TIERS, Tier, seal_ms

Longs = npt.NDArray[np.int64]
NEVER = -1


class NotCaughtUpError(RuntimeError):
    """Some chunks were saved later than the open cells: until those have caught up, their sum would count twice."""

    def __init__(self, applied: int, ahead: int) -> None:
        super().__init__(f"read up to offset {applied} of slo-partials; expected {ahead} before the first answer")


@dataclass(frozen=True, slots=True)
class Heading:
    """A partial record without its cells: its offset, and (partition, applied offset, frontier or None) a source.

    `topic_id`: of the topic that the sources are partitions of; empty when its writer did not know.
    """

    offset: int
    sources: tuple[tuple[int, int, int | None], ...]
    topic_id: str = ""


@dataclass(slots=True)
class Chunk:
    """Steps of one tier within one stretch of event time; `applied` is the input offset it stands for."""

    rows: Steps = field(default_factory=Steps.empty)
    applied: int = NEVER
    dirty: bool = False


ChunkKey = tuple[str, int]


class SloTable:
    """Open cells and tiers of the series of one partition. Not thread-safe; the caller runs one step at a time."""

    def __init__(self, *, histograms_in_hours: bool) -> None:
        """Without `histograms_in_hours` the hour tier keeps counts only."""
        self.applied = NEVER
        self.frontiers: dict[int, int] = {}  # of the newest source of each partition
        self.lineage = Lineage()
        self.chunks: dict[ChunkKey, Chunk] = {}
        self.expired: set[ChunkKey] = set()
        self._hour_histograms = histograms_in_hours
        self._open = OpenCells.from_frame(pl.DataFrame(schema=OPEN_SCHEMA))
        self._ahead = NEVER  # the greatest applied offset of restored chunks, until the open cells are there too
        self._pending: list[pl.DataFrame] = []
        self._heads: list[tuple[int, int, int, int, int]] = []  # offset, partition, source, applied, frontier before
        self._steps: dict[int, list[tuple[int, int]]] = {}  # source → (frontier, offset) since the last seal

    def restore(
        self,
        applied: int,
        frontiers: dict[int, int],
        open_rows: pl.DataFrame,
        chunks: dict[ChunkKey, Chunk],
        lineage: Lineage | None = None,
    ) -> None:
        """Take the open cells and the chunks as pages have them; after a crash chunks may be ahead."""
        self.applied = applied
        self.frontiers = dict(frontiers)
        self.lineage = lineage or Lineage()
        self.chunks = chunks
        self._open = OpenCells.from_frame(open_rows)
        self._ahead = max((chunk.applied for chunk in chunks.values() if chunk.applied > applied), default=NEVER)

    def fold(self, records: Sequence[Heading], rows: pl.DataFrame) -> None:
        """Fold records in log order.

        `rows`: cells as CELL_ROWS with `offset`, the record's. Records at or below `applied` are skipped, and so is one
        that comes again in the same call. The rows are looked at when next needed, many records at once: what a record
        may still change was decided by the frontier ahead of it, so the result is the same.
        """
        before, repeated = self.applied, False
        for record in records:
            if record.offset > self.applied:
                self._advance(record)
            else:
                repeated = True
        if repeated:
            rows = rows.filter(pl.col("offset") > before).unique(["offset", *CELL, "bucket", "good"])
        if not rows.is_empty():
            self._pending.append(rows)

    def seal(self) -> None:
        """Move cells that their source's frontier has sealed into every tier that still holds their time."""
        rows = self._settled()
        limits = seal_ms(starts_of(rows.key), rows.late)
        sealed_at = np.full(len(limits), NEVER)
        for source, frontier in self._sealing():
            mine = (rows.source == source) & (limits <= frontier)
            sealed_at[mine] = self._sealing_offsets(source, limits[mine])
        sealed = sealed_at != NEVER
        if sealed.any():
            for tier in TIERS:
                self._add(tier, rows.where(sealed), sealed_at[sealed])
            self._open = rows.where(~sealed)
        self._steps.clear()
        self._expire()

    def open_rows(self) -> pl.DataFrame:
        """Every open cell, one row set each (OPEN_SCHEMA)."""
        return self._settled().frame()

    def dirty_chunks(self) -> Iterator[tuple[ChunkKey, Chunk]]:
        """Chunks that have changed since they were last marked clean."""
        return ((key, chunk) for key, chunk in self.chunks.items() if chunk.dirty)

    def read(self, series: int, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """Rows (STEP_SCHEMA) of one series with start_s ≤ start < end_s, steps of the tier, open cells included.

        Raises NotCaughtUpError soon after a crash.
        """
        if self._ahead != NEVER:
            if self.applied < self._ahead:
                raise NotCaughtUpError(self.applied, self._ahead)
            self.seal()  # what the chunks hold already leaves the open cells
            self._ahead = NEVER
        rows = self._settled()
        parts = [_steps_of(rows.where(of_series(rows.key, series)), tier, histograms=True)]
        for (name, start), chunk in self.chunks.items():
            if name == tier.name and start < end_s and start + tier.chunk_s > start_s:
                parts.append(chunk.rows.where(of_series(chunk.rows.key, series)))
        steps = Steps.concat(*parts).summed()
        starts = starts_of(steps.key)
        return steps.where((starts >= start_s) & (starts < end_s)).frame()

    def sealed_to_ms(self) -> int:
        """Event time up to which the slices of every source partition heard of are sealed; 0 before any."""
        return max(0, (min(self.frontiers.values(), default=0) - LATENESS_MS) // SLICE_MS * SLICE_MS)

    def _advance(self, record: Heading) -> None:
        for partition, applied, frontier in record.sources:
            source, retires, retired = self.lineage.place(partition, record.topic_id)
            if retires is not None:
                self.frontiers[partition] = 0
                self._steps.setdefault(retires, []).append((RETIRED_MS, record.offset))
            before = RETIRED_MS if retired else self.frontiers.get(partition, 0)
            self._heads.append((record.offset, partition, source, applied, before))
            if frontier is not None and frontier > before:
                self.frontiers[partition] = frontier
                self._steps.setdefault(source, []).append((frontier, record.offset))
        self.applied = record.offset

    def _sealing(self) -> Iterator[tuple[int, int]]:
        """Every source with its frontier."""
        for partition, frontier in self.frontiers.items():
            yield self.lineage.live(partition), frontier
        for source in self.lineage.retired():
            yield source, RETIRED_MS

    def _settled(self) -> OpenCells:
        """The open cells with all that is pending: its rows, but those of cells sealed before their record."""
        if self._pending:
            schema = {
                "offset": pl.Int64,
                "partition": pl.Int32,
                "number": pl.Int32,
                "applied": pl.Int64,
                "before": pl.Int64,
            }
            heads = pl.DataFrame(self._heads, schema=schema, orient="row")
            known = pl.concat(self._pending).join(heads, left_on=["offset", "source"], right_on=["offset", "partition"])
            known = known.with_columns(source=pl.col("number"))
            fresh = OpenCells.from_frame(known)
            kept = fresh.where(seal_ms(starts_of(fresh.key), fresh.late) > known["before"].to_numpy())
            self._open = OpenCells.concat(self._open, kept).latest()
            self._pending.clear()
        self._heads.clear()
        return self._open

    def _sealing_offsets(self, source: int, limits: Longs) -> Longs:
        """For each limit the offset of the record whose frontier reached it, among those since the last seal."""
        steps = np.array([*self._steps.get(source, ()), (np.iinfo(np.int64).max, self.applied)], dtype=np.int64)
        offsets: Longs = steps[np.searchsorted(steps[:, 0], limits, side="left"), 1]
        return offsets

    def _add(self, tier: Tier, rows: OpenCells, sealed_at: Longs) -> None:
        steps = _steps_of(rows, tier, histograms=tier is not HOURS or self._hour_histograms)
        chunk_starts = starts_of(steps.key) // tier.chunk_s * tier.chunk_s
        for start in np.unique(chunk_starts).tolist():
            key = (tier.name, start)
            if self._is_expired(key, tier):
                continue
            chunk = self.chunks.get(key) or Chunk()
            # After a crash a chunk may be ahead of the open cells: what was sealed until then is in it already.
            fresh = steps.where((chunk_starts == start) & (sealed_at > chunk.applied))
            if len(fresh.key):
                chunk.rows = Steps.concat(chunk.rows, fresh).summed()
                chunk.applied, chunk.dirty = self.applied, True
                self.chunks[key] = chunk

    def _expire(self) -> None:
        tiers = {tier.name: tier for tier in TIERS}
        for key in [key for key in self.chunks if self._is_expired(key, tiers[key[0]])]:
            del self.chunks[key]
            self.expired.add(key)

    def _is_expired(self, key: ChunkKey, tier: Tier) -> bool:
        return key[1] + tier.chunk_s + tier.keep_s < max(self.frontiers.values(), default=0) // 1000


def _steps_of(rows: OpenCells, tier: Tier, *, histograms: bool) -> Steps:
    """One step for each row, not yet summed."""
    start = starts_of(rows.key) // tier.step_s * tier.step_s
    late_n = np.where(rows.late == ON_TIME, 0, rows.n)
    return Steps(restarted(rows.key, start, histograms=histograms), rows.n, late_n, rows.sum_us, rows.max_us)
