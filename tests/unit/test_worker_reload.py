"""A running worker's file: what changes with it, what needs a restart, and that nothing is half in effect."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from streams.config import load_objectives
from streams.core.liveness.admission import Limits
from streams.core.series import SeriesIndex
from streams.engine.partitioning import partition_share
from streams.options import WorkerOptions
from streams.processors.objectives_file import ObjectivesFile, load_file
from streams.processors.slo_parts import PLAIN, PartFolder
from streams.reloading import WorkerReloads, node_limits
from streams.settings.load import build_file
from streams.settings.reload import load
from streams.settings.worker import WORKER_FILE, worker_options
from streams.signing_keys import load_keyring, signatures_of
from streams.views.reload import reload_routes
from tests.integration.worker_process import Promise, write_objectives
from tests.unit.objectives_topic import Topic, played, worker


class World:
    """A worker's files, and what a worker would go by."""

    def __init__(self, folder: Path, topic: Topic, text: str = "", asked: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.topic = topic
        self.path = folder / "worker.yaml"
        self.slos = write_objectives(folder / "slos.yaml", [Promise("pay")])
        self.write(text)
        self.loaded = load(
            self.path, lambda content: worker_options(asked or {}, build_file(content, self.path, WORKER_FILE))
        )
        self.versions = worker(topic)
        self.adjusted: list[WorkerOptions] = []
        options = self.loaded.options
        self.signatures = signatures_of(options.signatures, options.signing_keys)
        objectives = ObjectivesFile(load_file(self.slos, load_objectives), self.versions, load_objectives)
        self.reloads = WorkerReloads(objectives, self.signatures, self.adjust, self.loaded, CollectorRegistry())

    def write(self, text: str, slos: Path | None = None) -> None:
        self.path.write_text(f"objectives: {slos or self.slos}\n{text}")

    async def adjust(self, options: WorkerOptions) -> None:
        self.adjusted.append(options)


def keys(folder: Path, name: str, key_id: int) -> Path:
    """A file of one signing key."""
    secret = folder / f"{name}.key"
    secret.write_bytes(f"{key_id:02x}".encode() * 32)
    secret.chmod(0o600)
    path = folder / f"{name}.yaml"
    path.write_text(f"keys: [{{id: {key_id}, file: {secret.name}}}]")
    return path


Answer = tuple[int, dict[str, Any]]
Reload = Callable[[], Awaitable[Answer]]
Script = Callable[[World, Reload], Awaitable[None]]


def served(folder: Path, script: Script, text: str = "", asked: dict[str, Any] | None = None) -> None:
    """Plays a script that may ask over HTTP for a reload."""

    async def play(topic: Topic) -> None:
        world = World(folder, topic, text, asked)
        await world.versions.offer(load_objectives(world.slos), 0)
        application = web.Application()
        application.add_routes(reload_routes(world.reloads.objectives, world.reloads.config))
        async with TestClient(TestServer(application)) as client:

            async def reload() -> Answer:
                answer = await client.post("/-/reload")
                return answer.status, json.loads(await answer.read())

            await script(world, reload)

    played(play)


def test_what_a_running_worker_can_change_is_taken_over(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        world.write("limits: {nodes_max: 9, series_max: 3}\nstall_after_s: 7\nlog_level: debug\n")
        status, said = await reload()
        assert (status, said["config"]["result"]) == (200, "applied")
        assert said["config"]["changed"] == ["limits.nodes_max", "limits.series_max", "log_level", "stall_after_s"]
        assert (said["announced"], said["objectives"]) == (False, 1)
        (options,) = world.adjusted
        assert (options.nodes_max, options.series_max, options.stall_after_s, options.log_level) == (9, 3, 7, "debug")
        assert (await reload())[1]["config"]["result"] == "unchanged"
        assert len(world.adjusted) == 1

    served(tmp_path, script)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("kafka: {brokers: 'elsewhere:1'}\nstate: other\nlisten: 127.0.0.1:1\n", ["kafka", "listen", "state"]),
        ("advertise: a:1\nlive: [pay]\nhistory: {url: 'http://c'}\n", ["advertise", "history", "live"]),
    ],
)
def test_what_needs_a_restart_is_named_and_nothing_else_of_the_file_counts_either(
    tmp_path: Path, text: str, keys: list[str]
) -> None:
    async def script(world: World, reload: Reload) -> None:
        write_objectives(world.slos, [Promise("pay"), Promise("ship")])
        world.write(text + "limits: {nodes_max: 9}\n")
        status, said = await reload()
        assert (status, said["needs_restart"], said["result"]) == (409, keys, "needs_restart")
        assert (world.adjusted, len(world.topic.records)) == ([], 1), "not even the objectives"

    served(tmp_path, script)


