"""A running archive's file: what changes with it, what needs a restart, and that tables change all or not at all."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from streams.archive.options import ArchiveOptions
from streams.archive.passwords import PasswordHash
from streams.archive.reloading import ArchiveReloads
from streams.archive.retention import Age, age_of, ages, expiries
from streams.archive.storing import STORE_ERRORS
from streams.settings.archive import ARCHIVE_FILE, archive_options
from streams.settings.load import build_file
from streams.settings.reload import load


@pytest.fixture(autouse=True)
def _level_of_the_log_as_before() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@dataclass
class Rows:
    """What a statement finds."""

    result_rows: list[tuple[Any, ...]]


class Tables:
    """A server with the tables that expire; it knows no volume `cold`."""

    def __init__(self) -> None:
        self.ttl = {name: f"{expiry.at} + toIntervalDay({expiry.days})" for name, expiry in expiries().items()}
        self.refuses: str | None = None
        self.asked = 0

    def query(self, sql: str) -> Rows:
        self.asked += 1
        if "system.tables" in sql:
            return Rows([(name, f"CREATE TABLE x ORDER BY y TTL {ttl}", "default") for name, ttl in self.ttl.items()])
        if "system.storage_policies" in sql:
            return Rows([("default", ["default"])])
        return Rows([])

    def command(self, statement: str) -> None:
        found = re.fullmatch(r"ALTER TABLE telemetry\.(\w+) MODIFY TTL (.+) DELETE", statement)
        if found is None:
            return
        if found[1] == self.refuses:
            raise OSError("the server is away")
        self.ttl[found[1]] = re.sub(r"INTERVAL (\d+) DAY", r"toIntervalDay(\1)", found[2])

    def close(self) -> None:
        pass

    def ages(self) -> dict[str, Age]:
        return {name: age_of(f"CREATE TABLE x ORDER BY y TTL {ttl}") for name, ttl in self.ttl.items()}


class Followed:
    """Stands in for the archive, or for the address that answers SQL: what it was told last."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def follow(self, *told: object) -> None:
        self.told.append(told)


