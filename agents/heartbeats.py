"""The node's heartbeats: the first at once, then one an interval, give or take a twentieth, and one at a change."""

import asyncio
import random
from collections.abc import Callable

from agents.clock import Clock
from agents.host import HostFacts
from agents.node import Beat, Node, heartbeat
from agents.publish import HEARTBEATS, Outbox

UP, DRAINING, GOODBYE = "UP", "DRAINING", "GOODBYE"
# Nodes that started together shall not speak together for ever.
JITTER = 0.05


class Heartbeats:
    """Makes them and puts them into the outbox; counts those that were taken, so that a gap is a lost one."""

    def __init__(
        self, node: Node, outbox: Outbox, facts: Callable[[], HostFacts], clock: Clock, rng: random.Random
    ) -> None:
        self._node = node
        self._outbox = outbox
        self._facts = facts
        self._clock = clock
        self._rng = rng
        self._taken = 0
        self._state = UP
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._outbox.room(HEARTBEATS)
            self._changed.clear()
            self.beat()
            await self._pause(self._node.interval_ms / 1_000 * self._rng.uniform(1 - JITTER, 1 + JITTER))

    def change(self, node: Node) -> None:
        """The node says something else about itself from now on, and says it at once."""
        self._node = node
        self._changed.set()

    def beat(self) -> None:
        """One heartbeat, now."""
        outbox = self._outbox
        beat = Beat(
            self._clock.wall_ms(),
            self._taken,
            self._state,
            self._facts(),
            outbox.dropped(),
            outbox.waiting(),
            outbox.spool_age_ms(self._clock.monotonic_s()),
        )
        if self._outbox.put(lambda seq: heartbeat(self._node, beat, seq)) is None:
            self._taken += 1

    async def _pause(self, seconds: float) -> None:
        """Until the next one is due, or the node has changed."""
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.create_task(self._changed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def drain(self) -> None:
        """Says at once, and from now on, that this node is about to go: it should get no new work."""
        self._state = DRAINING
        self.beat()

    def say_goodbye(self) -> None:
        """The last word before a planned stop: the node is gone, not down."""
        self._state = GOODBYE
        self.beat()
