"""Unusable records of a poll on their way to `dead-letters`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import encode
from schemas.dead_letters import TOPIC, Origin, dead_letter
from schemas.traces import kept_headers
from streams.engine.app import App

__all__ = ["TOPIC", "Letter", "Letters", "dead_letters", "send_letters"]


class Letter(NamedTuple):
    """As it is sent: `value` is framed, `headers` are of the record it is about."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


Letters = list[Letter]


def dead_letters(
    records: Sequence[ConsumerRecord[bytes, bytes]], rejects: Sequence[Reject], detected_by: str
) -> Letters:
    """A dead letter for each reject; rows index `records`."""
    letters = []
    for reject in rejects:
        record = records[reject.row]
        letter = dead_letter(_origin(record), reject.reason, reject.detail, detected_by)
        letters.append(Letter(letter.key, encode(letter), kept_headers(record.headers)))
    return letters


async def send_letters(app: App, letters: Sequence[Letter]) -> list[Any]:
    """What is to be awaited until the broker has acknowledged them."""
    send = app.producer.send
    return [await send(TOPIC, each.key, each.value, None, None, each.headers or None) for each in letters]


def _origin(record: ConsumerRecord[bytes, bytes]) -> Origin:
    return Origin(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value)
