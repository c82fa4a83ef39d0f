"""Which pages of the table must be written, and from where a restart has to read what they do not hold."""

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Longs = npt.NDArray[np.int64]

NEVER = -1


@dataclass(frozen=True, slots=True)
class Position:
    """How far a table is, apart from its rows: the metadata of the commit of `resume_offset`.

    Whether new nodes are taken is decided once for every record up to `decided_offset`: until there a replay takes
    none that the pages do not hold. The rest is what deciding goes on with.
    """

    resume_offset: int
    resume_frontier_ms: int  # before that record
    decided_offset: int
    minute: int  # of append time
    new_in_minute: int
    known: int
    refused: int

    def text(self) -> str:
        """Numbers parted by blanks."""
        return " ".join(map(str, astuple(self)))

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """What `text` wrote; None for anything else, as what other tools leave in a commit."""
        words = text.split()
        if len(words) != len(cls.__slots__) or not all(word.removeprefix("-").isdecimal() for word in words):
            return None
        return cls(*map(int, words))


# When nothing was ever committed: whatever pages there are, all that they hold is read again.
BEGINNING = Position(0, 0, NEVER, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PageRows:
    """A page as it is to be written: its nodes, as PAGE_SCHEMA. Without any, what was written of it may go."""

    page: int
    rows: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What to write of one moment: tombstones of nodes that `left`, then pages, then the commit of `position`.

    Each step, and what was announced before, is to be acknowledged before the next. `settled`: every node has then been
    written since the table was restored, so pages of earlier owners may go.
    """

    left: pl.Series  # ids of nodes
    pages: tuple[PageRows, ...]
    position: Position
    settled: bool


class PageLog:
    """For each page: when it was last written, and the first record since."""

    def __init__(self) -> None:
        self._dirty = np.zeros(0, np.bool_)
        self._urgent = np.zeros(0, np.bool_)  # has new nodes
        self._since = np.zeros(0, np.int64)  # offset
        self._since_frontier = np.zeros(0, np.int64)  # before that record
        self._written = np.zeros(0, np.int64)  # number of the last snapshot with it
        self._snapshots = 0

    def grow(self, pages: int) -> None:
        """Make room; new pages are dirty, with nothing to read again."""
        more = pages - len(self._dirty)
        if more > 0:
            self._dirty = np.concatenate([self._dirty, np.ones(more, np.bool_)])
            self._urgent = np.concatenate([self._urgent, np.zeros(more, np.bool_)])
            self._since, self._since_frontier = (
                np.concatenate([column, np.full(more, NEVER)]) for column in (self._since, self._since_frontier)
            )
            self._written = np.concatenate([self._written, np.zeros(more, np.int64)])

    def touch(self, pages: Longs, offsets: Longs, before_ms: Longs) -> None:
        """Records in log order have changed a page each; `before_ms`: the frontier before the record."""
        first = np.full(len(self._dirty), NEVER)
        first[pages[::-1]] = np.arange(len(pages))[::-1]
        touched = np.flatnonzero(first != NEVER)
        clean = touched[self._since[touched] == NEVER]
        self._since[clean], self._since_frontier[clean] = offsets[first[clean]], before_ms[first[clean]]
        self._dirty[touched] = True

    def mark(self, pages: Longs, *, urgent: bool) -> None:
        """Pages have changed in what a replay need not, or cannot, bring back; urgent ones are written at once."""
        self._dirty[pages] = True
        if urgent:
            self._urgent[pages] = True

    def take(self, limit: int) -> Longs:
        """The pages to write now, ascending, clean from here on: all urgent ones, `limit` others longest unwritten."""
        urgent, others = np.flatnonzero(self._urgent), np.flatnonzero(self._dirty & ~self._urgent)
        oldest = others[np.argsort(self._written[others], kind="stable")[:limit]]
        taken = np.sort(np.concatenate([urgent, oldest]))
        self._snapshots += 1
        self._dirty[taken], self._urgent[taken] = False, False
        self._since[taken], self._written[taken] = NEVER, self._snapshots
        return taken

    def resume(self) -> tuple[int, int] | None:
        """(offset, frontier before it) of the first record that some page lacks; None when all are written."""
        waiting = np.flatnonzero(self._since != NEVER)
        if not len(waiting):
            return None
        first = waiting[np.argmin(self._since[waiting])]
        return int(self._since[first]), int(self._since_frontier[first])

    def settled(self) -> bool:
        """Whether every page has been taken once."""
        return bool((self._written > 0).all())
