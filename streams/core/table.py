"""From cumulative cells to tiers of slices: the state of one partition of `slo-partials`.

Rules (docs/adr/0004): of each (source partition, cell) the row set with the greatest applied offset counts; cells that
had been sealed before a record are ignored; a record's cells are folded first, then its frontier seals. Both the open
cells and each chunk are functions of the input up to their own applied offset, whatever the batches were, so pages
written at different offsets fit together again.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.lineage import RETIRED_MS, Lineage
from streams.core.naming import Naming
from streams.core.objectives import is_kept_by_minute
from streams.core.packed import Packed
from streams.core.rows import OPEN_SCHEMA, OpenCells, Steps, renumbered, series_in, series_of, starts_of
from streams.core.series import Mask, Numbers, SeriesIndex
from streams.core.slices import COUNTS, PLAIN_TIERS, SECONDS, TIERS, Tier, seal_ms
from streams.core.sources import PROBES, lane, place_of
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


class Chunk:
    """Steps of one tier within one stretch of event time; `applied` is the input offset it stands for."""

    __slots__ = ("_packed", "_rows", "applied", "dirty")

    def __init__(self, rows: Steps | None = None, applied: int = NEVER, *, dirty: bool = False) -> None:
        self._rows = rows or Steps.empty()
        self._packed: Packed | None = None
        self.applied = applied
        self.dirty = dirty

    @property
    def held(self) -> Steps | Packed:
        """The rows as they are in memory, which nothing changes any more."""
        return self._rows if self._packed is None else self._packed

    @property
    def rows(self) -> Steps:
        """All of them."""
        return self._rows if self._packed is None else self._packed.steps()

    @rows.setter
    def rows(self, rows: Steps) -> None:
        self._rows, self._packed = rows, None

    def pack(self, packed: Packed, rows: Steps) -> None:
        """Take little memory until there are other rows. Does nothing when there are by now: `packed` is of `rows`."""
        if self.held is rows:
            self._packed, self._rows = packed, Steps.empty()

    def mark_series(self, used: Mask) -> None:
        """Mark the numbers of all series in it."""
        used[series_in(self._rows.key)] = True
        if self._packed is not None:
            used[self._packed.series] = True

    def renumber(self, numbers: Numbers) -> None:
        """Series have these numbers now; rows that have them already stay what they are, with sums over them."""
        if self._packed is not None:
            series = numbers[self._packed.series]
            if not np.array_equal(series, self._packed.series):
                self._packed = replace(self._packed, series=series)
            return
        key = renumbered(self._rows.key, numbers)
        if not np.array_equal(key, self._rows.key):
            self._rows = replace(self._rows, key=key)


def forget_series(index: SeriesIndex, tables: Collection["SloTable"]) -> None:
    """Only series that are in some of the tables, which are all that use the index, stay in it."""
    used = np.zeros(len(index.names), np.bool_)
    for table in tables:
        table.mark_series(used)
    numbers = index.forget(used)
    for table in tables:
        table.renumber(used, numbers)


class SloTable:
    """Open cells and tiers of the series of one partition. Not thread-safe; the caller runs one step at a time."""

    def __init__(
        self, *, histograms_in_hours: bool, index: SeriesIndex | None = None, naming: Naming | None = None
    ) -> None:
        """Without `histograms_in_hours` it is a table of plain series: their minutes have counts only, and no hours.

        `index` says which are kept by the minute, and what their names are; `naming` bounds how many series have names.
        """
        self.naming = naming
        self.applied = NEVER
        self.frontiers: dict[int, int] = {}  # of the newest source of each lane
        # lane → applied offset of its newest source up to which all its cells of ours are here
        self.told: dict[int, int] = {}
        self.lineage = Lineage()
        self.chunks: dict[ChunkKey, Chunk] = {}
        self.expired: set[ChunkKey] = set()
        self._plain = not histograms_in_hours
        self._tiers = PLAIN_TIERS if self._plain else TIERS
        self._index = index or SeriesIndex()
        self._open = OpenCells.from_frame(pl.DataFrame(schema=OPEN_SCHEMA))
        self._ahead = NEVER  # the greatest applied offset of restored chunks, until the open cells are there too
        self._shown: dict[ChunkKey, ShownRows] = {}
        self._pending: list[OpenCells] = []
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
        if self.naming is not None:
            for key, chunk in chunks.items():
                if any(key[0] == tier.name for tier in self._tiers):
                    self.naming.learn(chunk.rows.key)
        self.pack()
        self._ahead = max((chunk.applied for chunk in chunks.values() if chunk.applied > applied), default=NEVER)

    def fold(self, records: Sequence[Heading], rows: OpenCells) -> None:
        """Fold records in log order.

        `rows`: of all records, as `OpenCells.arrived` has them. Records at or below `applied` are skipped, and so is
        one that comes again in the same call. The rows are looked at when next needed, many records at once: what a
        record may still change was decided by the frontier ahead of it, so the result is the same.
        """
        before, repeated = self.applied, False
        for record in records:
            if record.offset > self.applied:
                self._advance(record)
            else:
                repeated = True
        if repeated:
            rows = rows.where(rows.offset > before)
            rows = rows.once() if len(rows.key) else rows
        if len(rows.key):
            self._pending.append(rows)
            self._pending_rows += len(rows.key)
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
            if self.naming is not None:
                moved = self.naming.sealed(moved, sealed_at, self._now_s())
            for tier in self._tiers:
                self._add(tier, moved, sealed_at)
            self._open = rows.where(~sealed)
        self._steps.clear()
        self._expire()

    def mark_series(self, used: Mask) -> None:
        """Mark the numbers of all series that are in the table."""
        used[series_in(self._settled().key)] = True
        for chunk in self.chunks.values():
            chunk.mark_series(used)

    def renumber(self, used: Mask, numbers: Numbers) -> None:
        """The index has forgotten all series but those `used`, and the others have these numbers now."""
        self._open = replace(self._open, key=renumbered(self._open.key, numbers))
        for chunk in self.chunks.values():
            chunk.renumber(numbers)
        if self.naming is not None:
            self.naming.renumber(used)

    def pack(self) -> None:
        """Plain series are many and hardly ever asked for: what is saved and over takes little memory from now on."""
        for chunk, rows in self.packable():
            chunk.pack(Packed.of(rows), rows)

    def packable(self) -> list[tuple[Chunk, Steps]]:
        """What `pack` would pack, which may be done on another thread; afterwards it goes to `Chunk.pack`."""
        if not self._plain:
            return []
        lengths = {tier.name: tier.chunk_s for tier in self._tiers}
        # A topic that nobody writes to any more must not keep them all; late cells only cost packing once more.
        heard = {place_of(own)[0] for own in self.frontiers}
        sealed_s = max((self.sealed_to_ms(source) for source in heard), default=0) // 1_000
        return [
            (chunk, rows)
            for (tier, start), chunk in self.chunks.items()
            if isinstance(rows := chunk.held, Steps) and not chunk.dirty and start + lengths.get(tier, 0) <= sealed_s
        ]

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
            key: seen if (seen := known.get(key)) is not None and seen.held is chunk.held else ShownRows(chunk.held)
            for key, chunk in self.chunks.items()
        }
        return Shown(
            self.applied,
            self._ahead,
            self.frontiers.copy(),
            self.told.copy(),
            self._settled(),
            self._shown,
            self._index.mask(is_kept_by_minute),
            self._index.numbers,
        )

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
            rows = OpenCells.concat(*self._pending)
            heads = self._heads_of(rows.offset, rows.source)
            fresh = replace(rows, applied=heads.applied, source=heads.source)
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

    def _add(self, tier: Tier, rows: OpenCells, sealed_at: Longs) -> None:
        histograms = tier is SECONDS or not self._plain
        if tier is COUNTS:
            histograms, kept = False, self._index.mask(is_kept_by_minute)
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
        tiers = {tier.name: tier for tier in self._tiers}  # hours of plain series were kept once
        for key in [key for key in self.chunks if key[0] not in tiers or self._is_expired(key, tiers[key[0]])]:
            del self.chunks[key]
            self.expired.add(key)

    def _is_expired(self, key: ChunkKey, tier: Tier) -> bool:
        return key[1] + tier.chunk_s + tier.keep_s < self._now_s()

    def _now_s(self) -> int:
        return max(self.frontiers.values(), default=0) // 1000
