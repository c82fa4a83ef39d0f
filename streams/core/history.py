"""What the tables hold of one objective, over any windows: its events, and its time slices."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from streams.core.objectives import TimeSlices
from streams.core.past import Past
from streams.core.rows import Steps, are_good, starts_of
from streams.core.slices import COUNTS
from streams.core.summaries import Shown, ShownRows
from streams.core.windows import Summary, Window

Longs = npt.NDArray[np.int64]


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
    """The series of one objective, one for each of its versions, in the table that keeps them; for one reading.

    `past`: what was before the first of them; no slice is in both.
    """

    def __init__(self, table: Shown, series: Collection[int], past: Past | None = None) -> None:
        self._table = table
        self._past = past
        self._series = tuple(sorted(series))
        self._judged: dict[TimeSlices, _Judged] = {}

    def summary(self, window: Window) -> Summary:
        """Of all versions: each has counted its own stretches of time only, so they add up."""
        return self._table.summarize(self._series, window.tier, window.start_s, window.end_s, self._past)

    def slices(self, slices: TimeSlices, start_s: int, end_s: int) -> SliceCount:
        """Both ends are multiples of a slice's length."""
        judged = self._slices(slices)
        if judged.first_s is None:
            return SliceCount(start_s, end_s, 0, 0)
        begin_s = max(start_s, judged.first_s // slices.length_s * slices.length_s)
        total = max(0, end_s - begin_s) // slices.length_s
        low, high = np.searchsorted(judged.bad, (start_s, end_s)).tolist()
        return SliceCount(start_s, end_s, total, total - (high - low))

    def _slices(self, slices: TimeSlices) -> _Judged:
        """All that are held: chunks that do not change any more are judged once."""
        if slices not in self._judged:
            parts, before = self._before(slices)
            fresh = Steps.concat(before, *(self._table.open_steps(number, COUNTS) for number in self._series))
            of_chunk = starts_of(fresh.key) // COUNTS.chunk_s * COUNTS.chunk_s
            open_chunks = set(np.unique(of_chunk).tolist())
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

    def _before(self, slices: TimeSlices) -> tuple[list[_Judged], Steps]:
        """The past as far as it is in no chunk of the table, and its rows of the one that it shares with the table."""
        if self._past is None or COUNTS not in self._past.rows:
            return [], Steps.empty()
        known, steps = self._past.rows[COUNTS].known, self._past.steps(COUNTS)
        older = starts_of(steps.key) < self._past.since_s // COUNTS.chunk_s * COUNTS.chunk_s
        if slices not in known:
            known[slices] = _judge(steps.where(older), slices)
        return [known[slices]], steps.where(~older)

    def _all_of(self, chunk: ShownRows) -> Steps:
        return Steps.concat(Steps.empty(), *map(chunk.of_series, self._series))


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
