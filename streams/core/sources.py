"""The topics whose records are counted, and one number for each of their partitions.

A *lane* is a partition of one of these topics. Those of probe-results have the numbers of their partitions, as in state
pages of before there was a second topic. Lanes are in state pages: the order of SOURCES must not change.
"""

PROBES = "probe-results"
COUNTS = "request-counts"
SOURCES = (PROBES, COUNTS)

# More than brokers take of one topic. With the topic's place a lane has 20 bits, see `streams.core.lineage`.
_PARTITION_BITS = 16
MAX_PARTITIONS = 1 << _PARTITION_BITS


def lane(source: str, partition: int) -> int:
    """The number of a partition. Raises ValueError for a topic that is not counted, and a partition that none has."""
    if not 0 <= partition < MAX_PARTITIONS:
        raise ValueError(f"partition {partition}; expected 0 to {MAX_PARTITIONS - 1}")
    if source not in SOURCES:
        raise ValueError(f"topic {source[:100]!r}; expected one of {', '.join(SOURCES)}")
    return partition | SOURCES.index(source) << _PARTITION_BITS


def place_of(lane: int) -> tuple[str, int]:
    """Topic and partition. Raises LookupError for a topic that only a newer fleetbeat counts."""
    return SOURCES[lane >> _PARTITION_BITS], lane % MAX_PARTITIONS
