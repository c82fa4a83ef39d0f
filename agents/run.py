"""Runs probes when they are due: one line, a fixed number of workers, a deadline for every run."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from agents.clock import Clock
from agents.config import ProbeSpec
from agents.failures import Failures, log_change
from agents.probes.base import Down, Outcome, Timeout, Up
from agents.probes.trace import traced
from agents.schedule import Lineup, Schedule, Skip, Timing, Turn, splay
from agents.spread import Spread
from agents.tracing import TraceFile, Tracer

# A probe ends by its deadline by contract: this is how long after it one is given up that does not.
GRACE_S = 0.5
CRASHED = "probe-crashed"
OVERDUE = "probe-overdue"
DELAYS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

log = logging.getLogger(__name__)

Report = Callable[[ProbeSpec, Outcome], Awaitable[object]]


class Prober:
    """The probes of this agent and how they fare. A worker ends its run by awaiting `report`."""

    def __init__(  # noqa: PLR0913 - what it runs, by which bounds, and for whom
        self,
        specs: Sequence[ProbeSpec],
        workers: int,
        queue: int,
        report: Report,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self.specs = specs
        self.workers = workers
        self.lineup = Lineup(queue)
        self.skipped: Counter[Skip] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.failures = Failures()
        self.latest: dict[str, Outcome] = {}
        self.delays = Spread(DELAYS_S)
        self.durations: dict[str, Spread] = {}
        self._report = report
        self._clock = clock
        self._tracer = tracer or Tracer(TraceFile())
        self._queued = asyncio.Semaphore(0)
        self._idle = asyncio.Event()

    async def run(self, node_id: str) -> None:
        """Keeps to the schedule until cancelled; runs that go on then are cancelled too."""
        timings = [Timing(spec.every_s, splay(node_id, spec.name)) for spec in self.specs]
        schedule = Schedule(timings, self._clock.monotonic_s(), self._clock.wall_ms() / 1_000)
        async with asyncio.TaskGroup() as group:
            self._hire(group)
            while (next_s := schedule.next_s()) is not None:
                await self._clock.sleep(next_s - self._clock.monotonic_s())
                for due in schedule.due(self._clock.monotonic_s()):
                    self.skipped[Skip.MISSED] += due.missed
                    self._offer(Turn(due.place, due.due_s))

    async def run_once(self) -> None:
        """Runs every probe once, now, and returns when all have ended."""
        async with asyncio.TaskGroup() as group:
            workers = self._hire(group)
            for place in range(len(self.specs)):
                self._offer(Turn(place, self._clock.monotonic_s()))
            if self.specs:
                await self._idle.wait()
            for worker in workers:
                worker.cancel()

    def _hire(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        return [group.create_task(self._work(), name=f"probe worker {number}") for number in range(self.workers)]

    def _offer(self, turn: Turn) -> None:
        skip = self.lineup.offer(turn)
        if skip is None:
            self._queued.release()
        else:
            self.skipped[skip] += 1

    async def _work(self) -> None:
        while True:
            await self._queued.acquire()
            turn = self.lineup.take()
            try:
                self.delays.add(self._clock.monotonic_s() - turn.due_s)
                await self._run(self.specs[turn.place])
            finally:
                self.lineup.finish(turn.place)
                if not self.lineup.waiting and not self.lineup.running:
                    self._idle.set()

    async def _run(self, spec: ProbeSpec) -> None:
        with traced(self._tracer.begin()):
            outcome = await run_probe(spec, self._clock)
            self.outcomes[spec.kind, outcome_name(outcome)] += 1
            self.failures.add(spec.kind, outcome)
            durations = self.durations.get(spec.kind)
            if durations is None:
                durations = self.durations[spec.kind] = Spread(DURATIONS_S)
            durations.add(outcome.latency_us / 1e6)
            before = self.latest.get(spec.name)
            self.latest[spec.name] = outcome
            if isinstance(outcome, Up) != (before is None or isinstance(before, Up)):
                log_change(spec, outcome)
            await self._report(spec, outcome)


async def run_probe(spec: ProbeSpec, clock: Clock) -> Outcome:
    """One run. A probe that breaks its contract, perhaps a plugin's, is Down: the agent goes on."""
    began_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(spec.timeout_s + GRACE_S) as limit:
            return await spec.probe.run(spec.timeout_s)
    except Exception as cause:  # a plugin may raise anything
        if limit.expired():
            reason, detail = OVERDUE, f"still ran {GRACE_S:g} s after its deadline of {spec.timeout_s:g} s"
        else:
            log.exception("a probe crashed", extra={"probe": spec.name, "kind": spec.kind})
            reason, detail = CRASHED, repr(cause)[:300]
    return Down(reason, detail, latency_us=round((clock.monotonic_s() - began_s) * 1_000_000))


def outcome_name(outcome: Outcome) -> str:
    """Up, down or timeout."""
    match outcome:
        case Up():
            return "up"
        case Down():
            return "down"
        case Timeout():
            return "timeout"
