"""Who owns a key: the producers' partitioner over the raw key, so that every client computes the same."""

import math

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner has it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def partition_share(total: int, partitions: int) -> int:
    """What one partition takes of a bound for all: its part, and what chance may put there more."""
    share = total / partitions
    return math.ceil(share + 4 * math.sqrt(share))
