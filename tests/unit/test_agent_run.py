"""Running probes: on time, each at most once at a time, with a bound on everything, and whatever they do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agents.config import ProbeSpec
from agents.probes.base import Down, Outcome, Up
from agents.run import CRASHED, DELAYS_S, OVERDUE, Prober, run_probe
from agents.schedule import Skip, splay
from agents.spread import Spread
from tests.unit.agent_fakes import Answering, Crashing, Hanging, ManualClock, settle, spec


class Bench:
    """A prober, its clock and what it reported."""

    def __init__(self, specs: list[ProbeSpec], workers: int = 4, queue: int = 10) -> None:
        self.clock = ManualClock()
        self.reports: list[tuple[str, Outcome]] = []
        self.prober = Prober(specs, workers, queue, self.report, self.clock)

    async def report(self, one: ProbeSpec, outcome: Outcome) -> None:
        self.reports.append((one.name, outcome))


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.prober.run("node-1"))
    await settle()
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_probe_runs_once_a_period() -> None:
    async def case() -> None:
        fast, slow = Answering(), Answering()
        bench = Bench([spec("fast", fast, every_s=2), spec("slow", slow, every_s=10)])
        async with running(bench):
            await bench.clock.advance(100)
        assert (fast.runs, slow.runs) == (50, 10)
        assert len(bench.reports) == 60
        assert bench.prober.outcomes == {("fake", "up"): 60}
        assert not +bench.prober.skipped

    asyncio.run(case())


def test_a_probe_that_still_runs_is_skipped_and_counted() -> None:
    async def case() -> None:
        hanging, well = Hanging(), Answering()
        bench = Bench([spec("hanging", hanging, every_s=1, timeout_s=1e6), spec("well", well, every_s=1)])
        async with running(bench):
            await bench.clock.advance(10)
            assert (hanging.runs, well.runs) == (1, 10)
            assert bench.prober.skipped[Skip.RUNNING] == 9
            hanging.go.set()
            await bench.clock.advance(1)
        assert hanging.runs == 2
        assert ("hanging", "refused") in [(name, getattr(outcome, "reason", "")) for name, outcome in bench.reports]

    asyncio.run(case())


def test_with_10_000_waiting_the_rest_is_dropped_and_counted_and_memory_is_bounded() -> None:
    async def case() -> None:
        hanging = Hanging()
        specs = [spec(f"probe-{number}", hanging, every_s=10, timeout_s=1e6) for number in range(10_700)]
        bench = Bench(specs, workers=100, queue=10_000)
        async with running(bench):
            await bench.clock.advance(10)
            assert bench.prober.lineup.running == 100
            assert bench.prober.lineup.waiting == 10_000
            assert bench.prober.skipped == {Skip.QUEUE_FULL: 600, Skip.MISSED: 0}
            hanging.go.set()
            await bench.clock.advance(0.1)
            for _ in range(20):
                await settle()
        assert hanging.runs >= 10_100
        assert bench.prober.lineup.waiting == 0

    asyncio.run(case())


def test_one_worker_runs_what_is_due_at_once_one_after_the_other_and_the_delay_is_counted() -> None:
    async def case() -> None:
        hanging = Hanging()
        first, second = sorted(["a", "b"], key=lambda name: splay("node-1", name))
        bench = Bench([spec(first, hanging, timeout_s=1e6), spec(second, Answering())], workers=1)
        async with running(bench):
            await bench.clock.advance(30)
            assert bench.reports == []
            hanging.go.set()
            await bench.clock.advance(0)
            assert [name for name, _ in bench.reports] == [first, second]
        assert bench.prober.delays.counts[-1] == 1  # the second waited for more than 5 s

    asyncio.run(case())


def test_delays_are_counted_at_their_bounds() -> None:
    delays = Spread(DELAYS_S)
    for delay_s in (0.0, *DELAYS_S, 60.0):
        delays.add(delay_s)
    assert delays.counts == [2, 1, 1, 1, 1, 1, 1]
    assert delays.sum_s == pytest.approx(sum(DELAYS_S) + 60)


def test_once_runs_every_probe_and_ends() -> None:
    async def case() -> None:
        probes = [Answering() for _ in range(50)]
        bench = Bench([spec(f"probe-{place}", probe) for place, probe in enumerate(probes)], workers=3, queue=100)
        await asyncio.wait_for(bench.prober.run_once(), 60)
        assert [probe.runs for probe in probes] == [1] * 50
        await asyncio.wait_for(Bench([]).prober.run_once(), 60)

    asyncio.run(case())


def test_a_probe_that_crashes_or_does_not_end_is_down_and_the_others_go_on() -> None:
    async def case() -> None:
        well = Answering()
        bench = Bench([spec("crashing", Crashing()), spec("well", well)])
        async with running(bench):
            await bench.clock.advance(30)
        assert well.runs == 3
        crashed = next(outcome for name, outcome in bench.reports if name == "crashing")
        assert isinstance(crashed, Down)
        assert (crashed.reason, crashed.detail) == (CRASHED, "ZeroDivisionError('within 5.0')")

        overdue = await run_probe(spec("hanging", Hanging(), timeout_s=0.01), bench.clock)
        assert isinstance(overdue, Down)
        assert (overdue.reason, overdue.detail) == (OVERDUE, "still ran 0.5 s after its deadline of 0.01 s")

    asyncio.run(case())


def test_a_prober_that_is_stopped_cancels_what_runs() -> None:
    async def case() -> None:
        cancelled = []

        class Watching:
            async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(True)
                    raise
                return Up(0)

        bench = Bench([spec("watching", Watching())])
        async with running(bench):
            await bench.clock.advance(10)
        assert cancelled == [True]

    asyncio.run(case())
