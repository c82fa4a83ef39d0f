"""Open cells of a rollup as columns of numpy: what a step does once for each second must not wait for a thread pool.

A backlog has hundreds of seconds in one step. Polars hands even a small frame to its threads and back; on a machine
that is busy each of these waits for its turn: beside ten busy processes a step of 0.4 s took 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.columns import Columns
from streams.core.slices import ON_TIME

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CELL = ["source", "series", "slice", "late"]
CELL_ROWS = pl.Schema(
    {
        "source": pl.Int32,
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
SOURCE_BITS = 20  # more than Kafka has partitions in a topic, and a slot key needs 32 of the other 43 bits
BUCKET_BITS = 11


@dataclass(frozen=True, slots=True)
class Cells(Columns):
    """Rows of CELL_ROWS, one array a column, which nobody changes."""

    source: npt.NDArray[np.int32]
    series: npt.NDArray[np.uint32]
    slice: Longs
    late: Longs
    bucket: npt.NDArray[np.int16]
    good: Mask
    n: Longs
    sum_us: Longs
    max_us: Longs

    def __len__(self) -> int:
        return len(self.n)

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Self:
        """Of a frame that has these columns among others."""
        return cls(*(frame[name].cast(dtype).to_numpy() for name, dtype in CELL_ROWS.items()))

    def frame(self) -> pl.DataFrame:
        """As polars has it."""
        return pl.DataFrame({column.name: getattr(self, column.name) for column in fields(self)}, schema=CELL_ROWS)

    def by_slot(self) -> Iterator[tuple[int, Self]]:
        """Parted by slot key."""
        if not len(self):
            return
        keys = slot_keys(self.slice, self.late)
        if keys[0] == keys[-1] and (keys == keys[0]).all():
            yield int(keys[0]), self
            return
        order = np.argsort(keys, kind="stable")
        ordered, keys = self.where(order), keys[order]
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))).tolist()
        for begin, end in zip(first, [*first[1:], len(keys)], strict=True):
            yield int(keys[begin]), ordered.part(begin, end)

    def summed(self) -> Self:
        """Of one slot: rows of equal key added up, in the order of series and source."""
        order, first = self._grouped()
        found = self.where(order[first])
        n, sum_us = (np.add.reduceat(column[order], first) for column in (self.n, self.sum_us))
        max_us = np.maximum.reduceat(self.max_us[order], first)
        return replace(found, n=n, sum_us=sum_us, max_us=max_us)

    def touched_by(self, fresh: Self) -> Self:
        """The rows, all of one slot, whose cells have rows in `fresh` too."""
        mine, others = (rows.numbers() for rows in (self, fresh))
        if self.late[0] != ON_TIME:  # many slices: a cell is two numbers
            return self.where(_pairs(mine, self.slice, others, fresh.slice))
        wanted = np.unique(others)
        return self.where(wanted[np.minimum(np.searchsorted(wanted, mine), len(wanted) - 1)] == mine)

    def numbers(self) -> Longs:
        """Series and source as one number, which says which cell it is within a slice."""
        return (self.series.astype(np.int64) << SOURCE_BITS) | self.source

    def _grouped(self) -> tuple[Longs, Longs]:
        """The rows in the order of their keys, and where in it each key begins."""
        bucket = self.bucket.astype(np.int64) & ((1 << BUCKET_BITS) - 1)  # without one it is -1
        keys = ((self.numbers() << BUCKET_BITS | bucket) << 1) | self.good
        if self.late[0] == ON_TIME:
            order = np.argsort(keys)
            changes = keys[order][1:] != keys[order][:-1]
        else:
            order = np.lexsort((keys, self.slice))
            changes = (keys[order][1:] != keys[order][:-1]) | (self.slice[order][1:] != self.slice[order][:-1])
        return order, np.flatnonzero(np.concatenate(([True], changes)))


def slot_keys(slices: Longs, late: Longs) -> Longs:
    """One number for the cells that are sealed together: the slice when on time, else −(append second) − 2."""
    return np.where(late == ON_TIME, slices, -late - 2)


def _pairs(numbers: Longs, slices: Longs, other_numbers: Longs, other_slices: Longs) -> Mask:
    """Which (number, slice) is among the others."""
    _, places = np.unique(np.concatenate((slices, other_slices)), return_inverse=True)
    _, cells = np.unique(np.concatenate((numbers, other_numbers)), return_inverse=True)
    keys = places.astype(np.int64) * (int(cells.max()) + 1) + cells
    found: Mask = np.isin(keys[: len(numbers)], keys[len(numbers) :])
    return found
