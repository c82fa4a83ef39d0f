"""The file of --config of a process that runs: when it is read again, and that all of it counts or nothing."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from schemas.file_signature import Signature
from schemas.yaml_files import DocumentError
from streams.settings import reload as reloading
from streams.settings.reload import CannotApplyError, Outcome, Reload, Reloader, ReloadMetrics, answer, load
from tests.unit.waiting import until

KEYS = {"rows": "batches.rows", "level": "log_level", "brokers": "kafka"}


@dataclass(frozen=True)
class Options:
    """Of a process that can change all but its brokers."""

    rows: int
    level: str
    brokers: str


class AnOptionError(ValueError):
    """An option that cannot be meant."""


def read(content: bytes) -> Options:
    """Three words."""
    words = content.decode().split()
    if len(words) != 3:
        raise DocumentError([f"file:{place}:1: bad" for place in range(1, 3)])
    if words[1] == "loud":
        raise AnOptionError("--level: value 'loud'; expected another")
    return Options(int(words[0]), words[1], words[2])


def fixed(running: Options, wanted: Options) -> list[str]:
    return ["kafka"] if running.brokers != wanted.brokers else []


class World:
    """A file, and what was applied of it."""

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.path = path or folder / "server.yaml"
        if path is None:
            self.path.write_text("1 info here")
        self.applied: list[Options] = []
        self.trouble: Exception | None = None
        self.registry = CollectorRegistry()
        metrics = ReloadMetrics("worker", self.registry)
        self.reloader = Reloader(load(self.path, read), KEYS, fixed, self.apply, metrics)

    async def apply(self, running: Options, wanted: Options) -> None:
        assert running == ([Options(1, "info", "here"), *self.applied][-1])
        if self.trouble is not None:
            raise self.trouble
        self.applied.append(wanted)

    async def reload(self, text: str) -> Reload:
        self.path.write_text(text)
        return await self.reloader.reload()

    def metrics(self) -> dict[str, float]:
        samples = [sample for family in self.registry.collect() for sample in family.samples]
        found = {
            " ".join((s.name.removeprefix("fleetbeat_worker_config_"), *s.labels.values())): s.value for s in samples
        }
        return {name: value for name, value in found.items() if "created" not in name and "timestamp" not in name}

    def counts(self) -> dict[str, float]:
        found = {name.partition(" ")[2]: value for name, value in self.metrics().items() if "reloads_total" in name}
        return {outcome: value for outcome, value in found.items() if value}


def run(case: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(case, 60))


def test_a_good_file_is_applied_and_says_which_keys_have_changed(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        before = world.reloader._version
        found = await world.reload("2 debug here")
        assert (found.outcome, found.changed) == (Outcome.APPLIED, ("batches.rows", "log_level"))
        assert found.version != before
        assert world.applied == [Options(2, "debug", "here")]
        assert (await world.reload("2 debug here")).outcome is Outcome.UNCHANGED
        found = await world.reload("2  debug  here")
        assert (found.outcome, found.changed) == (Outcome.APPLIED, ()), "another version that means the same"
        assert len(world.applied) == 1
        assert world.metrics() == {
            f"info {found.version}": 1,
            "last_reload_successful": 1,
            "reloads_total applied": 2,
            "reloads_total unchanged": 1,
            "reloads_total refused": 0,
            "reloads_total needs_restart": 0,
            "reloads_total failed": 0,
        }

    run(case())


@pytest.mark.parametrize(
    ("text", "outcome", "told"),
    [
        pytest.param(
            "2 debug", Outcome.REFUSED, {"problems": ("file:1:1: bad", "file:2:1: bad")}, id="all mistakes are told"
        ),
        pytest.param(
            "2 loud here",
            Outcome.REFUSED,
            {"problems": ("PATH: --level: value 'loud'; expected another",)},
            id="an option",
        ),
        pytest.param("2 debug there", Outcome.NEEDS_RESTART, {"needs_restart": ("kafka",)}, id="and what else changed"),
    ],
)
def test_a_file_that_does_not_count_changes_nothing_at_all(
    tmp_path: Path, text: str, outcome: Outcome, told: dict[str, tuple[str, ...]]
) -> None:
    async def case() -> None:
        world = World(tmp_path)
        before = world.reloader._version
        with capture_logs() as logs:
            found = await world.reload(text)
        ((key, values),) = told.items()
        expected = tuple(value.replace("PATH", str(world.path)) for value in values)
        assert (found.outcome, found.version, answer(found)[key]) == (outcome, before, expected)
        assert str(answer(found)["error"]).endswith("that of before stays")
        assert world.applied == []
        assert str(expected) in str(logs)
        assert logs[0]["log_level"] in {"error", "warning"}
        assert world.metrics()["last_reload_successful"] == 0
        assert world.metrics()[f"info {before}"] == 1
        assert world.counts() == {outcome: 1}
        assert (await world.reload("1 info here")).outcome is Outcome.UNCHANGED, "what is in effect is there again"
        assert world.metrics()["last_reload_successful"] == 1
        assert (await world.reload("2 debug here")).outcome is Outcome.APPLIED

    run(case())


def test_a_file_that_is_gone_is_a_bad_file(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        world.path.unlink()
        found = await world.reloader.reload()
        assert (found.outcome, found.problems) == (
            Outcome.REFUSED,
            (f"{world.path}: no such file; expected a YAML file",),
        )

    run(case())


def test_what_cannot_be_applied_is_in_effect_in_no_part_and_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "RETRY_S", 0.05)

    async def case() -> None:
        world = World(tmp_path)
        world.trouble = CannotApplyError(["no such volume"])
        found = await world.reload("2 info here")
        assert (found.outcome, found.problems) == (Outcome.REFUSED, (f"{world.path}: no such volume",))
        world.trouble = ZeroDivisionError("a bug")
        assert (await world.reload("2 info here")).outcome is Outcome.REFUSED, "no reason to end a process"
        world.trouble = CannotApplyError(["the store is away"], again=True)
        watching = asyncio.create_task(world.reloader.watch())
        assert (await world.reload("2 info here")).outcome is Outcome.FAILED
        await until(lambda: world.counts().get("failed", 0) >= 2)
        assert world.applied == []
        world.trouble = None
        await until(lambda: world.applied == [Options(2, "info", "here")])
        watching.cancel()

    run(case())


def test_it_notices_writes_and_the_links_of_a_configmap_once_each(tmp_path: Path) -> None:
    async def case() -> None:
        for number in (1, 2):
            (tmp_path / f"..{number}").mkdir()
            (tmp_path / f"..{number}" / "server.yaml").write_text(f"{number} info here")
        (tmp_path / "..data").symlink_to("..1")
        (tmp_path / "link").symlink_to("..data/server.yaml")
        world = World(tmp_path, tmp_path / "link")
        watching = asyncio.create_task(world.reloader.watch())
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").replace(tmp_path / "..data")
        await until(lambda: len(world.applied) == 1)
        world.path.write_text("3 info here")
        await until(lambda: len(world.applied) == 2)
        await asyncio.sleep(3 * reloading.LOOK_EVERY_S)
        assert [options.rows for options in world.applied] == [2, 3]
        assert world.counts() == {"applied": 2}
        watching.cancel()

    run(case())


def test_a_file_that_is_being_written_is_let_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a file may be a good one, without what keeps rows from being deleted."""
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.05)

    async def case() -> None:
        world = World(tmp_path)
        watching = asyncio.create_task(world.reloader.watch())
        looks = [Signature(1, number, 1, number, number) for number in range(1, 6)]
        monkeypatch.setattr(reloading, "signature", lambda _: looks.pop(0) if len(looks) > 1 else looks[0])
        await until(lambda: len(looks) <= 2)
        assert world.counts() == {}, "another at every look"
        await until(lambda: world.counts() == {"unchanged": 1})
        watching.cancel()

    run(case())


def test_many_who_ask_at_once_get_one_look_each_in_turn(tmp_path: Path) -> None:
    async def case() -> None:
        world = World(tmp_path)
        world.path.write_text("2 info here")
        found = await asyncio.gather(*(world.reloader.reload() for _ in range(5)))
        assert [one.outcome for one in found] == [Outcome.APPLIED] + [Outcome.UNCHANGED] * 4

    run(case())
