"""Unusable records on their way to `dead-letters`."""

from collections.abc import Sequence

from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import encode
from schemas.records import DeadLetter

MAX_KEPT_BYTES = 262_144
# The key travels twice, in the letter and as its key; a letter too large for the topic would stop the worker for good.
MAX_KEPT_KEY_BYTES = 32_768
TOPIC = "dead-letters"


def dead_letters(
    records: Sequence[ConsumerRecord[bytes, bytes]], rejects: Sequence[Reject], detected_by: str
) -> list[tuple[bytes | None, bytes]]:
    """(key, framed value) of a dead letter for each reject; rows index `records`."""
    letters = [_letter(records[reject.row], reject, detected_by) for reject in rejects]
    return [(letter.key, encode(letter)) for letter in letters]


def _letter(record: ConsumerRecord[bytes, bytes], reject: Reject, detected_by: str) -> DeadLetter:
    key, value = record.key, record.value
    return DeadLetter(
        reason=reject.reason,
        detail=_detail(reject.detail, key),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        append_ts=record.timestamp,
        detected_by=detected_by,
        key=None if key is None else key[:MAX_KEPT_KEY_BYTES],
        value=None if value is None else value[:MAX_KEPT_BYTES],
        value_bytes=0 if value is None else len(value),
    )


def _detail(detail: str, key: bytes | None) -> str:
    cut = key is not None and len(key) > MAX_KEPT_KEY_BYTES
    return f"{detail}; the first {MAX_KEPT_KEY_BYTES} bytes of the key are kept" if cut else detail
