"""Which plain series of a table have a name of their own: a bounded number; the others are summed as one.

It is decided when cells are sealed, after they were parted from those of objectives: objectives count the same whatever
comes of it. A sealed cell goes into each chunk once, by its offsets, under its own name or that of the overflow. So
after a crash the two may be told apart elsewhere in another way, but nothing is counted twice and nothing is lost.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from streams.core.rows import Keys, OpenCells, renumbered, series_in, starts_of
from streams.core.series import OVERFLOW, Mask, SeriesIndex
from streams.core.slices import Tier, held_since

Longs = npt.NDArray[np.int64]
_LONG_AGO = np.iinfo(np.int64).min


class Naming:
    """Names of at most `most` series at once, first come, first served; one is free when its last chunk has expired."""

    def __init__(self, most: int, index: SeriesIndex, longest: Tier) -> None:
        """`longest` is the tier that holds a series longest."""
        self.most = most
        self.named = 0
        self.overflowed = 0  # events that were summed in the overflow series
        self._index = index
        self._longest = longest
        self._last: Longs = np.zeros(0, np.int64)  # by number the last slice of a series that is in a chunk

    def learn(self, keys: Keys) -> None:
        """These keys are in chunks."""
        overflow = self._grow()
        np.maximum.at(self._last, series_in(keys), starts_of(keys))
        self._last[overflow] = _LONG_AGO

    def sealed(self, cells: OpenCells, sealed_at: Longs, now_s: int) -> OpenCells:
        """The cells as they go into chunks: those of series for which there is no name are the overflow's.

        `sealed_at`: the offset by which each one was sealed; what was sealed first is named first.
        """
        overflow, series = self._grow(), series_in(cells.key)
        since = held_since(self._longest, now_s)
        held = starts_of(cells.key) >= since  # others are in no chunk
        named = self._last >= since
        asking = np.flatnonzero(~named & (np.bincount(series[held], minlength=len(named)) > 0))
        asking = asking[asking != overflow]
        room = max(0, self.most - int(named.sum()))
        if len(asking) > room:
            first = np.full(len(named), np.iinfo(np.int64).max)
            np.minimum.at(first, series[held], sealed_at[held])
            refused = asking[np.argsort(first[asking], kind="stable")[room:]]
            numbers = np.arange(len(named), dtype=np.uint32)
            numbers[refused] = overflow
            self.overflowed += int(cells.n[held & (numbers[series] != series)].sum())
            cells = replace(cells, key=renumbered(cells.key, numbers))
        self.learn(cells.key[held])
        self.named = int((self._last >= since).sum())
        return cells

    def renumber(self, used: Mask) -> None:
        """The index has forgotten all series but those `used`."""
        self._last = self._last[used[: len(self._last)]]

    def _grow(self) -> int:
        """The number of the overflow series, when there is a place for every number."""
        overflow = self._index.number(OVERFLOW)
        more = len(self._index.names) - len(self._last)
        self._last = np.concatenate((self._last, np.full(more, _LONG_AGO)))
        return overflow
