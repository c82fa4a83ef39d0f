"""The agent's file while the agent runs: when it is read again, and what comes of it."""

import asyncio
import json
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agents.changes import Change, compare
from agents.config import AgentConfig
from agents.file_watch import LOOK_EVERY_S, MISSING_LOOKS, MOST_LOOKS, Watched
from agents.reload import CannotApplyError, Reload, Reloader, Result, answer, load_file
from agents.reload_metrics import reload_families
from schemas.file_signature import Signature, signature
from tests.unit.agent_fakes import NOW_MS, ManualClock
from tests.unit.waiting import until

GOOD = "node: {id: n, region: one}\nworkers: 3\n"
BETTER = GOOD.replace("one", "two")
BAD = GOOD.replace("workers: 3", "workers: many\nqueue: 0")


class World:
    """A file, and what was applied of it."""

    def __init__(self, folder: Path, ignored: tuple[str, ...] = ()) -> None:
        self.path = folder / "agent.yaml"
        self.path.write_text(GOOD, encoding="utf-8")
        self.clock = ManualClock()
        self.applied: list[tuple[str, str]] = []
        self.trouble: Exception | None = None
        self.loaded = load_file(self.path)
        self.reloader = Reloader(self.loaded, self.apply, self.clock, ignored)

    async def apply(self, config: AgentConfig, version: str) -> Change:
        if self.trouble is not None:
            raise self.trouble
        self.applied.append((config.region, version))
        return compare({}, config.probes, 0)

    async def reload(self, text: str) -> Reload:
        self.path.write_text(text, encoding="utf-8")
        self.clock.now_s += 1
        return await self.reloader.reload()

    def metrics(self) -> dict[str, float]:
        samples = [sample for family in reload_families(self.reloader.figures) for sample in family.samples]
        return {" ".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


def run(case: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(case, 60))


def test_a_good_file_is_applied_under_the_version_that_sha256sum_says(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        outcome = await world.reload(BETTER)
        assert (outcome.result, outcome.version) == (Result.APPLIED, "31533d680fc0")
        assert world.applied == [("two", "31533d680fc0")]
        assert (await world.reload(BETTER)).result is Result.UNCHANGED
        assert len(world.applied) == 1
        assert world.metrics() == {
            "fleetbeat_agent_config_info 31533d680fc0": 1,
            "fleetbeat_agent_config_last_reload_successful": 1,
            "fleetbeat_agent_config_last_reload_success_timestamp_seconds": NOW_MS / 1_000 + 2,
            "fleetbeat_agent_config_fields_waiting_for_restart": 0,
            "fleetbeat_agent_config_reloads_total applied": 1,
            "fleetbeat_agent_config_reloads_total unchanged": 1,
            "fleetbeat_agent_config_reloads_total refused": 0,
        }

    run(case())


def test_a_bad_file_changes_nothing_and_every_mistake_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def case() -> None:
        world = World(tmp_path)
        with caplog.at_level(logging.INFO):
            outcome = await world.reload(BAD)
        assert outcome.result is Result.REFUSED
        assert outcome.version == world.loaded.config.version
        assert [problem.removeprefix(str(world.path)) for problem in outcome.problems] == [
            ":2:1: workers: value 'many': expected a valid integer, unable to parse string as an integer",
            ":3:1: queue: value 0: expected greater than or equal to 1",
        ]
        assert json.loads(json.dumps(answer(outcome)))["problems"] == list(outcome.problems)
        assert vars(caplog.records[-1])["problems"] == outcome.problems
        assert world.applied == []
        assert world.metrics()["fleetbeat_agent_config_last_reload_successful"] == 0
        assert world.metrics()["fleetbeat_agent_config_last_reload_success_timestamp_seconds"] == NOW_MS / 1_000
        assert (await world.reload(BAD)).problems == outcome.problems, "who asks again is told again"
        assert (await world.reload(GOOD)).result is Result.APPLIED
        assert world.metrics()["fleetbeat_agent_config_last_reload_successful"] == 1

    run(case())


def test_what_needs_a_restart_is_named_until_the_file_no_longer_asks_for_it(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        outcome = await world.reload(BETTER.replace("id: n", "id: m") + "kafka: {brokers: 'k:1'}\n")
        assert outcome.restart == ("kafka.brokers", "node.id")
        assert outcome.version.endswith("+restart")
        assert world.applied == [("two", outcome.version)]
        assert world.metrics()["fleetbeat_agent_config_fields_waiting_for_restart"] == 2
        assert answer(outcome)["needs_restart"] == ("kafka.brokers", "node.id")
        assert (await world.reload(BETTER)).restart == ()
        assert world.metrics()["fleetbeat_agent_config_fields_waiting_for_restart"] == 0

    run(case())


def test_what_the_command_line_gives_no_restart_would_change(tmp_path: Path) -> None:
    async def case() -> None:
        outcome = await World(tmp_path, ("kafka.brokers",)).reload(GOOD + "kafka: {brokers: 'k:1'}\n")
        assert outcome.restart == ()

    run(case())


@pytest.mark.parametrize("trouble", [CannotApplyError("metrics.listen 127.0.0.1:1: no"), ZeroDivisionError("oh")])
def test_what_the_machine_or_a_plugin_refuses_changes_nothing_and_is_tried_again(
    tmp_path: Path, trouble: Exception
) -> None:
    async def case() -> None:
        world = World(tmp_path)
        world.trouble = trouble
        outcome = await world.reload(BETTER)
        assert outcome.result is Result.REFUSED
        assert str(trouble) in outcome.problems[0]
        world.trouble = None
        assert (await world.reload(BETTER)).result is Result.APPLIED

    run(case())


def test_a_file_that_is_gone_is_a_bad_file_until_it_is_back(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        world.path.unlink()
        outcome = await world.reloader.reload()
        assert outcome.problems == (f"{world.path}: no such file; expected a YAML file",)
        assert (await world.reload(GOOD)).result is Result.APPLIED
        assert world.metrics()["fleetbeat_agent_config_last_reload_successful"] == 1

    run(case())


def test_many_who_ask_at_once_get_one_look_each_in_turn(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        world.path.write_text(BETTER, encoding="utf-8")
        outcomes = await asyncio.gather(*(world.reloader.reload() for _ in range(20)))
        assert [outcome.result for outcome in outcomes] == [Result.APPLIED] + [Result.UNCHANGED] * 19

    run(case())


def test_it_notices_writes_editors_that_rename_and_the_links_of_a_configmap(tmp_path: Path) -> None:
    async def case() -> None:
        # As kubelet does it: the file is a link into ..data, which is a link to the folder of this version.
        for number in (1, 2):
            (tmp_path / f"..{number}").mkdir()
            (tmp_path / f"..{number}" / "agent.yaml").write_text(GOOD.replace("one", f"map-{number}"))
        (tmp_path / "..data").symlink_to("..1")
        world = World(tmp_path)
        task = asyncio.create_task(world.reloader.run())
        world.path.write_text(GOOD.replace("one", "written"))
        await until(lambda: len(world.applied) == 1)
        (tmp_path / "new").write_text(GOOD.replace("one", "renamed"))
        (tmp_path / "new").replace(world.path)
        await until(lambda: len(world.applied) == 2)
        (tmp_path / "link").symlink_to("..data/agent.yaml")
        (tmp_path / "link").replace(world.path)
        await until(lambda: len(world.applied) == 3)
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").replace(tmp_path / "..data")
        await until(lambda: len(world.applied) == 4)
        os.utime(world.path)
        await asyncio.sleep(3 * LOOK_EVERY_S)
        world.reloader.tell()
        await until(lambda: world.metrics()["fleetbeat_agent_config_reloads_total unchanged"] == 1)
        assert [region for region, _ in world.applied] == ["written", "renamed", "map-1", "map-2"]
        assert world.reloader.figures.counts == {Result.APPLIED: 4, Result.UNCHANGED: 1}, "a touch is no change"
        task.cancel()

    run(case())


def test_a_signature_differs_after_a_write_a_rename_and_behind_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to(path)
    seen = [signature(link)]
    path.write_text("1")
    seen.append(signature(link))
    (tmp_path / "b").write_text("2")
    (tmp_path / "b").replace(path)
    seen.append(signature(link))
    assert seen[0] is None
    assert len(set(seen)) == 3


A, B, C, D, E = (Signature(1, number, 1, 1, 1) for number in range(5))


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        pytest.param([A, A, A], [], id="nothing happens"),
        pytest.param([B, B, B, B], [1], id="told once, when it has looked the same twice"),
        pytest.param([B, C, C, C], [2], id="half written, then whole"),
        pytest.param([B, C, D, E, B], [MOST_LOOKS - 1], id="never at rest: told all the same"),
        pytest.param([B, A, B, A], [], id="back to what it was"),
        pytest.param([None, None, B, B], [3], id="an editor takes it away for a moment"),
        pytest.param([None] * 20, [MISSING_LOOKS - 1], id="gone: told once"),
        pytest.param([None] * MISSING_LOOKS + [A, A], [MISSING_LOOKS - 1, MISSING_LOOKS + 1], id="gone, and back"),
    ],
)
def test_a_file_is_read_when_it_is_another_and_at_rest(looks: list[Signature | None], told: list[int]) -> None:
    watched = Watched(A)
    assert [number for number, seen in enumerate(looks) if watched.look(seen)] == told


def test_a_change_is_looked_at_within_a_second_though_it_never_comes_to_rest() -> None:
    assert MOST_LOOKS * LOOK_EVERY_S < 1
