"""Unreadable records to the topic dead-letters, acknowledged by all replicas before anything else happens."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.codec import encode
from schemas.dead_letters import TOPIC, Origin, dead_letter
from schemas.kafka import Brokers, client_settings
from schemas.records import DeadLetter
from streams.archive.blocks import Rejected
from streams.archive.consumer import GivenUpError

_RETRY_S = 1.0
_CLOSE_S = 5.0
_log = structlog.get_logger(__name__)


def letters_of(topic: str, rejected: Iterable[Rejected]) -> list[tuple[bytes | None, bytes]]:
    """Key and framed value of a dead letter for each rejected record of `topic`."""
    letters = [_letter(topic, record) for record in rejected]
    return [(letter.key, encode(letter)) for letter in letters]


class DeadLetters:
    """The producer of dead letters. It starts with the first of them."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, letters: Sequence[tuple[bytes | None, bytes]], wanted: Callable[[], bool]) -> None:
        """Returns when all are acknowledged; asks again while Kafka refuses. Raises GivenUpError unless `wanted()`."""
        while letters:
            if not wanted():
                raise GivenUpError
            try:
                producer = await self._started()
                futures = [await producer.send(TOPIC, value, key=key) for key, value in letters]
                await _acknowledged(asyncio.gather(*futures), wanted)
            except KafkaError as error:
                _log.warning("dead-letters-refused", letters=len(letters), error=repr(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def close(self) -> None:
        """Ends the producer, if there is one."""
        if self._producer is not None:
            # without a broker it would wait for ever for what it still has
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(self._producer.stop(), _CLOSE_S)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **client_settings(self._brokers), acks="all", enable_idempotence=True, compression_type="lz4"
                )
                try:
                    await producer.start()
                except BaseException:  # also when the archive ends meanwhile
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


async def _acknowledged(letters: asyncio.Future[list[Any]], wanted: Callable[[], bool]) -> None:
    """An idempotent producer never gives up, so somebody has to look whether this is still wanted."""
    while not (await asyncio.wait([letters], timeout=_RETRY_S))[0]:
        if not wanted():
            letters.cancel()
            raise GivenUpError
    letters.result()


def _letter(topic: str, record: Rejected) -> DeadLetter:
    origin = Origin(topic, record.partition, record.offset, record.append_ms, record.key, record.value)
    return dead_letter(origin, record.reason, record.detail, "archive")
