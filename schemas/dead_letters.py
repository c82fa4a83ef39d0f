"""How an unusable record is kept in `dead-letters`; the same for whoever detects it."""

from dataclasses import dataclass

from schemas.records import DeadLetter

TOPIC = "dead-letters"
# The reason of a letter about a whole batch, which is at its last offset and has no value.
UNREADABLE_BATCH = "unreadable-batch"
MAX_KEPT_BYTES = 262_144
# The key travels twice, in the letter and as its key; a letter too large for the topic would stop its writer for good.
MAX_KEPT_KEY_BYTES = 32_768


@dataclass(frozen=True, slots=True)
class Origin:
    """A record as Kafka had it; `append_ms` is the broker's append time."""

    topic: str
    partition: int
    offset: int
    append_ms: int
    key: bytes | None
    value: bytes | None


def dead_letter(origin: Origin, reason: str, detail: str, detected_by: str) -> DeadLetter:
    """The letter about a record; what is cut of its key and value is told."""
    key, value = origin.key, origin.value
    if key is not None and len(key) > MAX_KEPT_KEY_BYTES:
        detail = f"{detail}; the first {MAX_KEPT_KEY_BYTES} bytes of the key are kept"
    return DeadLetter(
        reason=reason,
        detail=detail,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        append_ts=origin.append_ms,
        detected_by=detected_by,
        key=None if key is None else key[:MAX_KEPT_KEY_BYTES],
        value=None if value is None else value[:MAX_KEPT_BYTES],
        value_bytes=0 if value is None else len(value),
    )
