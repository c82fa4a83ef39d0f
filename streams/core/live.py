"""The last minute by the millisecond: counts of named objectives, for whoever looks at a burst as it happens.

A ring has one slot for each millisecond of event time, so that an event costs one addition and a window of any width
up to a minute is a sum over neighbours. It holds counts only; percentiles are those of the tables' windows. What the
tables say is kept; a ring is gone with the rollup that fills it, and says from when on it has seen everything.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.event_time import FUTURE_LIMIT_MS
from streams.core.series import Judge

Longs = npt.NDArray[np.int64]

WIDTH_MS = 60_000
# A power of two, and more than a minute and what events may be ahead of the broker.
SLOTS = 1 << 16
_PLACE = SLOTS - 1
NEVER_MS = -1


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """Events and good ones of each step of [from_ms, to_ms), shape (steps,); steps before `since_ms` are not all there.

    Event time in ms.
    """

    from_ms: int
    to_ms: int
    since_ms: int
    totals: Longs
    goods: Longs


def complete_since_ms(frontier: int) -> int:
    """From when on (ms, event time) all is counted by who begins at an offset with this frontier before it.

    What had been appended until then may be dated ahead of it by as much as event time is held to.
    """
    return frontier + FUTURE_LIMIT_MS + 1 if frontier else 0


class Ring:
    """The counts of one objective. One thread adds; any thread may read."""

    def __init__(self) -> None:
        self._newest_ms = NEVER_MS
        self._totals, self._goods = np.zeros(SLOTS, np.int64), np.zeros(SLOTS, np.int64)
        self._turn = threading.Lock()

    def add(self, ts: Longs, n: Longs, good: npt.NDArray[np.bool_]) -> None:
        """Count `n` events each at `ts` (ms); those that are older than the ring are not looked for by anybody."""
        if not len(ts):
            return
        with self._turn:
            self._forward(int(ts.max()))
            kept = ts > self._newest_ms - SLOTS
            place, n, good = ts[kept] & _PLACE, n[kept], good[kept]
            np.add.at(self._totals, place, n)
            np.add.at(self._goods, place[good], n[good])

    def counts(self, from_ms: int, to_ms: int, step_ms: int, since_ms: int = 0) -> LiveCounts:
        """Sums of [from_ms, to_ms), at most a ring wide, in steps that divide it. `since_ms`: of who fills the ring."""
        ts = np.arange(from_ms, to_ms)
        with self._turn:
            oldest_ms = self._newest_ms - SLOTS + 1
            there = (ts >= oldest_ms) & (ts <= self._newest_ms)
            totals, goods = (np.where(there, slots[ts & _PLACE], 0) for slots in (self._totals, self._goods))
        totals, goods = (found.reshape(-1, step_ms).sum(axis=1) for found in (totals, goods))
        return LiveCounts(from_ms, to_ms, max(since_ms, oldest_ms, 0), totals, goods)

    def _forward(self, to_ms: int) -> None:
        """Slots that come round again begin at nothing."""
        passed = min(to_ms - self._newest_ms, SLOTS)
        if passed <= 0:
            return
        again = np.arange(to_ms - passed + 1, to_ms + 1) & _PLACE
        self._totals[again] = self._goods[again] = 0
        self._newest_ms = to_ms


class Live:
    """The rings of one rollup. An objective has one through all its versions; each event is judged by its own."""

    def __init__(self, named: Collection[str] = ()) -> None:
        """`named`: ids of objectives; those that judge no event of the rollup's source stay empty."""
        self.rings = {name: Ring() for name in named}

    def add(self, judge: Judge, events: pl.DataFrame) -> None:
        """Count events as the tables judge them.

        `events`: one row an event, or `n` of them, with series, slice, bucket, success, rank, and ts (ms, clamped).
        """
        numbers = judge.numbers(self.rings)
        if not numbers:
            return
        judged = judge.objective_rows(events)
        series, ts, n, good = (judged[name].to_numpy() for name in ("series", "ts", "n", "good"))
        for number, name in numbers.items():
            mine = series == number
            self.rings[name].add(ts[mine], n[mine], good[mine])
