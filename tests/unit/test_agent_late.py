"""Kafka's client is loaded after the first record is in its lane, and nothing that happens before is lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agents.clock import SystemClock
from agents.lane import MemoryLane
from agents.late import LatePublisher
from agents.loops import LoopError, loop_factory
from agents.publish import HEARTBEATS, Drop, LaneFigures


class Sender:
    """What is made: sends nothing, and says what it was asked."""

    def __init__(self, lane: MemoryLane) -> None:
        self.lane = lane
        self.began_with: int | None = None
        self.began = asyncio.Event()
        self.offered: list[bytes] = []

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:  # noqa: ARG002
        assert topic == HEARTBEATS
        self.offered.append(value)
        return None

    async def room(self, topic: str) -> None:
        raise InterruptedError(topic)

    async def run(self) -> None:
        self.began_with = len(self.lane)
        self.began.set()
        await asyncio.Event().wait()

    async def close(self, deadline_s: float) -> int:
        return round(deadline_s)

    def figures(self) -> dict[str, LaneFigures]:
        return {}

    def problem(self) -> str | None:
        return None


class FullLane(MemoryLane):
    def has_room(self) -> bool:
        return False


class World:
    def __init__(self, lane: MemoryLane | None = None) -> None:
        self.lane = MemoryLane(10, 60) if lane is None else lane
        self.made = 0
        self.sender = Sender(self.lane)
        self.publisher = LatePublisher({HEARTBEATS: self.lane}, self._make, SystemClock())

    def _make(self) -> Sender:
        self.made += 1
        return self.sender

    def run(self, steps: Callable[["World"], Coroutine[Any, Any, None]]) -> None:
        async def both() -> None:
            running = asyncio.create_task(self.publisher.run())
            await asyncio.sleep(0.01)
            await asyncio.wait_for(steps(self), 10)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(both())


def test_nothing_is_made_until_a_record_is_in_its_lane() -> None:
    async def steps(world: World) -> None:
        assert world.made == 0
        assert world.publisher.problem() is not None
        assert world.publisher.offer(HEARTBEATS, b"first") is None
        assert (world.made, len(world.lane), world.publisher.figures()[HEARTBEATS].waiting) == (0, 1, 1)
        await world.sender.began.wait()
        assert world.publisher.problem() is None
        assert world.publisher.offer(HEARTBEATS, b"second") is None

    world = World()
    world.run(steps)
    assert (world.made, world.sender.began_with, world.sender.offered) == (1, 1, [b"second"])


def test_an_end_that_comes_at_once_waits_for_who_sends() -> None:
    async def steps(world: World) -> None:
        assert await world.publisher.close(7) == 7

    world = World()
    world.run(steps)
    assert world.made == 1


def test_who_waits_for_room_wakes_who_makes_it() -> None:
    async def steps(world: World) -> None:
        with pytest.raises(InterruptedError):  # the sender's own answer
            await world.publisher.room(HEARTBEATS)

    World(FullLane(10, 60)).run(steps)


def test_with_room_nobody_waits_and_nothing_is_made() -> None:
    async def steps(world: World) -> None:
        await world.publisher.room(HEARTBEATS)

    world = World()
    world.run(steps)
    assert world.made == 0


def test_what_cannot_be_made_ends_the_sending_and_closes_the_lanes() -> None:
    closed = []

    class Lane(MemoryLane):
        def close(self) -> None:
            closed.append(self)

    def make() -> Sender:
        raise ModuleNotFoundError("gone")

    async def steps() -> None:
        publisher = LatePublisher({HEARTBEATS: Lane(10, 60)}, make, SystemClock())
        publisher.offer(HEARTBEATS, b"first")
        with pytest.raises(ModuleNotFoundError):
            await publisher.run()

    asyncio.run(steps())
    assert len(closed) == 1


@pytest.mark.parametrize("name", [None, "", "asyncio"])
def test_the_usual_loop_is_asyncios(name: str | None) -> None:
    assert loop_factory(name) is None


def test_a_loop_that_nobody_knows_is_refused() -> None:
    with pytest.raises(LoopError, match=r"FLEETBEAT_LOOP 'trio'; expected asyncio or uvloop"):
        loop_factory("trio")
