"""Time as an object that is handed in, so that tests move it instead of waiting."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where the agent's loops get their time from."""

    def monotonic_s(self) -> float:
        """Seconds that only go forward; for intervals, deadlines and ages."""
        ...

    def wall_ms(self) -> int:
        """The time of day, ms UTC; for what others read."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after that long; at once, but after others had their turn, when it is 0 or less."""
        ...


async def tick(clock: Clock, every_s: float) -> None:
    """Returns at a whole multiple of `every_s`, half of one to one and a half from now.

    Loops that wait so wake up together: on a host that does little else a wake-up costs ten times what is done in it,
    since nothing of the agent is in the processor's caches any more.
    """
    rest_s = every_s - clock.monotonic_s() % every_s
    await clock.sleep(rest_s if rest_s >= every_s / 2 else rest_s + every_s)


class SystemClock:
    """The machine's own."""

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Ms UTC."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(max(seconds, 0))
