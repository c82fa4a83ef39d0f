"""Runs probes when they are due: one line, a fixed number of workers, a deadline for every run."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from agents.changes import Change, compare
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
        self.specs = tuple(specs)
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
        self._places = dict(enumerate(self.specs))
        self._ending: dict[int, ProbeSpec] = {}
        self._free_place = len(self.specs)
        self._queued = asyncio.Semaphore(0)
        self._idle = asyncio.Event()
        self._hired = 0
        self._dismissed = 0
        self._shift: _Shift | None = None

    async def run(self, node_id: str) -> None:
        """Keeps to the schedule until cancelled; runs that go on then are cancelled too."""
        schedule = Schedule((), 0, 0)
        try:
            async with asyncio.TaskGroup() as group:
                self._shift = _Shift(node_id, schedule, group)
                self._go_on(self._shift, {})
        finally:
            self._shift, self._hired = None, 0

    async def run_once(self) -> None:
        """Runs every probe once, now, and returns when all have ended."""
        async with asyncio.TaskGroup() as group:
            workers = self._hire(group)
            for place in self._places:
                self._offer(Turn(place, self._clock.monotonic_s()))
            if self.specs:
                await self._idle.wait()
            for worker in workers:
                worker.cancel()

    def change(self, specs: Sequence[ProbeSpec], workers: int, queue: int) -> Change:
        """Goes on with these probes, at once; what was due before is still run, and what runs finishes.

        An unchanged probe keeps its state and its times, any other its times when they are not what changed.
        """
        if self._shift is not None:
            self._line_up(self._shift.schedule)
        change = compare(self._places, specs, self._free_place)
        ended = self._places.keys() - change.places.keys()
        self._ending |= {place: self._places[place] for place in ended if self.lineup.holds(place)}
        for name in (*change.changed, *change.removed):
            self.latest.pop(name, None)
        self._places = dict(change.places)
        self._free_place = max(self._free_place, *self._places, -1) + 1
        self.specs = tuple(self._places.values())
        self.workers, self.lineup.limit = workers, queue
        if self._shift is not None:
            self._go_on(self._shift, change.successors)
        return change

    def _go_on(self, shift: "_Shift", successors: Mapping[int, int]) -> None:
        """Takes the time, and the workers, by what is to be run now."""
        timings = {place: Timing(spec.every_s, splay(shift.node_id, spec.key)) for place, spec in self._places.items()}
        shift.schedule.change(timings, successors, self._clock.monotonic_s(), self._clock.wall_ms() / 1_000)
        if shift.pacing is not None:
            shift.pacing.cancel()  # it sleeps: it never waits for anything but the next time
        shift.pacing = shift.group.create_task(self._keep_time(shift.schedule), name="probe times")
        self._hire(shift.group)

    async def _keep_time(self, schedule: Schedule) -> None:
        while (next_s := schedule.next_s()) is not None:
            await self._clock.sleep(next_s - self._clock.monotonic_s())
            self._line_up(schedule)

    def _line_up(self, schedule: Schedule) -> None:
        for due in schedule.due(self._clock.monotonic_s()):
            self.skipped[Skip.MISSED] += due.missed
            self._offer(Turn(due.place, due.due_s))

    def _hire(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Those that lack; of too many each goes when it is free."""
        for _ in range(self._hired - self.workers):
            self._dismissed += 1
            self._queued.release()
        hired = range(self._hired, self.workers)
        self._hired = self.workers
        return [group.create_task(self._work(), name=f"probe worker {number}") for number in hired]

    def _offer(self, turn: Turn) -> None:
        skip = self.lineup.offer(turn)
        if skip is None:
            self._queued.release()
        else:
            self.skipped[skip] += 1

    async def _work(self) -> None:
        while True:
            await self._queued.acquire()
            if self._dismissed:
                self._dismissed -= 1
                return
            turn = self.lineup.take()
            try:
                self.delays.add(self._clock.monotonic_s() - turn.due_s)
                await self._run(turn.place)
            finally:
                self.lineup.finish(turn.place)
                self._ending.pop(turn.place, None)
                if not self.lineup.waiting and not self.lineup.running:
                    self._idle.set()

    async def _run(self, place: int) -> None:
        spec = self._places.get(place) or self._ending[place]
        with traced(self._tracer.begin()):
            outcome = await run_probe(spec, self._clock)
            self._count(spec, outcome)
            if place in self._places:
                before = self.latest.get(spec.key)
                self.latest[spec.key] = outcome
                if isinstance(outcome, Up) != (before is None or isinstance(before, Up)):
                    log_change(spec, outcome)
            await self._report(spec, outcome)

    def _count(self, spec: ProbeSpec, outcome: Outcome) -> None:
        self.outcomes[spec.kind, outcome_name(outcome)] += 1
        self.failures.add(spec.kind, outcome)
        durations = self.durations.get(spec.kind)
        if durations is None:
            durations = self.durations[spec.kind] = Spread(DURATIONS_S)
        durations.add(outcome.latency_us / 1e6)


@dataclass(slots=True)
class _Shift:
    """What is there only while a prober runs."""

    node_id: str
    schedule: Schedule
    group: asyncio.TaskGroup
    pacing: asyncio.Task[None] | None = None


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
