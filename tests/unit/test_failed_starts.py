"""A producer of aiokafka whose start fails has connections and a task already: it is stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError

from schemas.kafka import Brokers
from streams.archive.letters import DeadLetters
from streams.engine import announcements
from streams.engine.announcements import AnnouncementLog

NOBODY = "127.0.0.1:9"


class Numberless:
    """A producer that connects, and gets no producer id: it is refused, or waits for ever."""

    def __init__(self, *, refused: bool) -> None:
        self._refused = refused
        self.running = False

    async def start(self) -> None:
        self.running = True
        await asyncio.sleep(0 if self._refused else 3_600)
        raise ClusterAuthorizationFailedError

    async def stop(self) -> None:
        self.running = False


async def announce(brokers: Brokers) -> None:
    log = AnnouncementLog(brokers)
    try:
        await log.append(b"")
    finally:
        await log.__aexit__()


async def write_a_letter(brokers: Brokers) -> None:
    await DeadLetters(brokers).send([(None, b"")], lambda: True)


@pytest.mark.parametrize("use", [announce, write_a_letter])
@pytest.mark.parametrize("refused", [True, False])
def test_it_is_stopped_when_it_is_refused_and_when_it_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[Brokers], Coroutine[Any, Any, None]], *, refused: bool
) -> None:
    made: list[Numberless] = []

    def make(**_: object) -> Numberless:
        made.append(Numberless(refused=refused))
        return made[-1]

    for module in (announcements.__name__, DeadLetters.__module__):
        monkeypatch.setattr(f"{module}.AIOKafkaProducer", make)

    async def run() -> None:
        async with asyncio.timeout(0.1):
            await use(NOBODY)

    # What writes dead letters tries again until it is ended.
    with pytest.raises(ClusterAuthorizationFailedError if refused and use is announce else TimeoutError):
        asyncio.run(run())
    assert [producer.running for producer in made] == [False]
