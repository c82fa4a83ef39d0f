"""A publisher that takes records at once and loads Kafka's client only then: the first heartbeat does not wait for it.

The client is a seventh of what a start costs. By then the first record is in its lane: on disk, where there is a spool.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from agents.clock import Clock
from agents.lane import Lane
from agents.probes.threads import SideThread
from agents.publish import Drop, LaneFigures, Publisher

CLIENT = "aiokafka"
if find_spec(CLIENT) is None:  # known at the start, as if it were loaded then
    raise ModuleNotFoundError(f"No module named {CLIENT!r}", name=CLIENT)


class LatePublisher:
    """A Publisher (agents.publish): the one that `make` gives, called in a thread, over lanes that it shares."""

    def __init__(self, lanes: Mapping[str, Lane], make: Callable[[], Publisher], clock: Clock) -> None:
        self._lanes = lanes
        self._make = make
        self._clock = clock
        self._publisher: Publisher | None = None
        self._needed = asyncio.Event()
        self._made = asyncio.Event()

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:
        """See Publisher."""
        self._needed.set()
        if self._publisher is not None:
            return self._publisher.offer(topic, value, can_wait=can_wait)
        return self._lanes[topic].offer(value, self._clock.monotonic_s())

    async def room(self, topic: str) -> None:
        """See Publisher."""
        if self._publisher is not None or not self._lanes[topic].has_room():
            await (await self._when_made()).room(topic)

    async def run(self) -> None:
        """See Publisher."""
        try:
            await self._needed.wait()
            self._publisher = await SideThread(self._make).call()
            self._made.set()
        finally:
            if self._publisher is None:
                for lane in self._lanes.values():
                    lane.close()
        await self._publisher.run()

    async def close(self, deadline_s: float) -> int:
        """See Publisher."""
        return await (await self._when_made()).close(deadline_s)

    def figures(self) -> dict[str, LaneFigures]:
        """See Publisher."""
        return {topic: lane.figures() for topic, lane in self._lanes.items()}

    def problem(self) -> str | None:
        """See Publisher."""
        return "Kafka's client is being loaded" if self._publisher is None else self._publisher.problem()

    async def _when_made(self) -> Publisher:
        self._needed.set()
        while self._publisher is None:
            await self._made.wait()
        return self._publisher
