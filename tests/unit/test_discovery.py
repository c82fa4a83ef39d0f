"""Looking for targets: what is found becomes probes, what fails changes nothing, and 10,000 are no trouble."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.config import load_agent
from agents.probes.base import Outcome, ProbeKind, Settings, Up
from agents.run import Prober
from agents.targets.discovery import Discovery
from agents.targets.groups import Found, Target
from agents.targets.probe import TargetedProbe
from agents.targets.sources import DiscoveryError, Source
from schemas.records import Label
from tests.unit.agent_fakes import ManualClock, settle


class FakeSettings(Settings):
    address: str


class FakeProbe:
    """Counts its runs; takes as long as the clock says."""

    clock: ManualClock
    took_s = 0.0
    running = most_running = 0

    def __init__(self, settings: FakeSettings) -> None:
        if settings.address == "refused":
            raise ValueError("address refused; expected another")
        self.runs = 0

    async def run(self, deadline_s: float) -> Outcome:  # noqa: ARG002 - part of the protocol
        cls = type(self)
        cls.running += 1
        cls.most_running = max(cls.most_running, cls.running)
        if self.took_s:
            await self.clock.sleep(self.took_s)
        self.runs += 1
        cls.running -= 1
        return Up(1)


KIND = ProbeKind("fake", FakeSettings, FakeProbe)


class Scripted:
    """A source that says one thing after the other, and the last for ever."""

    name = "scripted"

    def __init__(self, *says: Sequence[Target] | DiscoveryError) -> None:
        self.says = list(says)
        self.asked = 0

    async def find(self) -> Found:
        self.asked += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, DiscoveryError):
            raise said
        return Found(tuple(said))


@pytest.fixture(autouse=True)
def fake_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.config.load.probe_kind", lambda _: KIND)
    monkeypatch.setattr(FakeProbe, "took_s", 0.0)
    monkeypatch.setattr(FakeProbe, "most_running", 0)


def targeted(folder: Path, *names: str, rest: str = "refresh_s: 10", every_s: float = 10) -> Sequence[TargetedProbe]:
    common = f'service: s, every_s: {every_s}, targets: {{list: [x], {rest}}}, fake: {{address: "{{target}}"}}'
    path = folder / "agent.yaml"
    path.write_text("probes:\n" + "".join(f"  - {{name: {name}, {common}}}\n" for name in names), encoding="utf-8")
    return load_agent(path).targeted


class Bench:
    """A discovery whose probes have these sources, by name."""

    def __init__(self, probes: Sequence[TargetedProbe], **sources: Sequence[Source]) -> None:
        self.clock = ManualClock()
        self.changes = 0
        self.discovery = Discovery(probes, self.changed, self.clock, lambda probe: sources[probe.name])

    def changed(self) -> None:
        self.changes += 1

    def addresses(self) -> list[str]:
        return [spec.endpoint for spec in self.discovery.specs]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.discovery.run())
        await settle()
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def some(*addresses: str) -> list[Target]:
    return [Target(address) for address in addresses]


GONE = DiscoveryError("nobody there")


def test_targets_come_and_go_and_those_that_stay_keep_their_probe(tmp_path: Path) -> None:
    async def main() -> None:
        source = Scripted(some("a", "b"), some("a", "b"), some("b", "c"))
        bench = Bench(targeted(tmp_path, "p"), p=[source])
        async with bench.running():
            assert (bench.addresses(), bench.changes) == (["a", "b"], 1)
            kept = bench.discovery.specs[1]
            await bench.clock.advance(10)
            assert (source.asked, bench.changes) == (2, 1)
            await bench.clock.advance(10)
            assert (bench.addresses(), bench.changes) == (["b", "c"], 2)
            assert bench.discovery.specs[0] is kept

    asyncio.run(main())


def test_a_source_that_fails_keeps_what_it_had_and_is_counted_while_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        failing, well = Scripted(some("a"), GONE), Scripted(some("b"), some("c"))
        bench = Bench(targeted(tmp_path, "p"), p=[failing, well])
        async with bench.running():
            for _ in range(3):
                await bench.clock.advance(10)
        assert bench.addresses() == ["a", "c"]
        figures = bench.discovery.figures()["p"]
        assert (figures.targets, figures.refreshes, figures.failures) == (2, 4, 3)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert [(record.getMessage(), vars(record)["reason"]) for record in caplog.records] == [
        ("targets cannot be found; those found before stay", "nobody there")
    ] * 3


def test_too_many_targets_are_none_and_those_of_before_stay(tmp_path: Path) -> None:
    async def main() -> None:
        source = Scripted(some("a"), some("b", "c", "d"), some("b", "c"))
        bench = Bench(targeted(tmp_path, "p", rest="refresh_s: 10, max_targets: 2"), p=[source])
        async with bench.running():
            await bench.clock.advance(10)
            assert (bench.addresses(), bench.discovery.figures()["p"].failures) == (["a"], 1)
            await bench.clock.advance(10)
            assert (bench.addresses(), bench.discovery.figures()["p"].failures) == (["b", "c"], 1)

    asyncio.run(main())


def test_a_target_that_does_not_fit_is_refused_and_counted_and_labels_make_another_probe(tmp_path: Path) -> None:
    async def main() -> None:
        source = Scripted([Target("a"), Target("refused")], [Target("a", (Label("k", "v"),))])
        bench = Bench(targeted(tmp_path, "p"), p=[source])
        async with bench.running():
            assert (bench.addresses(), bench.discovery.figures()["p"].refused) == (["a"], 1)
            await bench.clock.advance(10)
            assert [spec.labels for spec in bench.discovery.specs] == [(Label("k", "v"),)]
            assert bench.discovery.figures()["p"].refused == 0

    asyncio.run(main())


def test_once_waits_for_all_sources_and_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(targeted(tmp_path, "p", "q"), p=[Scripted(GONE)], q=[Scripted(some("a"))])
        await bench.discovery.run_once()
        assert bench.addresses() == ["a"]

    asyncio.run(main())


def test_a_new_config_keeps_the_targets_of_what_it_does_not_change(tmp_path: Path) -> None:
    async def main() -> None:
        sources: dict[str, Any] = {name: [Scripted(some(f"{name}1"))] for name in "pqr"}
        bench = Bench(targeted(tmp_path, "p", "q"), **sources)
        async with bench.running():
            kept = bench.discovery.specs[0]
            sources["p"][0].says = [GONE]
            bench.discovery.change(targeted(tmp_path, "p", "r"))
            assert bench.addresses() == ["p1"]
            await settle()
            assert bench.addresses() == ["p1", "r1"]
            assert bench.discovery.specs[0] is kept
            asked = sources["q"][0].asked
            await bench.clock.advance(30)
            assert sources["q"][0].asked == asked
            bench.discovery.change(targeted(tmp_path, "p", every_s=5))  # other runs of the same targets
            await settle()
            assert [(spec.endpoint, spec.every_s) for spec in bench.discovery.specs] == [("p1", 5)]

    asyncio.run(main())


def test_10_000_targets_of_one_agent_run_once_a_period_with_few_workers(tmp_path: Path) -> None:
    async def main() -> None:
        targets = some(*(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:443" for n in range(10_000)))
        bench = Bench(targeted(tmp_path, "p", rest="refresh_s: 3600", every_s=100), p=[Scripted(targets)])
        FakeProbe.clock, FakeProbe.took_s = bench.clock, 0.5
        await bench.discovery.run_once()
        assert len({spec.key for spec in bench.discovery.specs}) == 10_000
        reported: list[str] = []

        async def report(spec: Any, _: Outcome) -> None:  # noqa: ANN401 - a ProbeSpec
            reported.append(spec.endpoint)

        prober = Prober(bench.discovery.specs, workers=100, queue=10_000, report=report, clock=bench.clock)
        running = asyncio.create_task(prober.run("node-1"))
        await settle()
        # 100 probes/s of 0.5 s each: half of the workers have something to do, and none of the targets waits.
        for _ in range(1_000):
            await bench.clock.leap(0.1)
        running.cancel()
        assert len(reported) >= 9_900
        assert len(set(reported)) == len(reported)
        assert not +prober.skipped
        assert sum(prober.delays.counts[3:]) == 0  # more than 0.1 s after its time
        assert FakeProbe.most_running <= 100

    asyncio.run(main())
