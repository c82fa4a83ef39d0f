"""Unusable records of a poll on their way to `dead-letters`."""

from collections.abc import Sequence

from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import encode
from schemas.dead_letters import TOPIC, Origin, dead_letter

__all__ = ["TOPIC", "dead_letters"]


def dead_letters(
    records: Sequence[ConsumerRecord[bytes, bytes]], rejects: Sequence[Reject], detected_by: str
) -> list[tuple[bytes | None, bytes]]:
    """(key, framed value) of a dead letter for each reject; rows index `records`."""
    letters = [dead_letter(_origin(records[r.row]), r.reason, r.detail, detected_by) for r in rejects]
    return [(letter.key, encode(letter)) for letter in letters]


def _origin(record: ConsumerRecord[bytes, bytes]) -> Origin:
    return Origin(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value)
