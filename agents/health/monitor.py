"""Keeps the last second of what the kernel counts, and says how healthy the host was in it."""

import asyncio
import logging
from collections import deque

from agents.clock import Clock, tick
from agents.health.procfs import ProcFiles
from agents.health.window import Health, Snapshot, compare

STEP_S, WINDOW_STEPS = 0.5, 2
# A window this long says nothing about a second: the machine slept, or this process did not get to run.
LONGEST_S = 3.0

log = logging.getLogger(__name__)


class HealthMonitor:
    """A window of a second that moves by half of one. What was read is understood only when somebody asks."""

    def __init__(self, files: ProcFiles, clock: Clock, *, ebpf: bool = False) -> None:
        self._files = files
        self._clock = clock
        self._ebpf = ebpf
        self._taken: deque[Snapshot] = deque(maxlen=WINDOW_STEPS + 1)
        self._told: str | None = None

    async def run(self) -> None:
        """Until cancelled."""
        loading = asyncio.create_task(self._load(), name="ebpf") if self._ebpf else None
        try:
            while True:
                self._taken.append(self._files.snapshot())
                await tick(self._clock, STEP_S)
        finally:
            if loading is not None:
                loading.cancel()
            self._files.close()

    def health(self) -> Health:
        """Of the last window; nothing is known before half a second has gone by."""
        if len(self._taken) < 2:  # noqa: PLR2004 - a window has two ends
            return Health(unknown=("nothing was read yet",))
        before, now = self._taken[0], self._taken[-1]
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
