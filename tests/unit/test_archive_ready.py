"""Ready means that the archive knows how far it is behind, and that the store takes what it is given."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams.archive import consumer, service
from streams.archive.consumer import Partitions, Source
from streams.archive.metrics import ArchiveMetrics
from streams.archive.service import Archive
from tests.unit.waiting import until

BOUND = 100


class Log:
    """Stands in for Kafka: every partition ends at 15, while anybody answers."""

    def __init__(self) -> None:
        self.why: Exception | None = None
        self.more: Partitions | None = None
        self.taken = list[Partitions]()

    async def topic_ids(self) -> dict[str, str]:
        return {}

    def added(self) -> Partitions | None:
        more, self.more = self.more, None
        return more

    def take(self, partitions: Partitions) -> None:
        self.taken.append(partitions)

    async def ends(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        if self.why is not None:
            raise self.why
        return dict.fromkeys(places, 15)

    async def commit(self, _: Mapping[TopicPartition, int]) -> bool:
        return self.why is None


@contextmanager
def adopted(monkeypatch: pytest.MonkeyPatch, log: Log) -> Iterator[Archive]:
    """An archive that has stored each topic's partition up to 5, and measures its lag all the time."""
    monkeypatch.setattr(service, "Source", lambda *_, **__: log)
    monkeypatch.setattr(service, "_TICK_S", 0.01)
    made = Archive("127.0.0.1:9", "archive", _never, ArchiveMetrics(), shared=False)
    made._take_on({topic: {0} for topic in made._lanes})
    for lane in made._lanes.values():
        lane.next = {0: 5}
    ticking = asyncio.create_task(made._tick(asyncio.create_task(asyncio.sleep(0))))
    yield made
    ticking.cancel()


def _never() -> Any:  # noqa: ANN401
    raise AssertionError("nobody asks the store")


@pytest.mark.parametrize("why", [KafkaConnectionError(), TimeoutError()])
def test_it_is_not_ready_while_kafka_does_not_say_how_far_the_logs_go(
    monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    async def scene() -> None:
        log = Log()
        with adopted(monkeypatch, log) as archive:
            await until(lambda: archive.why_not_ready(BOUND) is None)
            log.why = why
            await until(lambda: archive.why_not_ready(BOUND) == "lag is not known yet")
            log.why = None
            await until(lambda: archive.why_not_ready(BOUND) is None)

    asyncio.run(scene())


def test_lag_is_shown_while_the_store_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        with adopted(monkeypatch, Log()) as archive:
            lane = archive._lanes["heartbeats"]
            lane._storing.failing = True
            await until(lambda: archive.lag.get("heartbeats") == 10)
            assert archive.why_not_ready(BOUND) == "recovering or refused by the store: heartbeats"

    asyncio.run(scene())


def test_partitions_that_are_added_are_taken_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        log = Log()
        with adopted(monkeypatch, log) as archive:
            await until(lambda: archive.why_not_ready(BOUND) is None)
            log.more = {topic: {0} for topic in archive._lanes} | {"heartbeats": {0, 1}}
            await until(lambda: bool(log.taken))
            assert archive._lanes["heartbeats"]._wanted == {0, 1}
            await until(lambda: archive.why_not_ready(BOUND) is not None)

    asyncio.run(scene())


class Deaf:
    """A consumer without a broker, as aiokafka's is: it waits for ever."""

    async def commit(self, _: object) -> None:
        await asyncio.sleep(3_600)

    async def end_offsets(self, _: object) -> None:
        await asyncio.sleep(3_600)


@pytest.mark.parametrize(
    "ask", [lambda source: source.commit({TopicPartition("heartbeats", 0): 1}), lambda source: source.ends([])]
)
def test_kafka_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch, ask: Callable[[Source], Any]) -> None:
    monkeypatch.setattr(consumer, "AIOKafkaConsumer", lambda **_: Deaf())
    monkeypatch.setattr(consumer, "_ANSWER_S", 0.01)

    async def scene() -> None:
        with suppress(TimeoutError):
            assert not await ask(Source("127.0.0.1:9", "archive", [], shared=False))

    asyncio.run(asyncio.wait_for(scene(), 5))
