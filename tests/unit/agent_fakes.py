"""A clock that tests move, probes that do as they are told, and a publisher that is a list."""

import asyncio
import heapq
from collections.abc import Callable

from agents.config import ProbeSpec
from agents.probes.base import Down, Outcome, Probe, Up
from agents.publish import Drop, LaneFigures
from schemas.codec import decode
from schemas.records import Record

NOW_MS = 1_800_000_000_000
TURNS = 60


class ManualClock:
    """Stands still until `advance`; then every sleeper wakes at its own time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._slept = 0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return NOW_MS + round(self.now_s * 1_000)

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._slept += 1
        heapq.heappush(self._sleepers, (self.now_s + max(seconds, 0), self._slept, event))
        await event.wait()

    async def advance(self, seconds: float) -> None:
        """Lets that much time pass and everyone do what they do in it."""
        await settle()
        end_s = self.now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self.now_s, _, event = heapq.heappop(self._sleepers)
            event.set()
            await settle()
        self.now_s = end_s

    async def leap(self, seconds: float) -> None:
        """Lets that much time pass at once: whoever sleeps less wakes at its end, in order; for many sleepers."""
        self.now_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self.now_s:
            heapq.heappop(self._sleepers)[2].set()
        for _ in range(4):
            await asyncio.sleep(0)


async def settle() -> None:
    """Lets every task run until it waits."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Answering:
    """A probe that gives one outcome at once."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or Up(latency_us=1_000)
        self.runs = 0

    async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
        self.runs += 1
        return self.outcome


class Hanging:
    """A probe that takes until `go`, and does not keep to its deadline."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.runs = 0

    async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
        self.runs += 1
        await self.go.wait()
        return Down("refused", "nobody there", latency_us=2_000)


class Crashing:
    """A probe with a bug."""

    async def run(self, deadline_s: float) -> Outcome:
        raise ZeroDivisionError(f"within {deadline_s}")


def spec(name: str, probe: Probe, every_s: float = 10.0, timeout_s: float = 5.0) -> ProbeSpec:
    return ProbeSpec(name, "fake", "shop", "/", every_s, timeout_s, "P1", (), probe)


class ListPublisher:
    """Keeps what it takes; `refuses` may say no to a topic."""

    taken: list[Record]

    def __init__(self, refuses: Callable[[str], Drop | None] = lambda _: None) -> None:
        self.taken = []
        self.refuses = refuses
        self.refused = 0
        self.trouble: str | None = None

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:  # noqa: ARG002 - part of the protocol
        reason = self.refuses(topic)
        if reason is None:
            self.taken.append(decode(value))
        else:
            self.refused += 1
        return reason

    async def room(self, topic: str) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self, deadline_s: float) -> int:  # noqa: ARG002 - part of the protocol
        return 0

    def figures(self) -> dict[str, LaneFigures]:
        return {"heartbeats": LaneFigures(len(self.taken), 0, {Drop.BUFFER_FULL: self.refused})}

    def problem(self) -> str | None:
        return self.trouble
