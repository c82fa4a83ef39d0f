"""Sources through time: when a topic is deleted and created again, each of its lanes is a new source.

Its offsets begin anew, so its cells must not be compared with those of the partition before it. What is left open of
the old one is sealed as it is, by the first record that speaks of the new one, and what is said of the old one
afterwards comes too late, like any cell that was sealed before.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streams.core.sources import place_of

RETIRED_MS = 1 << 62  # the frontier of a source that nothing comes from any more
_LANE_BITS = 20


class Placed(NamedTuple):
    """`number`: of a source in cells; `retires`: of the one that it replaces; `retired`: it was replaced itself."""

    number: int
    retires: int | None
    retired: bool


class Lineage:
    """The ids that each source topic was heard of under, in that order, and which of them is a lane's newest.

    Topics of one name only: another topic's are not those before or after it.
    """

    def __init__(
        self, topics: Mapping[str, Sequence[str]] | None = None, newest: Mapping[int, int] | None = None
    ) -> None:
        self.topics = {source: list(ids) for source, ids in (topics or {}).items()}
        self.newest = dict(newest or {})

    def place(self, lane: int, topic_id: str) -> Placed:
        """The source that a record speaks of. One that names no topic speaks of the newest."""
        known = self.newest.get(lane, 0)
        if not topic_id:
            return Placed(number(lane, known), None, retired=False)
        ids = self.topics.setdefault(place_of(lane)[0], [])
        if topic_id not in ids:
            ids.append(topic_id)
        topic = ids.index(topic_id)
        if topic <= known:
            return Placed(number(lane, topic), None, retired=topic < known)
        self.newest[lane] = topic
        return Placed(number(lane, topic), number(lane, known), retired=False)

    def live(self, lane: int) -> int:
        """The number of a lane's newest source."""
        return number(lane, self.newest.get(lane, 0))

    def retired(self) -> Iterator[int]:
        """The numbers of all sources that were replaced."""
        for lane, newest in self.newest.items():
            for topic in range(newest):
                yield number(lane, topic)


def number(lane: int, topic: int) -> int:
    """The number of a source in cells: of the first topic of its name it is the lane."""
    return lane | topic << _LANE_BITS
