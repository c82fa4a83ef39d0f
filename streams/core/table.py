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

from streams.core.cells import CELL
from streams.core.lineage import RETIRED_MS, Lineage
from streams.core.objectives import is_kept_by_minute
from streams.core.rows import OPEN_SCHEMA, OpenCells, Steps, series_of, starts_of
from streams.core.series import SeriesIndex
from streams.core.slices import COUNTS, HOURS, TIERS, Tier, seal_ms
from streams.core.sources import PROBES, lane
from streams.core.summaries import ChunkKey, Shown, ShownRows, sealed_to_ms, steps_of

Longs = npt.NDArray[np.int64]
NEVER = -1
# Rows that are folded and not yet looked at take memory; so many are looked at at once.
MAX_PENDING_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Heading:
    """A partial record without its cells: its offset, and (partition, applied offset, frontier or None) a source.

    `topic`: that the sources are partitions of; `topic_id` is empty when its writer did not know.
    """

    offset: int
    sources: tuple[tuple[int, int, int | None], ...]
    topic_id: str = ""
    topic: str = PROBES


@dataclass(frozen=True, slots=True)
class _Heads:
    """By row: whether its record names its partition, as which source, how far it was read, and the frontier before."""

    known: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int32]
    applied: Longs
    before: Longs


@dataclass(slots=True)
class Chunk:
    """Steps of one tier within one stretch of event time; `applied` is the input offset it stands for."""

    rows: Steps = field(default_factory=Steps.empty)
    applied: int = NEVER
    dirty: bool = False