class World:
    """An archive's file, and what the archive would go by."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "archive.yaml"
        self.path.write_text(text)
        self.tables, self.archive, self.gateway = Tables(), Followed(), Followed()
        loaded = load(self.path, lambda content: archive_options({}, build_file(content, self.path, ARCHIVE_FILE)))
        self.reloads = ArchiveReloads(loaded, lambda: self.tables, self.archive)  # type: ignore[arg-type,return-value]
        self.reloads.gateway = self.gateway  # type: ignore[assignment]

    def read(self, content: bytes) -> ArchiveOptions:
        return archive_options({}, build_file(content, self.path, ARCHIVE_FILE))

    @property
    def nothing_changed(self) -> bool:
        return not self.archive.told and not self.gateway.told and self.tables.ages() == ages(())


Reload = Callable[[str], Awaitable[tuple[int, dict[str, Any]]]]
STORE = "store: kept\n"


def served(folder: Path, script: Callable[[World, Reload], Awaitable[None]], text: str = STORE) -> None:
    """Plays a script that may write the file and ask over HTTP for a reload."""

    async def play() -> None:
        world = World(folder, text)
        application = web.Application()
        application.add_routes([world.reloads.route()])
        async with TestClient(TestServer(application)) as client:

            async def reload(text: str) -> tuple[int, dict[str, Any]]:
                world.path.write_text(text)
                answer = await client.post("/-/reload")
                return answer.status, json.loads(await answer.read())

            assert (await reload(text))[0] == 503, "nothing is changed before the tables are there"
            running = asyncio.create_task(world.reloads.run(CollectorRegistry()))
            await asyncio.sleep(0)
            await script(world, reload)
            running.cancel()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_what_a_running_archive_can_change_is_taken_over(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        batches, sql = "batches: {wait_s: 5, most_bytes: 9}\n", "sql: {execution_s: 7}\n"
        keep, others = "keep: {heartbeats: 9d, probe_1m: 70d}\n", "ready_lag_records: 4\nlog_level: error\n"
        status, said = await reload(STORE + batches + sql + keep + others)
        assert (status, said["result"]) == (200, "applied")
        assert said["changed"] == ["batches", "keep", "log_level", "ready_lag_records", "sql"]
        usual = ArchiveOptions("")
        assert world.archive.told == [(replace(usual.limits, wait_s=5, bytes=9),)]
        assert world.gateway.told == [(replace(usual.sql, execution_s=7), None)]
        assert world.tables.ages() == ages(["heartbeats=9d", "probe_1m=70d"]) != ages(())
        assert world.reloads.options.ready_lag == 4
        assert logging.getLogger().level == logging.ERROR
        asked = world.tables.asked
        assert (await reload(STORE))[1]["changed"] == ["batches", "keep", "log_level", "ready_lag_records", "sql"]
        assert world.tables.ages() == ages(())
        assert world.tables.asked > asked

    served(tmp_path, script)


def test_tables_are_not_asked_when_nothing_about_them_has_changed(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        assert (await reload(STORE + "ready_lag_records: 4\nkeep: {heartbeats: 3d}\n"))[0] == 200
        assert world.tables.asked == 0

    served(tmp_path, script)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("store: other\nmetrics: 127.0.0.1:1\n", ["metrics", "store"]),
        (STORE + "listen: 127.0.0.1:1\nkafka: {brokers: 'b:1'}\n", ["kafka", "listen"]),
        (STORE + "sql: {running: 9, threads: 1}\nsql_users: users.yaml\n", ["sql.running", "sql_users"]),
        ("clickhouse: {url: 'http://c', cluster: f}\n", ["clickhouse", "clickhouse.cluster", "store"]),
    ],
)
def test_what_needs_a_restart_is_named_and_nothing_else_of_the_file_counts_either(
    tmp_path: Path, text: str, keys: list[str]
) -> None:
    async def script(world: World, reload: Reload) -> None:
        status, said = await reload(text + "keep: {heartbeats: 9d}\nbatches: {wait_s: 5}\n")
        assert (status, said["needs_restart"], world.nothing_changed) == (409, keys, True)

    served(tmp_path, script)


def test_a_bad_file_changes_nothing_and_tells_every_mistake(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        status, said = await reload("store: kept\nkeep: {heartbeats: 9}\nbatches: {wait_s: soon}\n")
        assert (status, [problem.removeprefix(str(world.path)) for problem in said["problems"]]) == (
            422,
            [
                ":2:8: keep.heartbeats: value 9: expected a valid string",
                ":3:11: batches.wait_s: value 'soon': expected a valid number, unable to parse string as a number",
            ],
        )
        assert world.nothing_changed

    served(tmp_path, script)


MORE = "keep: {heartbeats: 9d, request_counts: 20d}\nbatches: {wait_s: 5}\n"


def test_when_one_table_is_not_changed_the_others_are_changed_back(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        assert list(world.tables.ttl).index("heartbeats") < list(world.tables.ttl).index("request_counts")
        world.tables.refuses = "request_counts"
        status, said = await reload(STORE + MORE)
        assert (status, said["result"]) == (503, "failed")
        assert said["problems"] == [f"{world.path}: the store did not change its tables: the server is away"]
        assert world.nothing_changed
        world.tables.refuses = None
        assert (await reload(STORE + MORE))[0] == 200
        assert world.tables.ages() == ages(["heartbeats=9d", "request_counts=20d"])

    served(tmp_path, script)


def test_a_volume_that_the_server_does_not_have_refuses_the_file(tmp_path: Path) -> None:
    async def script(world: World, reload: Reload) -> None:
        status, said = await reload(STORE + MORE + "cold_after: {slo_windows: 9d}\n")
        assert (status, "no storage policy with the volumes cold, default" in said["problems"][0]) == (422, True)
        assert world.nothing_changed

    served(tmp_path, script)


def test_users_of_another_file_may_ask_and_an_unusable_one_keeps_those_of_before(tmp_path: Path) -> None:
    users = {name: tmp_path / f"{name}.yaml" for name in ("first", "second", "bad")}
    for name, path in users.items():
        path.write_text(f"users: {{{name}: {{password: '{PasswordHash.of('x') if name != 'bad' else 'y'}'}}}}")
        path.chmod(0o600)

    async def script(world: World, reload: Reload) -> None:
        assert (await reload(f"{STORE}sql_users: {users['second']}\n"))[1]["changed"] == ["sql_users"]
        ((limits, taken),) = world.gateway.told
        assert (limits, list(taken._users)) == (ArchiveOptions("").sql, ["second"])
        status, said = await reload(f"{STORE}sql_users: {users['bad']}\nkeep: {{heartbeats: 9d}}\n")
        assert (status, "users.bad.password: " in said["problems"][0]) == (422, True)
        assert (len(world.gateway.told), world.tables.ages()) == (1, ages(()))

    served(tmp_path, script, f"{STORE}sql_users: {users['first']}\n")


def test_what_a_store_refuses_is_among_what_is_tried_again() -> None:
    assert OSError in STORE_ERRORS
