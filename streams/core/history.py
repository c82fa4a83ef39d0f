"""What the tables hold of one objective, summed over any windows: read once, however many windows are asked for."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from streams.core.objectives import TimeSlices
from streams.core.rows import WITHOUT_BUCKET, Steps, are_good, buckets_of, of_series, starts_of
from streams.core.slices import COUNTS, HOURS, Tier
from streams.core.table import Chunk, SloTable
from streams.core.windows import Summary, Window, quantiles

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Of some steps; `by_bucket` counts events whose latency is known, up to the last bucket that has any."""

    by_bucket: Longs
    total: int
    good: int
    late: int
    sum_us: int
    max_us: int
    first_s: int | None

    @classmethod
    def of(cls, steps: Steps) -> "Sums":
        """Of steps, with buckets or without."""
        if not len(steps.key):
            return _NOTHING
        by_bucket = np.bincount(buckets_of(steps.key), weights=steps.n, minlength=WITHOUT_BUCKET).astype(np.int64)
        used = np.flatnonzero(by_bucket[:WITHOUT_BUCKET])
        return cls(
            by_bucket[: used[-1] + 1 if len(used) else 0].copy(),
            int(steps.n.sum()),
            int(steps.n[are_good(steps.key)].sum()),
            int(steps.late_n.sum()),
            int(steps.sum_us.sum()),
            int(steps.max_us.max()),
            int(starts_of(steps.key).min()),
        )

    @classmethod
    def added(cls, parts: Sequence["Sums"]) -> "Sums":
        """Of all of them."""
        by_bucket = np.zeros(max((len(part.by_bucket) for part in parts), default=0), np.int64)
        for part in parts:
            by_bucket[: len(part.by_bucket)] += part.by_bucket
        return cls(
            by_bucket,
            sum(part.total for part in parts),
            sum(part.good for part in parts),
            sum(part.late for part in parts),
            sum(part.sum_us for part in parts),
            max((part.max_us for part in parts), default=0),
            min((part.first_s for part in parts if part.first_s is not None), default=None),
        )

    def summary(self, start_s: int) -> Summary:
        """As a window that starts at `start_s`."""
        p50, p90, p99 = quantiles(self.by_bucket)
        return Summary(start_s, self.total, self.good, self.late, self.sum_us, self.max_us, p50, p90, p99, self.first_s)


