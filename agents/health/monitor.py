"""Keeps what the kernel counted a second ago, and says how healthy the host has been since."""

import asyncio
import logging

from agents.clock import Clock, tick
from agents.health.procfs import ProcFiles
from agents.health.window import Health, Snapshot, compare

# What was kept for so long is compared with what is read when somebody asks: the one whose age is closest to a second.
STEP_S, WINDOW_S, LEAST_S, KEPT = 1.0, 1.0, 0.5, 3
# A window this long says nothing about a second: the machine slept, or this process did not get to run.
LONGEST_S = 3.0

log = logging.getLogger(__name__)


class HealthMonitor:
    """A window that ends when somebody asks and is a second long, give or take half of one.

    The host is looked at once a second, when the agent wakes up for other things as well. What was read is understood
    only when somebody asks.
    """

    def __init__(self, files: ProcFiles, clock: Clock, *, ebpf: bool = False) -> None:
        self._files = files
        self._clock = clock
        self._ebpf = ebpf
        self._taken: tuple[Snapshot, ...] = ()
        self._end: Snapshot | None = None
        self._told: str | None = None

    async def run(self) -> None:
        """Until cancelled."""
        loading = asyncio.create_task(self._load(), name="ebpf") if self._ebpf else None
        try:
            while True:
                self._taken = (*self._taken[1 - KEPT :], self._files.snapshot())
                await tick(self._clock, STEP_S)
        finally:
            if loading is not None:
                loading.cancel()
            self._end = self._files.snapshot()  # for the goodbye
            self._files.close()

    def health(self) -> Health:
        """Of the second up to now, in any thread; nothing is known before half a second has gone by."""
        now = self._end or self._files.snapshot()
        before = min(self._taken, key=lambda taken: abs(now.at_s - taken.at_s - WINDOW_S), default=now)
        if now.at_s - before.at_s < LEAST_S:
            return Health(unknown=("nothing was read yet",))
        if now.at_s - before.at_s > LONGEST_S:
            return Health(unknown=(f"{now.at_s - before.at_s:.1f} s between reads; expected a second",))
        health = compare(before, now)
        if health.source != self._told:
            self._told = health.source
            log.info("health is read", extra={"source": health.source, "unknown": list(health.unknown)})
        return health

    async def _load(self) -> None:
        """Has the kernel count connections, from now on; what it says against that is told once."""
        from agents.health.kernel_events import KernelEventsError, load  # noqa: PLC0415 - ctypes, only where asked for

        try:
            counts = await asyncio.to_thread(load)
        except KernelEventsError as cause:
            log.warning("health.ebpf: the kernel does not count for us", extra={"reason": str(cause)})
        else:
            self._files.events = counts.read
