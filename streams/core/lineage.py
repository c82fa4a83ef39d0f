"""Sources through time: when a topic is deleted and created again, each of its partitions is a new source.

Its offsets begin anew, so its cells must not be compared with those of the partition before it. What is left open of
the old one is sealed as it is, by the first record that speaks of the new one, and what is said of the old one
afterwards comes too late, like any cell that was sealed before.
"""

from collections.abc import Iterator
from typing import NamedTuple

RETIRED_MS = 1 << 62  # the frontier of a source that nothing comes from any more
_PARTITION_BITS = 20  # more than Kafka has partitions in a topic


class Placed(NamedTuple):
    """`number`: of a source in cells; `retires`: of the one that it replaces; `retired`: it was replaced itself."""

    number: int
    retires: int | None
    retired: bool


class Lineage:
    """The topics that partials came from, in the order in which they were first heard of; the newest by partition."""

    def __init__(self, topics: list[str] | None = None, newest: dict[int, int] | None = None) -> None:
        self.topics = list(topics or ())
        self.newest = dict(newest or {})

    def place(self, partition: int, topic_id: str) -> Placed:
        """The source that a record speaks of. One that names no topic speaks of the newest."""
        known = self.newest.get(partition, 0)
        if not topic_id:
            return Placed(number(partition, known), None, retired=False)
        if topic_id not in self.topics:
            self.topics.append(topic_id)
        topic = self.topics.index(topic_id)
        if topic <= known:
            return Placed(number(partition, topic), None, retired=topic < known)
        self.newest[partition] = topic
        return Placed(number(partition, topic), number(partition, known), retired=False)

    def live(self, partition: int) -> int:
        """The number of a partition's newest source."""
        return number(partition, self.newest.get(partition, 0))

    def retired(self) -> Iterator[int]:
        """The numbers of all sources that were replaced."""
        for partition, newest in self.newest.items():
            for topic in range(newest):
                yield number(partition, topic)


def number(partition: int, topic: int) -> int:
    """The number of a source in cells: of the first topic it is the partition."""
    return partition | topic << _PARTITION_BITS
