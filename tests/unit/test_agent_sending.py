"""When the publisher sends what it was given: what can wait does, for a moment, and shares a request."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from agents.clock import tick
from agents.kafka import FULL_RECORDS, TEND_S, USUAL_APART_S, KafkaOptions, KafkaPublisher
from agents.lane import MemoryLane
from agents.publish import HEARTBEATS, RESULTS, TOPICS, Outbox
from schemas.codec import encode
from tests.unit.agent_fakes import ManualClock, settle
from tests.unit.signed_records import PROBE

SOON_S = 0.01


class World:
    """A publisher to a Kafka that takes everything at once, and the records of each request."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.requests: list[list[bytes]] = []
        lanes = {topic: MemoryLane(10_000, 1_000) for topic in TOPICS}
        self.publisher = KafkaPublisher(KafkaOptions("b:1", "lz4"), "n", lanes, clock, random.Random(1))

    def producer(self, *_: object) -> Any:  # noqa: ANN401 - as much of aiokafka's as the publisher uses
        async def partitions_for(_: str) -> set[int]:
            return {0}

        async def send_batch(batch: BatchBuilder, _: str, *, partition: int) -> asyncio.Future[Any]:
            assert partition == 0
            self.requests.append([bytes(record.value or b"") for record in DefaultRecordBatch(bytes(batch._build()))])
            ack = asyncio.get_running_loop().create_future()
            ack.set_result(SimpleNamespace(timestamp=-1))
            return ack

        async def nothing() -> None:
            pass

        return SimpleNamespace(
            _txn_manager=SimpleNamespace(producer_id=7, producer_epoch=0, sequence_number=lambda _: 0),
            partitions_for=partitions_for,
            create_batch=lambda: BatchBuilder(1 << 18, 0),
            send_batch=send_batch,
            start=nothing,
            stop=nothing,
        )


def sending(monkeypatch: pytest.MonkeyPatch, case: Callable[[World], Awaitable[None]]) -> None:
    """At a moment between two ticks."""

    async def main() -> None:
        clock = ManualClock()
        clock.now_s = 0.3
        world = World(clock)
        monkeypatch.setattr(KafkaPublisher, "_producer", world.producer)
        running = asyncio.create_task(world.publisher.run())
        await clock.advance(SOON_S)
        await case(world)
        if running.done():
            running.result()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())


def test_what_can_wait_does_and_shares_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(world: World) -> None:
        for value in (b"1", b"2"):
            world.publisher.offer(RESULTS, value, can_wait=True)
            await world.clock.advance(0.2)
        assert world.requests == []
        await world.clock.advance(TEND_S)
        assert world.requests == [[b"1", b"2"]]

    sending(monkeypatch, case)


def test_what_cannot_wait_goes_at_once_and_takes_along_what_could(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(world: World) -> None:
        world.publisher.offer(RESULTS, b"up", can_wait=True)
        world.publisher.offer(HEARTBEATS, b"beat")
        await world.clock.advance(SOON_S)
        assert world.requests == [[b"beat"]]
        world.publisher.offer(RESULTS, b"down")
        await world.clock.advance(SOON_S)
        assert world.requests == [[b"beat"], [b"up", b"down"]]
        world.publisher.offer(RESULTS, b"down too")
        await world.clock.advance(USUAL_APART_S)
        assert world.requests[2:] == [[b"down too"]]

    sending(monkeypatch, case)


def test_nobody_waits_once_there_is_enough_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(world: World) -> None:
        for _ in range(FULL_RECORDS - 1):
            world.publisher.offer(RESULTS, b"up", can_wait=True)
        await world.clock.advance(SOON_S)
        assert world.requests == []
        world.publisher.offer(RESULTS, b"up", can_wait=True)
        await world.clock.advance(SOON_S)
        assert [len(request) for request in world.requests] == [FULL_RECORDS]

    sending(monkeypatch, case)


def test_nobody_waits_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(world: World) -> None:
        world.publisher.offer(RESULTS, b"before", can_wait=True)
        closing = asyncio.create_task(world.publisher.close(10.0))
        await settle()
        world.publisher.offer(RESULTS, b"after", can_wait=True)
        await world.clock.advance(2 * USUAL_APART_S)
        assert [value for request in world.requests for value in request] == [b"before", b"after"]
        assert await closing == 0

    sending(monkeypatch, case)


@pytest.mark.parametrize("success", [True, False])
def test_only_good_news_can_wait(*, success: bool) -> None:
    waits: list[bool] = []

    def offer(topic: str, value: bytes, *, can_wait: bool) -> None:
        assert (topic, value) == (RESULTS, encode(record))
        waits.append(can_wait)

    record = replace(PROBE, success=success)
    Outbox(SimpleNamespace(offer=offer)).put(lambda _: record)
    assert waits == [success]


@given(now_s=st.floats(0, 1e6), every_s=st.sampled_from([0.5, 1.0, 5.0]))
def test_who_waits_for_the_same_tick_wakes_at_the_same_moment(now_s: float, every_s: float) -> None:
    async def case() -> list[float]:
        clock = ManualClock()
        clock.now_s = now_s
        woken: list[float] = []

        async def wait() -> None:
            for _ in range(3):
                await tick(clock, every_s)
                woken.append(clock.now_s)

        one = asyncio.create_task(wait())
        await settle()
        await clock.advance(every_s / 8)  # the second one begins a little later
        two = asyncio.create_task(wait())
        await clock.advance(5 * every_s)
        assert one.done()
        assert two.done()
        return woken

    woken = asyncio.run(case())
    assert {round(at_s / every_s) for at_s in woken} == {round(at_s / every_s, 6) for at_s in woken}
    first, *others = sorted({round(at_s / every_s) for at_s in woken})
    assert others[:2] == [first + 1, first + 2]
    assert every_s / 2 <= woken[0] - now_s + 1e-6
    assert woken[0] - now_s <= 1.5 * every_s + 1e-6
