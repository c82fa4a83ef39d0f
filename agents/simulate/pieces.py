"""Byte strings of many records side by side: Avro pieces as columns, joined record after record without a loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from agents.simulate.rows import Ints

Bytes = npt.NDArray[np.uint8]
Lengths = npt.NDArray[np.uint16]
_MAX_LONG_BYTES = 10


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of each record: `cells` has shape (records, width), of which the first `lengths` bytes count.

    `cells` of shape (1, width) stand for every record; `lengths` None means that the whole width counts.
    """

    cells: Bytes
    lengths: Lengths | None = None

    @property
    def width(self) -> int:
        """The most bytes that any record has of it."""
        return int(self.cells.shape[1])

    def cut(self, part: slice) -> "Piece":
        """The piece of some of the records."""
        cells = self.cells if len(self.cells) == 1 else self.cells[part]
        return Piece(cells, None if self.lengths is None else self.lengths[part])


def constant(text: bytes) -> Piece:
    """The same bytes for every record."""
    return Piece(np.frombuffer(text, np.uint8).reshape(1, -1))


def longs(values: Ints) -> Piece:
    """Each value as an Avro long, which is also Kafka's varint: zigzag, seven bits a byte, no longer than needed."""
    coded = ((values << 1) ^ (values >> 63)).view(np.uint64)
    limits = np.uint64(1) << np.arange(7, 7 * _MAX_LONG_BYTES, 7, dtype=np.uint64)
    lowest = int(np.searchsorted(limits, coded.min(initial=coded.max(initial=0)), side="right")) + 1
    width = int(np.searchsorted(limits, coded.max(initial=0), side="right")) + 1
    # Every byte says that another follows; then the last one of each value is told that it is the last.
    cells = np.empty((len(values), width), np.uint8)
    for place in range(width):
        np.bitwise_or(coded >> np.uint64(7 * place), np.uint64(128), out=cells[:, place], casting="unsafe")
    if lowest == width:
        cells[:, -1] &= 127
        return Piece(cells)
    lengths = np.full(len(values), lowest, np.uint16)
    for limit in limits[lowest - 1 : width - 1]:
        lengths += coded >= limit
    cells[np.arange(len(values)), lengths - 1] &= 127
    return Piece(cells, lengths)


def total_size(pieces: Sequence[Piece]) -> Ints:
    """Bytes of each record's pieces together; shape (records,), or (1,) when every record has the same."""
    total: Ints = np.full(1, sum(piece.width for piece in pieces if piece.lengths is None), np.int64)
    for piece in pieces:
        if piece.lengths is not None:
            total = total + piece.lengths
    return total


def string(text: str) -> bytes:
    """An Avro string."""
    raw = text.encode()
    return long(len(raw)) + raw


def long(value: int) -> bytes:
    """An Avro long."""
    return longs(np.array([value])).cells.tobytes()


@dataclass(frozen=True, slots=True)
class Table:
    """Byte strings to pick from by index: the rows of `cells`, of which the first `lengths` bytes count."""

    cells: Bytes
    lengths: Lengths | None = None

    @property
    def width(self) -> int:
        """The most bytes that any of them has."""
        return int(self.cells.shape[1])

    def pick(self, index: Ints) -> Piece:
        """The strings at these indices."""
        # Opaque values: numpy then moves each as a whole.
        cells = self.cells.view(f"V{self.width}")[index, 0].view(np.uint8).reshape(len(index), self.width)
        return Piece(cells, None if self.lengths is None else self.lengths[index])

    def pick_strings(self, index: Ints) -> list[Piece]:
        """The strings at these indices as Avro strings, which begin with their length."""
        length = constant(long(self.width)) if self.lengths is None else longs(self.lengths[index].astype(np.int64))
        return [length, self.pick(index)]


def table(texts: Sequence[bytes]) -> Table:
    """A table of these byte strings."""
    lengths = np.array([len(text) for text in texts], np.uint16)
    width = int(lengths.max())
    cells = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), np.uint8).reshape(len(texts), width)
    return Table(cells, None if (lengths == width).all() else lengths)


def join(pieces: Sequence[Piece], records: int) -> Bytes:
    """The pieces of the first record, then those of the second, and so on; shape (bytes,)."""
    # A piece is one opaque value a record, so that numpy moves it as a whole and not byte by byte.
    layout = np.dtype([(str(place), f"V{piece.width}") for place, piece in enumerate(pieces)])
    cells = np.empty(records, layout)
    keep = np.ones((records, layout.itemsize), np.bool_)
    kept = keep.view(layout).reshape(records)
    for place, piece in enumerate(pieces):
        cells[str(place)] = piece.cells.view(f"V{piece.width}")[:, 0]
        if piece.lengths is not None:
            kept[str(place)] = _first(piece.width)[piece.lengths]
    joined: Bytes = cells.view(np.uint8).reshape(records, -1)[keep]
    return joined


@cache
def _first(width: int) -> npt.NDArray[np.void]:
    """Row n says: keep the first n of `width` bytes."""
    flags = np.arange(width) < np.arange(width + 1)[:, None]
    return flags.view(f"V{width}")[:, 0]
