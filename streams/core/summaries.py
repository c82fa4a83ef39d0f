"""What a table shows to its readers: one state of it, which does not change any more.

Whoever folds makes the next one and puts it in the place of the last. So a reader waits for nobody, and what it sees,
counts and offsets, is all of one fold. What no fold has changed is shared from one state to the next, with the sums
over it: a window is the sum of some chunks, of which only those at its ends and the open cells are looked into.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.packed import Packed
from streams.core.rows import (
    WITHOUT_BUCKET,
    OpenCells,
    Steps,
    are_good,
    buckets_of,
    of_series,
    restarted,
    series_of,
    starts_of,
)
from streams.core.slices import COUNTS, LATENESS_MS, ON_TIME, SECONDS, SLICE_MS, Tier
from streams.core.sources import PROBES, place_of
from streams.core.windows import Summary, quantiles

Longs = npt.NDArray[np.int64]
ChunkKey = tuple[str, int]

# Sums over parts of a stretch are kept until there are so many: each is a histogram.
_MAX_PARTS = 64
# Whole windows are kept until there are so many; a window slides on each second, and a quiet table is shown for long.
_MAX_WINDOWS = 256


class NotCaughtUpError(RuntimeError):
    """Some chunks were saved later than the open cells: until those have caught up, their sum would count twice."""

    def __init__(self, applied: int, ahead: int) -> None:
        super().__init__(f"read up to offset {applied} of slo-partials; expected {ahead} before the first answer")


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows of one series summed up; `by_bucket[i]` events are in bucket `lowest + i`, others in none."""

    lowest: int
    by_bucket: Longs
    total: int
    good: int
    late: int
    sum_us: int
    max_us: int
    first_s: int

    @classmethod
    def of(cls, rows: Steps) -> "Digest":
        """Of rows in the order of their starts, of which there is at least one."""
        buckets = buckets_of(rows.key)
        lowest = int(buckets.min())
        in_none = WITHOUT_BUCKET - lowest
        return cls(
            lowest,
            np.bincount(buckets - lowest, weights=rows.n)[:in_none].astype(np.int64),
            total=int(rows.n.sum()),
            good=int(rows.n[are_good(rows.key)].sum()),
            late=int(rows.late_n.sum()),
            sum_us=int(rows.sum_us.sum()),
            max_us=int(rows.max_us.max()),
            first_s=int(starts_of(rows.key[:1])[0]),
        )


class ShownRows:
    """Rows of a stretch of time in key order, found by their series, whose sums are kept once they were asked for.

    What is packed stays so: only the rows of a series that somebody asks for are unpacked, each time anew.
    """

    __slots__ = ("_found", "_order", "_parts", "_wholes", "held", "known")

    def __init__(self, held: Steps | Packed) -> None:
        self.held = held
        self.known: dict[Any, Any] = {}  # what else was made of them
        self._order: npt.NDArray[np.int64] | None = None
        self._found: dict[int, tuple[int, int]] = {}  # series → its places in `_order`
        self._wholes: dict[int, Digest | None] = {}
        self._parts: dict[tuple[int, int, int], Digest] = {}

    def of_series(self, series: int) -> Steps:
        """The rows of a series."""
        rows, places = self._rows_of(series)
        return rows.where(places)

    def whole(self, series: int) -> Digest | None:
        """The sum of all rows of a series; None without any."""
        if series not in self._wholes:
            rows = self.of_series(series)
            self._wholes[series] = Digest.of(rows) if len(rows.key) else None
        return self._wholes[series]

    def between(self, series: int, start_s: int, end_s: int) -> Digest | None:
        """The sum of those rows of a series that begin in [start_s, end_s); None without any."""
        rows, places = self._rows_of(series)
        begin, end = np.searchsorted(starts_of(rows.key[places]), (start_s, end_s)).tolist()
        if begin >= end:
            return None
        if end - begin == len(places):
            return self.whole(series)
        part = self._parts.get((series, begin, end))
        if part is None:
            if len(self._parts) >= _MAX_PARTS:
                self._parts.clear()
            part = self._parts[series, begin, end] = Digest.of(rows.where(places[begin:end]))
        return part

    def _rows_of(self, series: int) -> tuple[Steps, Longs]:
        """Rows, and where among them those of a series are, in their order."""
        if isinstance(self.held, Packed):
            rows = self.held.of_series(series)
            return rows, np.arange(len(rows.key))
        return self.held, self._places(self.held, series)

    def _places(self, rows: Steps, series: int) -> Longs:
        if self._order is None:
            numbers = series_of(rows.key)
            order = np.argsort(numbers, kind="stable")
            present, first = np.unique(numbers[order], return_index=True)
            ends = [*first.tolist(), len(order)][1:]
            self._found = dict(zip(present.tolist(), zip(first.tolist(), ends, strict=True), strict=True))
            self._order = order
        begin, end = self._found.get(series, (0, 0))
        return self._order[begin:end]


