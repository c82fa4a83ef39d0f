"""Up to when everything is in a table, from facts about the log: pure.

Of each source partition a table was told its frontier: all that was appended before it is there. A partition that
nobody writes to has an old frontier; then the word of whoever reads it takes the answer further (`Tip`). Source
partitions are numbered over all topics that are counted (lanes).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Tip:
    """Of a source partition: its log ended at offset `read_to` when it was `at_ms`, and all before that is published.

    True for ever, whoever said it. Who publishes tells every table the offset. `earlier_by_ms` is for what nobody of
    now has published: earlier owners had, by this time.
    """

    read_to: int
    at_ms: int
    earlier_by_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What one table has heard of its sources: frontiers (ms), and offsets up to which all of theirs is there.

    All that was in this table's own input when it was `read_up_at_ms` has been read; 0 when that is not known.
    """

    frontiers: Mapping[int, int]
    applied: Mapping[int, int]
    read_up_at_ms: int = 0


@dataclass(slots=True)
class InputMark:
    """Up to when (ms) all that was in a table's input has been read, also while more comes all the time."""

    read_up_at_ms: int = 0
    _goal: tuple[int, int] | None = None  # the end of the input at a time

    def look(self, read_to: int, end: int, at_ms: int) -> None:
        """The table has read up to before `read_to`; the input ends before `end` at `at_ms`."""
        if self._goal is not None and read_to >= self._goal[0]:
            self.read_up_at_ms, self._goal = self._goal[1], None
        if self._goal is None:
            self._goal = (end, at_ms)


def newer(known: Tip | None, found: Tip) -> Tip:
    """Which of two tips of a source takes an answer further."""
    return found if known is None or found.at_ms >= known.at_ms else known


def complete_to_ms(tables: Collection[Told], tips: Mapping[int, Tip], lanes: Iterable[int]) -> int:
    """Before this time (ms) everything is in all of the tables; 0 when that cannot be said of some lane."""
    return min((_of_source(tables, lane, tips.get(lane)) for lane in lanes), default=0)


def _of_source(tables: Collection[Told], source: int, tip: Tip | None) -> int:
    lowest: int | None = None
    for table in tables:
        known = table.frontiers.get(source, 0)
        if tip is not None and tip.at_ms > known and _holds(table, source, tip):
            known = tip.at_ms
        lowest = known if lowest is None or known < lowest else lowest
    return lowest or 0


def _holds(table: Told, source: int, tip: Tip) -> bool:
    """Whether all that there was at the tip is in the table."""
    told = table.applied.get(source, NOTHING) >= tip.read_to - 1
    return told or (tip.earlier_by_ms is not None and table.read_up_at_ms >= tip.earlier_by_ms)
