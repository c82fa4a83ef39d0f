"""Columnar rows of the objectives table, in numpy: small enough steps that calling a query engine would cost more.

A row's *key* packs (start or slice: 32 bits | series: 20 | bucket: 11 | good: 1), so rows are grouped by sorting one
array, and `key >> 12` is the cell.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.cells import BUCKET_BITS, CELL_ROWS
from streams.core.columns import Columns
from streams.core.histogram import NO_BUCKET
from streams.core.series import SERIES_BITS

Longs = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

WITHOUT_BUCKET = (1 << BUCKET_BITS) - 1  # as keys have it
_LOW_BITS = SERIES_BITS + BUCKET_BITS + 1
CELL_SHIFT = np.uint64(BUCKET_BITS + 1)
_LOW_MASK = np.uint64((1 << _LOW_BITS) - 1)
_CELL_LOW = np.uint64((1 << (BUCKET_BITS + 1)) - 1)

OPEN_SCHEMA = pl.Schema([*CELL_ROWS.items(), ("applied", pl.Int64()), ("offset", pl.Int64())])
STEP_SCHEMA = pl.Schema(
    {
        "start": pl.Int64(),
        "series": pl.UInt32(),
        "bucket": pl.Int16(),
        "good": pl.Boolean(),
        "n": pl.Int64(),
        "late_n": pl.Int64(),
        "sum_us": pl.Int64(),
        "max_us": pl.Int64(),
    }
)


def pack_keys(start: Longs, rows: pl.DataFrame) -> Keys:
    """The keys of rows with columns series, bucket, good."""
    series = rows["series"].to_numpy().astype(np.uint64)
    bucket = rows["bucket"].to_numpy().astype(np.int64).astype(np.uint64) & np.uint64(WITHOUT_BUCKET)
    good = rows["good"].to_numpy().astype(np.uint64)
    low = (series << CELL_SHIFT) | (bucket << np.uint64(1)) | good
    keys: Keys = (start.astype(np.uint64) << np.uint64(_LOW_BITS)) | low
    return keys


def starts_of(keys: Keys) -> Longs:
    """The start (or slice) of each key, in seconds."""
    return (keys >> np.uint64(_LOW_BITS)).astype(np.int64)


def restarted(keys: Keys, start: Longs, *, histograms: bool) -> Keys:
    """The keys with another start and, without histograms, without a bucket."""
    low = keys & _LOW_MASK
    if not histograms:
        low |= np.uint64(WITHOUT_BUCKET << 1)
    return (start.astype(np.uint64) << np.uint64(_LOW_BITS)) | low


def series_of(keys: Keys) -> npt.NDArray[np.uint64]:
    """The series number of each key."""
    return (keys & _LOW_MASK) >> CELL_SHIFT


def of_series(keys: Keys, series: int) -> Mask:
    """Which keys belong to a series."""
    mask: Mask = series_of(keys) == np.uint64(series)
    return mask


def buckets_of(keys: Keys) -> npt.NDArray[np.int64]:
    """The bucket of each key; WITHOUT_BUCKET when it has none."""
    return ((keys >> np.uint64(1)) & np.uint64(WITHOUT_BUCKET)).astype(np.int64)


def are_good(keys: Keys) -> Mask:
    """Which keys count good events."""
    return (keys & np.uint64(1)).astype(np.bool_)


def series_in(keys: Keys) -> Longs:
    """The series number of each key, as an index."""
    return series_of(keys).astype(np.int64)


def renumbered(keys: Keys, numbers: npt.NDArray[np.uint32]) -> Keys:
    """The keys with `numbers[series]` as series; in the same order when the numbers are."""
    low = (keys & _CELL_LOW) | (numbers[series_in(keys)].astype(np.uint64) << CELL_SHIFT)
    return (keys & ~_LOW_MASK) | low


def _unpack(keys: Keys, start: str) -> dict[str, npt.NDArray[np.generic]]:
    bucket = buckets_of(keys).astype(np.int16)
    return {
        start: starts_of(keys),
        "series": series_of(keys).astype(np.uint32),
        "bucket": np.where(bucket == WITHOUT_BUCKET, np.int16(NO_BUCKET), bucket),
        "good": are_good(keys),
    }


@dataclass(frozen=True, slots=True)
class Steps(Columns):
    """Rows of a tier: unique ascending keys with sums; merging adds."""

    key: Keys
    n: Longs
    late_n: Longs
    sum_us: Longs
    max_us: Longs

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.uint64), nothing, nothing, nothing, nothing)

    def summed(self) -> "Steps":
        """Rows of equal key added up, in key order."""
        if not len(self.key):
            return self
        order = np.argsort(self.key, kind="stable")
        keys = self.key[order]
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        n, late_n, sum_us = (np.add.reduceat(column[order], first) for column in (self.n, self.late_n, self.sum_us))
        return Steps(keys[first], n, late_n, sum_us, np.maximum.reduceat(self.max_us[order], first))

    def plus(self, other: "Steps") -> "Steps":
        """With the sums of others added; both are `summed`."""
        if not len(self.key):
            return other
        at = np.searchsorted(self.key, other.key)
        known = self.key[np.minimum(at, len(self.key) - 1)] == other.key
        places, new = at[known], ~known
        columns = []
        for name in ("n", "late_n", "sum_us", "max_us"):
            column, more = getattr(self, name).copy(), getattr(other, name)
            added = np.maximum if name == "max_us" else np.add
            column[places] = added(column[places], more[known])
            columns.append(np.insert(column, at[new], more[new]))
        return Steps(np.insert(self.key, at[new], other.key[new]), *columns)

    def frame(self) -> pl.DataFrame:
        """The rows as STEP_SCHEMA."""
        counts = {"n": self.n, "late_n": self.late_n, "sum_us": self.sum_us, "max_us": self.max_us}
        return pl.DataFrame({**_unpack(self.key, "start"), **counts}, schema=STEP_SCHEMA)

    @classmethod
    def from_frame(cls, rows: pl.DataFrame) -> "Steps":
        """Of rows as STEP_SCHEMA."""
        keys = pack_keys(rows["start"].to_numpy(), rows)
        return Steps(keys, *(rows[name].to_numpy() for name in ("n", "late_n", "sum_us", "max_us"))).summed()


@dataclass(frozen=True, slots=True)
class OpenCells(Columns):
    """Rows of cells by source partition; `applied` and `offset` are the version of the cell they belong to."""

    source: npt.NDArray[np.int32]
    late: Longs
    key: Keys
    n: Longs
    sum_us: Longs
    max_us: Longs
    applied: Longs
    offset: Longs

    @classmethod
    def from_frame(cls, rows: pl.DataFrame) -> Self:
        """Of rows as OPEN_SCHEMA."""
        keys = pack_keys(rows["slice"].to_numpy(), rows)
        source, late = rows["source"].to_numpy(), rows["late"].to_numpy()
        return cls(
            source, late, keys, *(rows[name].to_numpy() for name in ("n", "sum_us", "max_us", "applied", "offset"))
        )

    @classmethod
    def arrived(cls, rows: pl.DataFrame, offset: Longs) -> Self:
        """Of rows as CELL_ROWS, each from the record at its `offset`; how far that was read is filled in later."""
        keys = pack_keys(rows["slice"].to_numpy(), rows)
        source, late, n, sum_us, max_us = (
            rows[name].to_numpy() for name in ("source", "late", "n", "sum_us", "max_us")
        )
        return cls(source, late, keys, n, sum_us, max_us, applied=np.zeros(len(offset), np.int64), offset=offset)

    def frame(self) -> pl.DataFrame:
        """The rows as OPEN_SCHEMA."""
        columns = {**_unpack(self.key, "slice"), "source": self.source, "late": self.late}
        columns |= {name: getattr(self, name) for name in ("n", "sum_us", "max_us", "applied", "offset")}
        return pl.DataFrame({name: columns[name] for name in OPEN_SCHEMA}, schema=OPEN_SCHEMA)

    def once(self) -> Self:
        """Rows that say the same of the same cell in the same record, once."""
        order = np.lexsort((self.key, self.late, self.source, self.offset))
        changes = _changes(*(column[order] for column in (self.offset, self.source, self.late, self.key)))
        return self.where(np.sort(order[changes]))

    def latest(self) -> "OpenCells":
        """Of each cell the rows with the greatest applied offset; where a replay repeats it, the later record's.

        Rows of one version of a cell stand together, so versions are compared and not rows.
        """
        if not len(self.key):
            return self
        cells = self.key >> CELL_SHIFT
        changes = _changes(cells, self.source, self.late, self.applied, self.offset)
        first = np.flatnonzero(changes)
        cells, source, late = cells[first], self.source[first], self.late[first]
        order = np.lexsort((cells, late, source))
        groups = np.cumsum(_changes(cells[order], late[order], source[order])) - 1
        newest = np.ones(len(first), np.bool_)
        for version in (self.applied[first], self.offset[first]):
            known = np.where(newest, version, np.iinfo(np.int64).min)
            greatest = np.empty(len(first), np.int64)
            greatest[order] = _greatest(known[order], groups)
            newest &= version == greatest
        return self if newest.all() else self.where(np.repeat(newest, np.diff(first, append=len(self.key))))


def _changes(*columns: npt.NDArray[Any]) -> Mask:
    """Where any column differs from the row before; the first row does."""
    found = np.zeros(len(columns[0]), np.bool_)
    found[0] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


def _greatest(values: Longs, groups: Longs) -> Longs:
    """The greatest value of each one's group; groups are numbered in order."""
    first = np.searchsorted(groups, np.arange(groups[-1] + 1))
    found: Longs = np.maximum.reduceat(values, first)[groups]
    return found
