"""Who owns a key: the producers' partitioner over the raw key, so that every client computes the same."""

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner has it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
