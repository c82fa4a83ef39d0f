"""Texts by slot, and from texts back to slots, for many at once."""

import numpy as np
import numpy.typing as npt
import polars as pl

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

_PARTED = "\0"
NOWHERE = -1  # the slot of what has none
_MIN_WASTE = 1 << 20  # bytes


class Texts:
    """A text for each slot."""

    def __init__(self) -> None:
        self._column = pl.Series(dtype=pl.String)
        self._written = 0

    def __len__(self) -> int:
        return len(self._column)

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        more = pl.repeat("", capacity - len(self._column), dtype=pl.String, eager=True)
        self._column = pl.concat([self._column, more], rechunk=True)

    def put(self, slots: Longs, values: pl.Series) -> None:
        """Replace the texts of some slots."""
        if not len(slots):
            return
        self._column.scatter(slots, values)
        # What is overwritten stays in polars' buffers, so they are written anew when mostly waste.
        self._written += int(values.str.len_bytes().sum())
        if self._written > _MIN_WASTE + 2 * int(self._column.str.len_bytes().sum()):
            self._column = self._column + ""
            self._written = int(self._column.str.len_bytes().sum())

    def at(self, slots: Longs | Ints) -> pl.Series:
        """The texts of some slots."""
        return self._column[slots]


class TextIndex:
    """Finds the slots of texts: open addressing with linear probing, a block of texts at a time.

    `seed` should be secret: whoever knows it can make ids that share a place, and slow down finding them.
    """

    def __init__(self, seed: int) -> None:
        self.texts = Texts()
        self.count = 0
        self._seed = seed
        self._hashes = np.zeros(1, np.uint64)  # by slot; never empty, so that NOWHERE is an index too
        self._places = np.full(8, NOWHERE, np.int32)  # slots; at most half of them taken

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.texts.grow(capacity)
        self._hashes = np.concatenate([self._hashes, np.zeros(capacity - len(self._hashes), np.uint64)])

    def find(self, values: pl.Series) -> Longs:
        """The slot of each text, NOWHERE where it is not known."""
        hashes = self._hash(values)
        found = np.full(len(hashes), NOWHERE, np.int64)
        rows, places = np.arange(len(hashes)), self._home(hashes)
        while len(rows):
            places = self._alike(hashes[rows], places)
            slots = self._places[places].astype(np.int64)
            rows, places, slots = _where(slots != NOWHERE, rows, places, slots)
            found[rows] = slots
            # Texts that only share a hash with another one look further.
            rows, places = _where((self.texts.at(slots) != values[rows]).to_numpy(), rows, self._next(places))
            found[rows] = NOWHERE
        return found

    def add(self, slots: Longs, values: pl.Series) -> None:
        """Put texts that are not yet known, each once, into slots that are free."""
        self.texts.put(slots, values)
        self._hashes[slots] = self._hash(values)
        self.count += len(slots)
        if 2 * self.count > len(self._places):
            slots = np.concatenate([self._places[self._places != NOWHERE], slots])
            self._places = np.full(1 << (2 * self.count).bit_length(), NOWHERE, np.int32)
        self._insert(slots)

    def keep(self, slots: Longs) -> None:
        """Forget all texts but those in `slots`."""
        self.count = len(slots)
        self._places.fill(NOWHERE)
        self._insert(slots)

    def _alike(self, hashes: npt.NDArray[np.uint64], places: Longs) -> Longs:
        """From each place on the first one that is empty, or whose text has the same hash."""
        ends = places.copy()
        rows = np.arange(len(places))
        while len(rows):
            slots = self._places[places]
            rows, places = _where((slots != NOWHERE) & (self._hashes[slots] != hashes[rows]), rows, self._next(places))
            ends[rows] = places
        return ends

    def _insert(self, slots: Longs) -> None:
        places = self._home(self._hashes[slots])
        while len(slots):
            free = self._places[places] == NOWHERE
            self._places[places[free]] = slots[free]  # of several that want the place the last one gets it
            waiting = self._places[places] != slots
            slots, places = slots[waiting], self._next(places[waiting])

    def _hash(self, values: pl.Series) -> npt.NDArray[np.uint64]:
        return values.to_frame().hash_rows(self._seed).to_numpy()

    def _home(self, hashes: npt.NDArray[np.uint64]) -> Longs:
        return (hashes & np.uint64(len(self._places) - 1)).astype(np.int64)

    def _next(self, places: Longs) -> Longs:
        return (places + 1) & (len(self._places) - 1)


class Names:
    """Numbers for texts of which there are few, such as zones."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._index = TextIndex(seed)

    def __len__(self) -> int:
        return self._index.count

    def codes(self, values: pl.Series) -> Longs:
        """The number of each text, new or known."""
        found = self._index.find(values)
        if (found == NOWHERE).any():
            new = values.filter(pl.Series(found == NOWHERE)).unique(maintain_order=True)
            first, after = len(self), len(self) + len(new)
            if after > len(self._index.texts):
                self._index.grow(2 * after)
            self._index.add(np.arange(first, after), new)
            found = self._index.find(values)
        return found

    def known(self, value: str) -> int:
        """The number of one text, NOWHERE when it has none."""
        return int(self._index.find(pl.Series([value]))[0])

    def at(self, codes: Longs | Ints) -> pl.Series:
        """The texts of some numbers."""
        return self._index.texts.at(codes)

    def only(self, used: Longs | Ints) -> Longs:
        """Forget all texts but those with the numbers `used` (unique); returns the new number by the old one."""
        renumbered = np.zeros(len(self), np.int64)
        texts = self.at(used)
        self._index = TextIndex(self._seed)
        renumbered[used] = self.codes(texts)
        return renumbered


class Places:
    """Numbers for zones: a region and a zone in it. 0 is for what is nowhere."""

    def __init__(self, seed: int) -> None:
        self._names = Names(seed)
        self._names.codes(pl.Series([_PARTED]))
        self._all: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self._names)

    def codes(self, regions: pl.Series, zones: pl.Series) -> Longs:
        """The number of each zone, new or known."""
        return self._names.codes(regions + _PARTED + zones)

    def known(self, region: str, zone: str) -> int:
        """The number of one zone, NOWHERE when it has none."""
        return self._names.known(region + _PARTED + zone)

    def at(self, codes: Longs | Ints) -> pl.DataFrame:
        """Region and zone of some numbers."""
        parts = self._names.at(codes).str.split_exact(_PARTED, 1)
        return parts.struct.rename_fields(["region", "zone"]).struct.unnest()

    def all(self) -> pl.DataFrame:
        """Region and zone of all numbers, put together again only when there are others."""
        if self._all is None or self._all.height != len(self):
            self._all = self.at(np.arange(len(self)))
        return self._all

    def only(self, used: Longs | Ints) -> Longs:
        """As Names.only; `used` begins with 0."""
        self._all = None
        return self._names.only(used)


def _where(mask: npt.NDArray[np.bool_], *columns: Longs) -> tuple[Longs, ...]:
    return tuple(column[mask] for column in columns)
