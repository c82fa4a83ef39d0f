"""Up to when everything is in a table, from facts about the log: pure.

Of each source partition a table was told its frontier: all that was appended before it is there. A partition that
nobody writes to has an old frontier; then the word of whoever reads it takes the answer further (`Tip`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

NOTHING = -1


@dataclass(frozen=True, slots=True)
class Tip:
    """Of a source partition: its log ended at offset `read_to` when it was `at_ms`, and all before that is published.

    True for ever, whoever said it. `published`: some of it by this owner, who told every table the offset; else all
    of it by earlier ones.
    """

    read_to: int
    at_ms: int
    published: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What one table has heard of its sources: frontiers (ms), and offsets up to which all is there.

    `read_up_at_ms`: when this table's own input was last known to be read to its end, or NOTHING.
    """

    frontiers: Mapping[int, int]
    applied: Mapping[int, int]
    read_up_at_ms: int


def complete_to_ms(tables: Collection[Told], tips: Mapping[int, Tip], partitions: int) -> int:
    """Before this time (ms) everything is in all of the tables; 0 when that cannot be said of some partition."""
    return min((_of_source(table, source, tips.get(source)) for table in tables for source in range(partitions)), default=0)


def _of_source(table: Told, source: int, tip: Tip | None) -> int:
    frontier = table.frontiers.get(source, 0)
    if tip is None:
        return frontier
    if table.applied.get(source, NOTHING) >= tip.read_to - 1:
        return max(frontier, tip.at_ms)
    # Nobody of now has said anything of this source. What was published before its owner came is in this table's input.
    if not tip.published:
        return max(frontier, min(tip.at_ms, table.read_up_at_ms))
    return frontier
