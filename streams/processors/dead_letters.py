"""Unusable records on their way to `dead-letters`."""

from collections.abc import Sequence

from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import encode
from schemas.records import DeadLetter

MAX_KEPT_BYTES = 262_144
TOPIC = "dead-letters"


def dead_letters(
    records: Sequence[ConsumerRecord[bytes, bytes]], rejects: Sequence[Reject], detected_by: str
) -> list[tuple[bytes | None, bytes]]:
    """(key, framed value) of a dead letter for each reject; rows index `records`."""
    return [(records[reject.row].key, encode(_letter(records[reject.row], reject, detected_by))) for reject in rejects]


def _letter(record: ConsumerRecord[bytes, bytes], reject: Reject, detected_by: str) -> DeadLetter:
    value = record.value
    return DeadLetter(
        reason=reject.reason,
        detail=reject.detail,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        append_ts=record.timestamp,
        detected_by=detected_by,
        key=record.key,
        value=None if value is None else value[:MAX_KEPT_BYTES],
        value_bytes=0 if value is None else len(value),
    )
