"""From events to cumulative cells. Exact under replay: everything is a function of the log, never of batches or clocks.

A *cell* is one slice of one series as one source partition saw it. Its rows are columnar: one for each
(bucket, good) with n, sum_us and max_us, so merging is adding. In a plain series an event is good when it succeeded,
in an objective's series when that objective judges it so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.event_time import clamp
from streams.core.cells import CELL, CELL_ROWS, SOURCE_BITS, Cells, slot_keys
from streams.core.histogram import buckets_of
from streams.core.live import Live
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.core.slices import ON_TIME, SLICE_MS, frontiers, lateness_of, seal_ms

Longs = npt.NDArray[np.int64]

_NO_ROWS = pl.DataFrame(schema=CELL_ROWS)  # to make one takes longer than to fill it
_NO_CELLS = Cells.of(_NO_ROWS)
_SUMS = (pl.col("n", "sum_us").sum(), pl.col("max_us").max())


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Consecutive records of one source partition, readable or not; both arrays have shape (records,)."""

    partition: int
    offsets: Longs
    append_ms: Longs


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source partition has been counted; `frontier` is the greatest append time (ms) until there."""

    applied_offset: int
    frontier: int


@dataclass(frozen=True, slots=True)
class Flush:
    """The touched cells with all they hold so far (rows as CELL_ROWS), and how far every partition is.

    `progress` names the partitions that brought nothing too: an owner may not have heard of their last frontier yet.
    """

    plain: pl.DataFrame
    objectives: pl.DataFrame
    progress: dict[int, Progress]


@dataclass(slots=True)
class _Slot:
    """The cells that are sealed together: one slice on time, or all late cells of one append second.

    `since`: for each source partition with cells here, the first record in them: (offset, frontier before it).
    """

    seal_ms: int
    since: dict[int, tuple[int, int]] = field(default_factory=dict)
    plain: Cells = _NO_CELLS
    objectives: Cells = _NO_CELLS


@dataclass(frozen=True, slots=True)
class _Columns:
    """Arrays over all records of a step, in the order of its batches."""

    source: npt.NDArray[np.int32]
    offset: Longs
    append: Longs
    frontier: Longs
    before: Longs
    fresh: npt.NDArray[np.bool_]


class Rollup:
    """Open cells of the assigned source partitions. Not thread-safe; the caller runs one step at a time."""

    def __init__(self, judge: Judge, live: Live | None = None) -> None:
        """`live` counts along, event by event."""
        self.events = 0
        self.late = 0
        self.clamped = 0
        self.progress: dict[int, Progress] = {}
        self._judge = judge
        self._live = live or Live()
        self._slots: dict[int, _Slot] = {}

    def open(self, partition: int, frontier: int) -> None:
        """Begin with a partition; `frontier` is what the last commit said for the offset that is read first."""
        self.progress[partition] = Progress(-1, frontier)

    def step(self, batches: Sequence[SourceBatch], events: pl.DataFrame) -> Flush:
        """Count records and return what they touch, cumulative.

        `events`: the readable records, with `_row` (index into the concatenated batches), the four labels, ts (ms),
        success, latency_us; or rows with weights (`streams.core.weights`), perhaps several a record, in the order of
        `_row`. Records at or below a partition's applied offset are skipped, wherever batches were cut.
        """
        if not batches:
            return Flush(_NO_ROWS, _NO_ROWS, self._told())
        columns = self._advance(batches)
        rows = events["_row"].to_numpy()
        fresh = columns.fresh[rows]
        if not fresh.all():
            events, rows = events.filter(pl.Series(fresh)), rows[fresh]
        progress = self._told()
        if not len(rows):
            return Flush(_NO_ROWS, _NO_ROWS, progress)
        grouped = self._group(events, columns, rows)
        plain = Cells.of(grouped.hstack([grouped["success"].alias("good")]))
        judged = Cells.of(self._judge.objective_rows(grouped))
        return Flush(self._merge(plain, "plain"), self._merge(judged, "objectives"), progress)

    def settle(self, flush: Flush) -> None:
        """Every owner has been told of the frontiers of `flush`, acknowledged: cells that they seal are done with.

        An owner that had not heard would take what a restart rebuilds of such a cell, from the middle on, for newer.
        """
        for key, slot in list(self._slots.items()):
            done = [p for p in slot.since if p in flush.progress and slot.seal_ms <= flush.progress[p].frontier]
            if not done:
                continue
            for partition in done:
                del slot.since[partition]
            if not slot.since:
                del self._slots[key]
                continue
            slot.plain, slot.objectives = (
                rows.where(np.isin(rows.source, done, invert=True)) for rows in (slot.plain, slot.objectives)
            )

    def resume_point(self, partition: int, done: Progress) -> tuple[int, int]:
        """(offset, frontier before it) from where a restart rebuilds every open cell of a partition.

        `done`: what is published. More may have been counted since, and the point is never behind that: a record in
        between may be unreadable and in no cell.
        """
        since = [slot.since[partition] for slot in self._slots.values() if partition in slot.since]
        return min([*since, (done.applied_offset + 1, done.frontier)])

    def open_rows(self) -> int:
        """Rows held for open cells: the size of the state."""
        return sum(len(slot.plain) + len(slot.objectives) for slot in self._slots.values())

    def forget_series(self, index: SeriesIndex) -> None:
        """Only series with open cells stay in the index; others are learned again when they come again."""
        used = np.zeros(len(index.names), np.bool_)
        for slot in self._slots.values():
            for rows in (slot.plain, slot.objectives):
                used[rows.series] = True
        numbers = index.forget(used)
        for slot in self._slots.values():
            slot.plain, slot.objectives = (
                replace(rows, series=numbers[rows.series]) for rows in (slot.plain, slot.objectives)
            )
        self._judge.renumber(used, numbers)

    def _told(self) -> dict[int, Progress]:
        return {p: progress for p, progress in self.progress.items() if progress.applied_offset >= 0}

    def _advance(self, batches: Sequence[SourceBatch]) -> _Columns:
        parts = []
        for batch in batches:
            progress = self.progress[batch.partition]
            at = frontiers(progress.frontier, batch.append_ms)
            before = np.concatenate(([progress.frontier], at[:-1]))
            source = np.full(len(at), batch.partition, np.int32)
            fresh = batch.offsets > progress.applied_offset
            parts.append((source, batch.offsets, batch.append_ms, at, before, fresh))
            applied = max(progress.applied_offset, int(batch.offsets[-1]))
            self.progress[batch.partition] = Progress(applied, int(at[-1]))
        return _Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _group(self, events: pl.DataFrame, columns: _Columns, rows: npt.NDArray[np.uint32]) -> pl.DataFrame:
        ts = events["ts"].to_numpy()
        clamped = clamp(ts, columns.append[rows])
        slices = clamped // SLICE_MS
        late = lateness_of(slices, columns.frontier[rows])
        self._open_slots(slices, late, columns, rows)
        first = np.concatenate(([True], rows[1:] != rows[:-1]))
        self.events += int(first.sum())
        self.late += int((first & (late != ON_TIME)).sum())
        self.clamped += int((first & (clamped != ts)).sum())
        places = [pl.Series("source", columns.source[rows]), pl.Series("slice", slices), pl.Series("late", late)]
        numbered = self._numbered(events).hstack(places)
        if self._live.rings:
            n = pl.col("n") if "n" in numbered.columns else pl.lit(1, pl.Int64).alias("n")
            told = numbered.select("series", "slice", "bucket", "success", "rank", n, pl.Series("ts", clamped))
            self._live.add(self._judge, told)
        return self._sums(numbered)

    def _numbered(self, events: pl.DataFrame) -> pl.DataFrame:
        """Rows with series, bucket and rank in place of labels."""
        if "n" in events.columns:
            weighted = self._judge.number(events[[*LABELS, "success", "bucket", "n", "sum_us", "max_us"]])
            ranks = self._judge.ranks_of_buckets(weighted["bucket"].to_numpy())
            return weighted.hstack([pl.Series("rank", ranks)])
        latency = events["latency_us"].to_numpy()
        numbered = self._judge.number(events[[*LABELS, "success", "latency_us"]])
        return numbered.hstack(
            [pl.Series("bucket", buckets_of(latency)), pl.Series("rank", self._judge.ranks_of(latency))]
        )

    def _sums(self, numbered: pl.DataFrame) -> pl.DataFrame:
        """Rows by cell, bucket, success and rank."""
        keys = [*CELL, "bucket", "success", "rank"]
        if "n" in numbered.columns:
            return numbered.group_by(keys).agg(_SUMS)
        return numbered.group_by(keys).agg(
            n=pl.len().cast(pl.Int64), sum_us=pl.col("latency_us").sum(), max_us=pl.col("latency_us").max()
        )

    def _open_slots(self, slices: Longs, late: Longs, columns: _Columns, rows: npt.NDArray[np.uint32]) -> None:
        keys = slot_keys(slices, late)
        sources = columns.source[rows]
        # The first row of each (slot, source) is its earliest record: batches are in offset order.
        _, first = np.unique((keys << SOURCE_BITS) | sources, return_index=True)
        seals = seal_ms(slices[first], late[first])
        for position, seal in zip(first.tolist(), seals.tolist(), strict=True):
            slot = self._slots.setdefault(int(keys[position]), _Slot(seal))
            row = rows[position]
            slot.since.setdefault(int(sources[position]), (int(columns.offset[row]), int(columns.before[row])))

    def _merge(self, fresh: Cells, family: str) -> pl.DataFrame:
        """Fold fresh rows into their slots; returns all rows of the cells that they touch."""
        touched = list[Cells]()
        for key, part in fresh.by_slot():
            slot = self._slots[key]
            known: Cells = getattr(slot, family)
            merged = (Cells.concat(known, part) if len(known) else part).summed()
            touched.append(merged.touched_by(part) if len(known) else merged)
            setattr(slot, family, merged)
        return Cells.concat(*touched).frame() if touched else _NO_ROWS