class SloTable:
    """Open cells and tiers of the series of one partition. Not thread-safe; the caller runs one step at a time."""

    def __init__(self, *, histograms_in_hours: bool, index: SeriesIndex | None = None) -> None:
        """Without `histograms_in_hours` the hour tier keeps counts only; `index` says which are kept by the minute."""
        self.applied = NEVER
        self.frontiers: dict[int, int] = {}  # of the newest source of each lane
        # lane → applied offset of its newest source up to which all its cells of ours are here
        self.told: dict[int, int] = {}
        self.lineage = Lineage()
        self.chunks: dict[ChunkKey, Chunk] = {}
        self.expired: set[ChunkKey] = set()
        self._hour_histograms = histograms_in_hours
        self._index = index or SeriesIndex()
        self._by_minute: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)  # by series number
        self._open = OpenCells.from_frame(pl.DataFrame(schema=OPEN_SCHEMA))
        self._ahead = NEVER  # the greatest applied offset of restored chunks, until the open cells are there too
        self._shown: dict[ChunkKey, ShownRows] = {}
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0
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
            self._pending_rows += rows.height
            if self._pending_rows > MAX_PENDING_ROWS:
                self._settled()

    def seal(self) -> None:
        """Move cells that their source's frontier has sealed into every tier that still holds their time."""
        rows = self._settled()
        limits = seal_ms(starts_of(rows.key), rows.late)
        known = np.array(sorted(self._sealing()), dtype=np.int64).reshape(-1, 2)
        # Of a source that nobody has told a frontier of, nothing is sealed.
        places = np.minimum(np.searchsorted(known[:, 0], rows.source), max(0, len(known) - 1))
        sealed = (known[places, 0] == rows.source) & (limits <= known[places, 1]) if len(known) else limits < NEVER
        if sealed.any():
            moved, limits = rows.where(sealed), limits[sealed]
            sealed_at = np.full(len(limits), NEVER)
            places = places[sealed]
            for place in np.flatnonzero(np.bincount(places)).tolist():
                mine = places == place
                sealed_at[mine] = self._sealing_offsets(int(known[place, 0]), limits[mine])
            for tier in TIERS:
                self._add(tier, moved, sealed_at)
            self._open = rows.where(~sealed)
        self._steps.clear()
        self._expire()

    def open_rows(self) -> pl.DataFrame:
        """Every open cell, one row set each (OPEN_SCHEMA)."""
        return self._settled().frame()

    def dirty_chunks(self) -> Iterator[tuple[ChunkKey, Chunk]]:
        """Chunks that have changed since they were last marked clean."""
        return ((key, chunk) for key, chunk in self.chunks.items() if chunk.dirty)

    def open_cells(self) -> OpenCells:
        """The same as columns, which nothing changes any more."""
        return self._settled()

    def show(self) -> Shown:
        """The table as it is now, for readers that do not wait for the next fold."""
        if self._ahead != NEVER and self.applied >= self._ahead:
            self.seal()  # what the chunks hold already leaves the open cells
            self._ahead = NEVER
        known = self._shown
        self._shown = {
            key: seen if (seen := known.get(key)) is not None and seen.rows is chunk.rows else ShownRows(chunk.rows)
            for key, chunk in self.chunks.items()
        }
        frontiers, told = self.frontiers.copy(), self.told.copy()
        by_minute = self._kept_by_minute()
        return Shown(self.applied, self._ahead, frontiers, told, self._settled(), self._shown, by_minute)

    def read(self, series: int, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """What `show` answers."""
        return self.show().read(series, tier, start_s, end_s)

    def sealed_to_ms(self, source: str = PROBES) -> int:
        """Event time up to which the slices of every partition heard of a topic are sealed; 0 before any."""
        return sealed_to_ms(self.frontiers, source)

    def _advance(self, record: Heading) -> None:
        for partition, applied, frontier in record.sources:
            own = lane(record.topic, partition)
            source, retires, retired = self.lineage.place(own, record.topic_id)
            if retires is not None:
                self.frontiers[own] = 0
                self.told.pop(own, None)
                self._steps.setdefault(retires, []).append((RETIRED_MS, record.offset))
            before = RETIRED_MS if retired else self.frontiers.get(own, 0)
            self._heads.append((record.offset, partition, source, applied, before))
            if frontier is None or retired:  # a part of what there is up to that offset, or of a topic that is gone
                continue
            self.told[own] = max(self.told.get(own, NEVER), applied)
            if frontier > before:
                self.frontiers[own] = frontier
                self._steps.setdefault(source, []).append((frontier, record.offset))
        self.applied = record.offset

    def _sealing(self) -> Iterator[tuple[int, int]]:
        """Every source with its frontier."""
        for own, frontier in self.frontiers.items():
            yield self.lineage.live(own), frontier
        for source in self.lineage.retired():
            yield source, RETIRED_MS

    def _settled(self) -> OpenCells:
        """The open cells with all that is pending: its rows, but those of cells sealed before their record."""
        if self._pending:
            rows = pl.concat(self._pending)
            heads = self._heads_of(rows["offset"].to_numpy(), rows["source"].to_numpy())
            fresh = OpenCells.from_frame(rows.with_columns(applied=heads.applied, source=heads.source))
            wanted = heads.known & (seal_ms(starts_of(fresh.key), fresh.late) > heads.before)
            kept = fresh if wanted.all() else fresh.where(wanted)
            self._open = OpenCells.concat(self._open, kept).latest()
            self._pending.clear()
            self._pending_rows = 0
        self._heads.clear()
        return self._open

    def _heads_of(self, offsets: Longs, partitions: npt.NDArray[np.int32]) -> _Heads:
        """For each row what its record says of its partition."""
        heads = np.array(self._heads, dtype=np.int64).reshape(-1, 5)
        if not len(heads):
            return _Heads(np.zeros(len(offsets), np.bool_), partitions, offsets, offsets)
        least, width = heads[:, 0].min(), np.int64(heads[:, 1].max() + 1)
        keys = (heads[:, 0] - least) * width + heads[:, 1]
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(keys[order], (offsets - least) * width + partitions)
        found = heads[order[np.minimum(places, len(keys) - 1)]]
        known = (found[:, 0] == offsets) & (found[:, 1] == partitions)
        return _Heads(known, found[:, 2].astype(np.int32), found[:, 3], found[:, 4])

    def _sealing_offsets(self, source: int, limits: Longs) -> Longs:
        """For each limit the offset of the record whose frontier reached it, among those since the last seal."""
        steps = np.array([*self._steps.get(source, ()), (np.iinfo(np.int64).max, self.applied)], dtype=np.int64)
        offsets: Longs = steps[np.searchsorted(steps[:, 0], limits, side="left"), 1]
        return offsets

    def _kept_by_minute(self) -> npt.NDArray[np.bool_]:
        """For each series number whether COUNTS keep it."""
        new = [is_kept_by_minute(name) for name in self._index.names[len(self._by_minute) :]]
        if new:
            self._by_minute = np.concatenate((self._by_minute, np.array(new, dtype=np.bool_)))
        return self._by_minute

    def _add(self, tier: Tier, rows: OpenCells, sealed_at: Longs) -> None:
        histograms = tier is not HOURS or self._hour_histograms
        if tier is COUNTS:
            histograms, kept = False, self._kept_by_minute()
            wanted = kept[series_of(rows.key)] if kept.any() else np.zeros(len(rows.key), np.bool_)
            if not wanted.any():
                return
            rows, sealed_at = rows.where(wanted), sealed_at[wanted]
        steps = steps_of(rows, tier, histograms=histograms)
        chunk_numbers = starts_of(steps.key) // tier.chunk_s
        lowest = int(chunk_numbers.min())
        for number in (np.flatnonzero(np.bincount(chunk_numbers - lowest)) + lowest).tolist():
            key = (tier.name, number * tier.chunk_s)
            if self._is_expired(key, tier):
                continue
            chunk = self.chunks.get(key) or Chunk()
            # After a crash a chunk may be ahead of the open cells: what was sealed until then is in it already.
            wanted = (chunk_numbers == number) & (sealed_at > chunk.applied)
            if wanted.any():
                fresh = steps if wanted.all() else steps.where(wanted)
                chunk.rows = chunk.rows.plus(fresh.summed())
                chunk.applied, chunk.dirty = self.applied, True
                self.chunks[key] = chunk

    def _expire(self) -> None:
        tiers = {tier.name: tier for tier in TIERS}
        for key in [key for key in self.chunks if self._is_expired(key, tiers[key[0]])]:
            del self.chunks[key]
            self.expired.add(key)

    def _is_expired(self, key: ChunkKey, tier: Tier) -> bool:
        return key[1] + tier.chunk_s + tier.keep_s < max(self.frontiers.values(), default=0) // 1000