_NOTHING = Sums(np.zeros(0, np.int64), 0, 0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class SliceCount:
    """Time slices that begin in [start_s, end_s) and are over; those before the first event are not counted."""

    start_s: int
    end_s: int
    total: int
    good: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """The starts of bad slices, ascending, and of the first minute that has events."""

    bad: Longs
    first_s: int | None


class History:
    """The series of one objective, one for each of its versions, in the table that keeps them; for one reading."""

    def __init__(self, table: SloTable, series: Collection[int], windows: Iterable[Window]) -> None:
        """`windows`: those that `summary` will be asked for."""
        self._table = table
        self._series = tuple(sorted(series))
        self._spans: dict[Tier, tuple[int, int]] = {}
        self._read: dict[Tier, Steps] = {}
        self._judged: dict[TimeSlices, _Judged] = {}
        for window in windows:
            start_s, end_s = self._spans.get(window.tier, (window.start_s, window.end_s))
            self._spans[window.tier] = min(start_s, window.start_s), max(end_s, window.end_s)

    def summary(self, window: Window) -> Summary:
        """Of all versions: each has counted its own stretches of time only, so they add up."""
        if window.tier is HOURS:
            parts = [part for number in self._series for part in self._by_chunk(number, window)]
        else:
            parts = [Sums.of(_cut(self._steps(window.tier), window.start_s, window.end_s))]
        return Sums.added(parts).summary(window.start_s)

    def slices(self, slices: TimeSlices, start_s: int, end_s: int) -> SliceCount:
        """Both ends are multiples of a slice's length."""
        judged = self._slices(slices)
        if judged.first_s is None:
            return SliceCount(start_s, end_s, 0, 0)
        begin_s = max(start_s, judged.first_s // slices.length_s * slices.length_s)
        total = max(0, end_s - begin_s) // slices.length_s
        low, high = np.searchsorted(judged.bad, (start_s, end_s)).tolist()
        return SliceCount(start_s, end_s, total, total - (high - low))

    def _steps(self, tier: Tier) -> Steps:
        """Of all series, in the order of their starts."""
        if tier not in self._read:
            parts = [self._table.steps(number, tier, *self._spans[tier]) for number in self._series]
            self._read[tier] = parts[0] if len(parts) == 1 else Steps.concat(Steps.empty(), *parts).summed()
        return self._read[tier]

    def _by_chunk(self, number: int, window: Window) -> Iterator[Sums]:
        """The sums of a whole chunk are kept with it: long windows are made of some thirty of them."""
        yield Sums.of(_cut(self._table.open_steps(number, HOURS), window.start_s, window.end_s, ordered=False))
        for start_s, chunk in self._table.between(HOURS, window.start_s, window.end_s):
            if window.start_s <= start_s and start_s + HOURS.chunk_s <= window.end_s:
                if number not in chunk.known:
                    chunk.known[number] = Sums.of(_of(chunk, number))
                yield chunk.known[number]
            else:
                yield Sums.of(_cut(_of(chunk, number), window.start_s, window.end_s))

    def _slices(self, slices: TimeSlices) -> _Judged:
        """All that are held: chunks that do not change any more are judged once."""
        if slices not in self._judged:
            fresh = Steps.concat(Steps.empty(), *(self._table.open_steps(number, COUNTS) for number in self._series))
            of_chunk = starts_of(fresh.key) // COUNTS.chunk_s * COUNTS.chunk_s
            open_chunks, parts = set(np.unique(of_chunk).tolist()), list[_Judged]()
            for start_s, chunk in self._table.between(COUNTS, 0, 1 << 62):
                if start_s in open_chunks:
                    open_chunks.remove(start_s)
                    parts.append(_judge(Steps.concat(fresh.where(of_chunk == start_s), self._all_of(chunk)), slices))
                    continue
                key = (self._series, slices)
                if key not in chunk.known:
                    chunk.known[key] = _judge(self._all_of(chunk), slices)
                parts.append(chunk.known[key])
            parts += [_judge(fresh.where(of_chunk == start_s), slices) for start_s in open_chunks]
            bad = np.sort(np.concatenate([np.zeros(0, np.int64), *(part.bad for part in parts)]))
            first_s = min((part.first_s for part in parts if part.first_s is not None), default=None)
            self._judged[slices] = _Judged(bad, first_s)
        return self._judged[slices]

    def _all_of(self, chunk: Chunk) -> Steps:
        return Steps.concat(Steps.empty(), *(_of(chunk, number) for number in self._series))


def _of(chunk: Chunk, number: int) -> Steps:
    return chunk.rows.where(of_series(chunk.rows.key, number))


def _cut(steps: Steps, start_s: int, end_s: int, *, ordered: bool = True) -> Steps:
    starts = starts_of(steps.key)
    if not ordered:
        return steps.where((starts >= start_s) & (starts < end_s))
    low, high = np.searchsorted(starts, (start_s, end_s)).tolist()
    return steps.part(low, high)


def _judge(steps: Steps, slices: TimeSlices) -> _Judged:
    if not len(steps.key):
        return _Judged(np.zeros(0, np.int64), None)
    starts = starts_of(steps.key)
    return _Judged(bad_slices(starts, steps.n, np.where(are_good(steps.key), steps.n, 0), slices), int(starts.min()))


def bad_slices(starts: Longs, total: Longs, good: Longs, slices: TimeSlices) -> Longs:
    """The starts of slices, ascending, of whose events too few are good; `total` and `good` are of each of `starts`."""
    found, places = np.unique(starts // slices.length_s * slices.length_s, return_inverse=True)
    totals, goods = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    np.add.at(totals, places, total)
    np.add.at(goods, places, good)
    target = Fraction(str(slices.target))  # in integers, as 0.95 is not 19 / 20 in binary
    bad: Longs = found[goods * target.denominator < totals * target.numerator]
    return bad
