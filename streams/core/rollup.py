"""From events to cumulative cells, for one source partition. Exact under replay: everything is a function of the log.

A *cell* is one slice of one series as one source partition saw it. Its rows are columnar: one for each
(bucket, good) with n, sum_us and max_us, so merging is adding. In a plain series an event is good when it succeeded,
in an objective's series when that objective judges it so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.event_time import clamp
from streams.core.histogram import buckets_of
from streams.core.series import Judge
from streams.core.slices import ON_TIME, SLICE_MS, frontiers, lateness_of, seal_ms

Longs = npt.NDArray[np.int64]

_CELL = ["series", "slice", "late"]
_ROW = [*_CELL, "bucket", "good"]
_SUMS = (pl.col("n", "sum_us").sum(), pl.col("max_us").max())
_EMPTY = pl.DataFrame(
    schema={
        "series": pl.UInt32,
        "slice": pl.Int64,
        "late": pl.Int64,
        "bucket": pl.Int16,
        "good": pl.Boolean,
        "n": pl.Int64,
        "sum_us": pl.Int64,
        "max_us": pl.Int64,
    }
)


@dataclass(slots=True)
class _Cells:
    """Rows so far, and the batches that came since they were last sent."""

    rows: pl.DataFrame = field(default_factory=lambda: _EMPTY)
    fresh: list[pl.DataFrame] = field(default_factory=list)

    def merge(self) -> pl.DataFrame:
        """Folds the fresh rows in; returns all rows of the cells that they touch."""
        if not self.fresh:
            return _EMPTY
        fresh = pl.concat(self.fresh)
        self.fresh.clear()
        self.rows = pl.concat([self.rows, fresh]).group_by(_ROW).agg(_SUMS)
        return self.rows.join(fresh.select(_CELL).unique(), on=_CELL, how="semi")


@dataclass(slots=True)
class _Slot:
    """The cells that are sealed together: one slice on time, or all late cells of one append second."""

    seal_ms: int
    first_offset: int
    frontier_before: int
    plain: _Cells = field(default_factory=_Cells)
    objectives: _Cells = field(default_factory=_Cells)

    @property
    def touched(self) -> bool:
        return bool(self.plain.fresh)


@dataclass(frozen=True, slots=True)
class Flush:
    """Touched cells with all they hold so far, as rows (source, series, slice, late, bucket, good, n, sum_us, max_us)."""

    plain: pl.DataFrame
    objectives: pl.DataFrame
    applied_offset: int
    frontier: int


class Rollup:
    """Open cells of one source partition. Not thread-safe; the caller runs one step at a time."""

    def __init__(self, source: int, judge: Judge, *, frontier: int = 0) -> None:
        """`frontier` (append time, ms) is what the last commit said for the offset that is read first."""
        self.applied_offset = -1
        self.frontier = frontier
        self.events = 0
        self.late = 0
        self.clamped = 0
        self._source = source
        self._judge = judge
        self._slots: dict[int, _Slot] = {}

    def add(self, offsets: Longs, append_ms: Longs, events: pl.DataFrame) -> None:
        """Count one batch.

        `offsets`, `append_ms`: shape (records,), of every record, unreadable ones too. `events`: the readable ones
        with `_row` (index into `offsets`), the four labels, ts (ms), success, latency_us. Records at or below
        `applied_offset` are skipped, wherever the batch was cut.
        """
        fresh = offsets > self.applied_offset
        if not fresh.any():
            return
        at = frontiers(self.frontier, append_ms)
        before = np.concatenate(([self.frontier], at[:-1]))
        rows = events["_row"].to_numpy()
        if not fresh.all():
            events = events.filter(pl.Series(fresh[rows]))
            rows = events["_row"].to_numpy()
        if len(rows):
            self._count(events, offsets[rows], append_ms[rows], at[rows], before[rows])
        self.applied_offset = int(offsets[-1])
        self.frontier = int(at[-1])

    def take(self) -> Flush:
        """What has changed since the last take, cumulative."""
        touched = [slot for slot in self._slots.values() if slot.touched]
        return Flush(
            self._sent([slot.plain.merge() for slot in touched]),
            self._sent([slot.objectives.merge() for slot in touched]),
            self.applied_offset,
            self.frontier,
        )

    def settle(self, flush: Flush) -> None:
        """The broker has acknowledged `flush`: cells sealed by its frontier are done with."""
        for key in [key for key, slot in self._slots.items() if slot.seal_ms <= flush.frontier and not slot.touched]:
            del self._slots[key]

    def resume_point(self) -> tuple[int, int] | None:
        """(offset, frontier before it) from where a restart rebuilds every open cell; None before the first event."""
        if self._slots:
            first = min(self._slots.values(), key=lambda slot: slot.first_offset)
            return first.first_offset, first.frontier_before
        return None if self.applied_offset < 0 else (self.applied_offset + 1, self.frontier)

    def open_rows(self) -> int:
        """Rows held for open cells: the size of the state."""
        return sum(slot.plain.rows.height + slot.objectives.rows.height for slot in self._slots.values())

    def _count(self, events: pl.DataFrame, offsets: Longs, append_ms: Longs, at: Longs, before: Longs) -> None:
        ts = events["ts"].to_numpy()
        clamped = clamp(ts, append_ms)
        slices = clamped // SLICE_MS
        late = lateness_of(slices, at)
        latency = events["latency_us"].to_numpy()
        frame = self._judge.number(events.select("service", "endpoint", "region", "kind", "success", "latency_us"))
        frame = frame.with_columns(
            pl.Series("slice", slices),
            pl.Series("late", late),
            pl.Series("bucket", buckets_of(latency)),
            pl.Series("rank", self._judge.ranks_of(latency)),
        )
        grouped = frame.group_by([*_CELL, "bucket", "success", "rank"]).agg(
            n=pl.len().cast(pl.Int64), sum_us=pl.col("latency_us").sum(), max_us=pl.col("latency_us").max()
        )
        self._open_slots(slices, late, offsets, before)
        for key, part in _by_slot(grouped.rename({"success": "good"}).group_by(_ROW).agg(_SUMS)):
            self._slots[key].plain.fresh.append(part)
        for key, part in _by_slot(self._judge.objective_rows(grouped).group_by(_ROW).agg(_SUMS)):
            self._slots[key].objectives.fresh.append(part)
        self.events += len(ts)
        self.late += int((late != ON_TIME).sum())
        self.clamped += int((clamped != ts).sum())

    def _open_slots(self, slices: Longs, late: Longs, offsets: Longs, before: Longs) -> None:
        keys, first = np.unique(slot_keys(slices, late), return_index=True)
        seals = seal_ms(slices[first], late[first])
        for key, position, seal in zip(keys.tolist(), first.tolist(), seals.tolist(), strict=True):
            if key not in self._slots:
                self._slots[key] = _Slot(seal, int(offsets[position]), int(before[position]))

    def _sent(self, parts: list[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat([_EMPTY, *parts]).select(pl.lit(self._source, pl.Int32).alias("source"), *_EMPTY.columns)


def slot_keys(slices: Longs, late: Longs) -> Longs:
    """One number for the cells that are sealed together: the slice when on time, else −(append second) − 2."""
    return np.where(late == ON_TIME, slices, -late - 2)


def _by_slot(rows: pl.DataFrame) -> Sequence[tuple[int, pl.DataFrame]]:
    keyed = rows.with_columns(pl.Series("_slot", slot_keys(rows["slice"].to_numpy(), rows["late"].to_numpy())))
    parts = keyed.partition_by("_slot", as_dict=True, include_key=False)
    return [(key, part) for (key,), part in parts.items()]  # type: ignore[misc]