@dataclass(frozen=True, slots=True)
class Shown:
    """A table after some fold: what it answers, and what these answers rest on.

    `applied`, `frontiers`, `told`: as the table's own. `ahead`: the offset that some chunks are at when that is more.
    `by_minute`: for each series number whether COUNTS keep it. `numbers`: of names, as they are in these rows; the
    table's own may be others meanwhile.
    May be read by one thread while another one folds; sums that were made are kept for the next reader.
    """

    applied: int
    ahead: int
    frontiers: Mapping[int, int]
    told: Mapping[int, int]
    open: OpenCells
    chunks: Mapping[ChunkKey, ShownRows]
    by_minute: npt.NDArray[np.bool_]
    numbers: Mapping[str, int]
    _opened: dict[int, ShownRows] = field(default_factory=dict)
    _windows: dict[tuple[frozenset[int], str, int, int], Summary] = field(default_factory=dict)

    def summarize(self, numbers: Collection[int], tier: Tier, start_s: int, end_s: int) -> Summary:
        """Of some series together, their steps of a tier with start_s ≤ start < end_s. Raises NotCaughtUpError."""
        self._require_caught_up()
        window = (frozenset(numbers), tier.name, start_s, end_s)
        known = self._windows.get(window)
        if known is None:
            found = [digest for number in numbers for digest in self._digests(number, tier, start_s, end_s)]
            known = _together(found, start_s, tier.step_s)
            if len(self._windows) >= _MAX_WINDOWS:
                self._windows.clear()
            self._windows[window] = known
        return known

    def read(self, series: int, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """Rows (STEP_SCHEMA) of one series with start_s ≤ start < end_s, steps of the tier, open cells included.

        Raises NotCaughtUpError soon after a crash.
        """
        parts = [self.open_steps(series, tier)]
        parts += [chunk.of_series(series) for _, chunk in self.between(tier, start_s, end_s)]
        steps = Steps.concat(*parts).summed()
        starts = starts_of(steps.key)
        return steps.where((starts >= start_s) & (starts < end_s)).frame()

    def open_steps(self, series: int, tier: Tier) -> Steps:
        """The open cells of a series as steps of a tier, not summed. Raises NotCaughtUpError."""
        self._require_caught_up()
        if tier is COUNTS and not self.by_minute[series : series + 1].any():
            return Steps.empty()
        mine = self.open.where(of_series(self.open.key, series))
        return steps_of(mine, tier, histograms=tier is not COUNTS)

    def sealed_to_ms(self, source: str = PROBES) -> int:
        """As the table's own."""
        return sealed_to_ms(self.frontiers, source)

    def _require_caught_up(self) -> None:
        if self.applied < self.ahead:
            raise NotCaughtUpError(self.applied, self.ahead)

    def _digests(self, series: int, tier: Tier, start_s: int, end_s: int) -> Iterator[Digest]:
        for begins_s, chunk in self.between(tier, start_s, end_s):
            inside = start_s <= begins_s and begins_s + tier.chunk_s <= end_s
            digest = chunk.whole(series) if inside else chunk.between(series, start_s, end_s)
            if digest is not None:
                yield digest
        # Seconds, of which those count whose step begins in the window.
        first_s, last_s = (-(-bound // tier.step_s) * tier.step_s for bound in (start_s, end_s))
        digest = self._open_of(series).between(series, first_s, last_s)
        if digest is not None:
            yield digest

    def between(self, tier: Tier, start_s: int, end_s: int) -> Iterator[tuple[int, ShownRows]]:
        """Those of a tier that reach into [start_s, end_s), each with where it begins."""
        begins = range(start_s // tier.chunk_s * tier.chunk_s, end_s, tier.chunk_s)
        if len(begins) > len(self.chunks):
            for (name, begins_s), chunk in self.chunks.items():
                if name == tier.name and begins_s in begins:
                    yield begins_s, chunk
            return
        for begins_s in begins:
            found = self.chunks.get((tier.name, begins_s))
            if found is not None:
                yield begins_s, found

    def _open_of(self, series: int) -> ShownRows:
        """The open cells of a series as seconds in key order; the same key of several sources is not summed."""
        found = self._opened.get(series)
        if found is None:
            steps = steps_of(self.open.where(of_series(self.open.key, series)), SECONDS, histograms=True)
            found = self._opened[series] = ShownRows(steps.where(np.argsort(steps.key, kind="stable")))
        return found


def steps_of(rows: OpenCells, tier: Tier, *, histograms: bool) -> Steps:
    """One step for each row, not yet summed."""
    start = starts_of(rows.key) // tier.step_s * tier.step_s
    late_n = np.where(rows.late == ON_TIME, 0, rows.n)
    return Steps(restarted(rows.key, start, histograms=histograms), rows.n, late_n, rows.sum_us, rows.max_us)


def sealed_to_ms(frontiers: Mapping[int, int], source: str) -> int:
    """Event time up to which the slices of every partition heard of a topic are sealed; 0 before any."""
    heard = [frontier for own, frontier in frontiers.items() if place_of(own)[0] == source]
    return max(0, (min(heard, default=0) - LATENESS_MS) // SLICE_MS * SLICE_MS)


def _together(digests: Collection[Digest], start_s: int, step_s: int) -> Summary:
    if not digests:
        return Summary(start_s)
    by_bucket = np.zeros(max(each.lowest + len(each.by_bucket) for each in digests), np.int64)
    for each in digests:
        by_bucket[each.lowest : each.lowest + len(each.by_bucket)] += each.by_bucket
    p50, p90, p99 = quantiles(by_bucket)
    return Summary(
        start_s,
        total=sum(each.total for each in digests),
        good=sum(each.good for each in digests),
        late=sum(each.late for each in digests),
        sum_us=sum(each.sum_us for each in digests),
        max_us=max(each.max_us for each in digests),
        p50_us=p50,
        p90_us=p90,
        p99_us=p99,
        first_s=min(each.first_s for each in digests) // step_s * step_s,
    )