def test_what_the_command_line_gives_cannot_be_changed_by_the_file(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        world.write("listen: 127.0.0.1:7\nlimits: {nodes_max: 9}\n")
        status, said = await reload()
        assert (status, said["config"]["changed"]) == (200, [])
        assert world.adjusted == []

    served(tmp_path, script, asked={"listen": "127.0.0.1:5", "nodes_max": 4})


def test_another_file_of_objectives_is_announced_and_looked_at_from_then_on(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        other = write_objectives(tmp_path / "other.yaml", [Promise("pay"), Promise("ship")])
        world.write("limits: {nodes_max: 9}\n", other)
        status, said = await reload()
        assert (status, said["config"]["changed"], said["objectives"]) == (200, ["limits.nodes_max", "objectives"], 2)
        assert world.versions.timeline.newest == load_objectives(other)
        world.slos.write_text("no longer of interest")
        write_objectives(other, [Promise("ship")])
        assert (await reload())[1]["objectives"] == 1
        assert world.versions.timeline.newest == load_objectives(other)

    served(tmp_path, script)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        pytest.param("kind: Nothing", 422, "other.yaml:1:1: kind: value 'Nothing': not supported", id="bad"),
        pytest.param("", 503, "Kafka did not take the announcement: ", id="Kafka is away"),
        pytest.param(None, 422, "other.yaml: no such file; expected a YAML file", id="gone"),
    ],
)
def test_objectives_that_cannot_be_used_keep_all_of_the_config_before(
    tmp_path: Path, text: str | None, status: int, said: str
) -> None:
    async def script(world: World, reload: Reload) -> None:
        other = tmp_path / "other.yaml"
        if text is not None:
            write_objectives(other, [Promise("ship")])
            if text:
                other.write_text(text)
        world.write("limits: {nodes_max: 9}\n", other)
        world.topic.broken = status == 503
        found, answered = await reload()
        assert (found, said in answered["problems"][0]) == (status, True), answered
        world.topic.broken = False
        assert (world.adjusted, len(world.topic.records)) == ([], 1)
        world.write("")
        status_now, said_now = await reload()
        assert (status_now, said_now["objectives"]) == (200, 1), "the file of before is still the one that is looked at"

    served(tmp_path, script)


def test_a_live_objective_must_be_in_the_other_file_too(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        world.write("live: [pay]", write_objectives(tmp_path / "other.yaml", [Promise("ship")]))
        status, said = await reload()
        assert status == 422
        assert "--live: value 'pay': no such objective in" in said["problems"][0]
        assert len(world.topic.records) == 1

    served(tmp_path, script, "live: [pay]")


def test_signatures_become_required_and_keys_come_from_another_file(tmp_path: Path) -> None:

    async def script(world: World, reload: Reload) -> None:
        assert world.signatures is not None
        other = keys(tmp_path, "other", 2)
        world.write(f"signatures: require\nsigning_keys: {other}")
        assert (await reload())[1]["config"]["changed"] == ["signatures", "signing_keys"]
        assert (world.signatures.refuses, world.signatures.keyring) == (True, load_keyring(other))
        world.write(f"signatures: check\nsigning_keys: {tmp_path / 'nowhere.yaml'}")
        assert (await reload())[0] == 422
        assert (world.signatures.refuses, world.signatures.keyring) == (True, load_keyring(other))
        world.write("")
        assert (await reload())[1]["needs_restart"] == ["signatures"]

    served(tmp_path, script, f"signatures: check\nsigning_keys: {keys(tmp_path, 'own', 1)}")


def test_a_sighup_looks_at_both_files(tmp_path: Path) -> None:
    async def script(world: World, _: object) -> None:
        running = asyncio.create_task(world.reloads.run())
        world.write("stall_after_s: 5\n")
        write_objectives(world.slos, [Promise("ship")])
        world.reloads.tell()
        async with asyncio.timeout(60):
            while len(world.topic.records) < 2 or not world.adjusted:  # noqa: ASYNC110 - of two things
                await asyncio.sleep(0.01)
        assert world.adjusted[0].stall_after_s == 5
        running.cancel()

    served(tmp_path, script)


def test_a_bound_of_series_holds_for_tables_that_are_there_and_those_to_come() -> None:
    folder = PartFolder(SeriesIndex(), 5)
    there = folder.new_tables()
    folder.bound(2)
    namings = [tables[PLAIN].naming for tables in (there, folder.new_tables())]
    assert [naming.most for naming in namings if naming is not None] == [2, 2]


def test_bounds_of_nodes_are_shared_out_by_partition() -> None:
    assert node_limits(WorkerOptions("", Path(), nodes_max=1_000, nodes_new_per_minute=500), 4) == Limits(
        partition_share(1_000, 4), partition_share(500, 4)
    )
