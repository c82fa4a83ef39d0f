"""A new config for an agent that runs: no run is lost or made twice, and what did not change does not notice."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.changes import compare, needs_restart
from agents.config import AgentFile, ProbeSpec
from agents.probes.base import Outcome, Settings, Up
from agents.schedule import Schedule, Skip, Timing, splay
from tests.unit.agent_fakes import NOW_MS, Answering, Hanging, settle, spec
from tests.unit.test_agent_run import Bench, running

NODE = "node-1"  # that of `running`


class Port(Settings):
    port: int


def built(name: str, port: int = 1, every_s: float = 10.0) -> ProbeSpec:
    """As from a file: the probe is another object each time."""
    return replace(spec(name, Answering(), every_s), settings=Port(port=port))


def test_probes_are_told_apart_by_what_they_were_built_from() -> None:
    before = {0: built("same"), 1: built("moved", 1), 2: built("gone"), 7: built("slower", every_s=10)}
    after = [built("new"), built("slower", every_s=20), built("moved", 2), built("same")]
    change = compare(before, after, free=8)
    assert (change.added, change.changed, change.removed) == (("new",), ("slower", "moved"), ("gone",))
    assert change.unchanged == 1
    assert [(place, one.name) for place, one in change.places.items()] == [
        (8, "new"),
        (9, "slower"),
        (10, "moved"),
        (0, "same"),
    ]
    assert change.places[0] is before[0], "it keeps its probe, and with that its state"
    assert change.successors == {9: 7, 10: 1}


def test_a_probe_that_was_not_built_from_a_file_is_another_one_when_it_is_another_object() -> None:
    probe = Answering()
    assert compare({0: spec("a", probe)}, [spec("a", probe)], free=1).unchanged == 1
    assert compare({0: spec("a", probe)}, [spec("a", Answering())], free=1).changed == ("a",)


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({}, []),
        ({"node": {"region": "x", "labels": {"a": "b"}}, "workers": 3, "heartbeat": {"interval_s": 1}}, []),
        ({"metrics": {"listen": None}, "queue": 1, "probes": []}, []),
        ({"node": {"id": "x", "zone": "y"}}, ["node.id"]),
        ({"kafka": {"brokers": "a:1", "compression": "zstd"}}, ["kafka.brokers", "kafka.compression"]),
        ({"spool": None}, ["spool"]),
        ({"spool": {"dir": "/a"}}, ["spool.dir"]),
    ],
)
def test_what_only_a_restart_can_bring_is_named(wanted: dict[str, object], fields: list[str]) -> None:
    assert list(needs_restart(AgentFile(), AgentFile.model_validate(wanted))) == fields


def test_a_schedule_keeps_the_times_of_what_stays_and_of_what_is_only_rebuilt() -> None:
    schedule = Schedule([Timing(10, 0.5), Timing(10, 0.2), Timing(10, 0.9)], now_s=0, wall_s=0)
    # The wall clock has been put 3 s ahead: whoever starts now starts by it.
    schedule.change({0: Timing(10, 0.5), 3: Timing(10, 0.2), 4: Timing(5, 0.9)}, {3: 1, 4: 2}, now_s=1, wall_s=4)
    found = []
    while (next_s := schedule.next_s()) is not None and next_s < 12:
        found += [(due.place, round(due.due_s, 6)) for due in schedule.due(next_s)]
    assert found == [(4, 1.5), (3, 2), (0, 5), (4, 6.5), (4, 11.5)]


NAMES = ("a", "b", "c", "d", "e")
PERIODS = (2.0, 3.0, 7.0)
sets_of_probes = st.dictionaries(st.sampled_from(NAMES), st.tuples(st.sampled_from(PERIODS), st.integers(1, 2)))


@given(steps=st.lists(st.tuples(sets_of_probes, st.integers(0, 9)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_however_often_the_config_changes_each_probe_runs_exactly_when_its_period_says(
    steps: list[tuple[dict[str, tuple[float, int]], int]],
) -> None:
    """Times are whole seconds and splays are not, so that nothing is due at the very moment of a change."""

    async def case() -> None:
        bench = Bench([])
        async with running(bench):
            for probes, seconds in steps:
                bench.prober.change([built(name, port, every) for name, (every, port) in probes.items()], 3, 10)
                await bench.clock.advance(seconds)
        assert Counter(name for name, _ in bench.reports) == expected(steps)
        assert not +bench.prober.skipped

    asyncio.run(case())


def expected(steps: Iterable[tuple[dict[str, tuple[float, int]], int]]) -> Counter[str]:
    """Runs by name, counted from the clock alone."""
    runs: Counter[str] = Counter()
    now_s = NOW_MS / 1_000
    for probes, seconds in steps:
        for name, (every_s, _) in probes.items():
            at_s = splay(NODE, name) * every_s
            runs[name] += int((now_s + seconds - at_s) // every_s) - int((now_s - at_s) // every_s)
        now_s += seconds
    return +runs


def test_what_was_due_before_the_change_is_run_and_what_runs_finishes() -> None:
    async def case() -> None:
        hanging, waiting = Hanging(), Answering()
        first, second = sorted(["a", "b"], key=lambda name: splay(NODE, name))
        bench = Bench([spec(first, hanging, timeout_s=1e6), spec(second, waiting)], workers=1)
        async with running(bench):
            await bench.clock.advance(10)
            assert (bench.prober.lineup.running, bench.prober.lineup.waiting) == (1, 1)
            change = bench.prober.change([], 1, 10)
            assert set(change.removed) == {"a", "b"}
            hanging.go.set()
            await bench.clock.advance(100)
            assert [name for name, _ in bench.reports] == [first, second]
            assert bench.prober.latest == {}, "nobody asks for what is gone"
            assert bench.prober.specs == ()

    asyncio.run(case())


def test_a_run_whose_time_went_by_while_the_agent_was_held_up_is_not_lost_to_the_change() -> None:
    async def case() -> None:
        late = Answering()
        bench = Bench([spec("a", late)])
        async with running(bench):
            bench.clock.now_s += 10
            bench.prober.change([], 1, 10)
            await settle()
        assert late.runs == 1

    asyncio.run(case())


def test_a_changed_probe_starts_anew_though_its_old_self_still_hangs() -> None:
    async def case() -> None:
        hanging, well = Hanging(), Answering()
        bench = Bench([spec("a", hanging, every_s=2, timeout_s=1e6)], workers=2)
        async with running(bench):
            await bench.clock.advance(4)
            assert bench.prober.skipped[Skip.RUNNING] == 1
            bench.prober.change([spec("a", well, every_s=2)], 2, 10)
            await bench.clock.advance(4)
            assert (hanging.runs, well.runs) == (1, 2)
            assert isinstance(bench.prober.latest["a"], Up)
            hanging.go.set()
            await bench.clock.advance(1)
            assert len(bench.reports) == 3
            assert isinstance(bench.prober.latest["a"], Up), "what the old one says late is not the new one's"

    asyncio.run(case())


def test_an_unchanged_probe_that_hangs_is_still_not_run_twice_at_once() -> None:
    async def case() -> None:
        hanging = Hanging()
        bench = Bench([spec("a", hanging, every_s=2, timeout_s=1e6)], workers=2)
        async with running(bench):
            await bench.clock.advance(3)
            for _ in range(10):
                bench.prober.change([spec("a", hanging, every_s=2, timeout_s=1e6)], 2, 10)
                await bench.clock.advance(2)
        assert hanging.runs == 1
        assert bench.prober.skipped[Skip.RUNNING] == 10

    asyncio.run(case())


class Gate:
    """A probe, of any number, that ends when the gate is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
        await self.opened.wait()
        return Up(0)

    def let_through(self) -> None:
        """Those who wait now."""
        self.opened.set()
        self.opened = asyncio.Event()


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1), (5, 5), (3, 2, 4, 1, 6)])
def test_there_are_as_many_workers_as_the_latest_config_says(sizes: tuple[int, ...]) -> None:
    async def case() -> None:
        gate = Gate()
        specs = [spec(f"probe-{number}", gate, timeout_s=1e6) for number in range(60)]
        bench = Bench(specs, workers=sizes[0], queue=100)
        async with running(bench):
            await bench.clock.advance(10)
            for workers in sizes:
                bench.prober.change(specs, workers, 100)
                await settle()
                assert bench.prober.lineup.running >= workers, "new ones begin at once, others when they are free"
                gate.let_through()
                await settle()
                assert bench.prober.lineup.running == workers

    asyncio.run(case())


def test_a_prober_that_does_not_run_yet_or_any_more_only_takes_note() -> None:
    async def case() -> None:
        bench, well = Bench([]), Answering()
        bench.prober.change([spec("a", well)], 1, 10)
        async with running(bench):
            await bench.clock.advance(10)
        assert well.runs == 1
        bench.prober.change([], 1, 10)
        await bench.clock.advance(100)
        assert well.runs == 1

    asyncio.run(case())
