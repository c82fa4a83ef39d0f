"""The files of `fleetbeat worker --config` and `fleetbeat archive --config`: what they and the command line come to."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import fleetbeat
from agents import check as agents_check
from schemas.checking import check_file
from schemas.kafka import SecuredBrokers
from schemas.secret_files import SecretFileError
from schemas.yaml_files import DocumentError
from streams import check
from streams.archive.options import ArchiveOptions, OptionsError
from streams.options import WorkerOptions
from streams.settings.archive import ARCHIVE_FILE, ARCHIVE_KEYS, ArchiveFile, archive_options
from streams.settings.load import load_file
from streams.settings.reload import Loaded, begin
from streams.settings.worker import WORKER_FILE, WORKER_KEYS, WorkerFile, worker_options

ROOT = Path(__file__).parents[2]

WORKER = """
kafka: {brokers: 'a:1,b:2'}
objectives: slos.yaml
state: kept
listen: 127.0.0.1:0
advertise: ME:8080
limits: {nodes_max: 10, nodes_new_per_minute: 5, series_max: 7}
stall_after_s: 9
live: [pay, ship]
signatures: require
signing_keys: keys.yaml
log_level: warning
"""
ARCHIVE = """
kafka: {brokers: 'a:1'}
store: kept
listen: 0.0.0.0:9
metrics: 127.0.0.1:7
keep: {heartbeats: 7d, probe_results: 30d}
cold_after: {probe_results: 2d}
sql_users: users.yaml
sql: {execution_s: 9}
batches: {wait_s: 2, most_bytes: 1000}
ready_lag_records: 5
log_level: error
"""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLEETBEAT_CLICKHOUSE", "FLEETBEAT_HISTORY", "FLEETBEAT_KAFKA_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def worker(folder: Path, text: str, **asked: object) -> WorkerOptions:
    path = folder / "worker.yaml"
    path.write_text(text, encoding="utf-8")
    return worker_options(asked, load_file(path, WORKER_FILE))


def archive(folder: Path, text: str, **asked: object) -> ArchiveOptions:
    path = folder / "archive.yaml"
    path.write_text(text, encoding="utf-8")
    return archive_options(asked, load_file(path, ARCHIVE_FILE))


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_workers_file_says_all_that_its_command_line_can_say(tmp_path: Path) -> None:
    assert worker(tmp_path, WORKER) == WorkerOptions(
        brokers="a:1,b:2",
        objectives=Path("slos.yaml"),
        listen="127.0.0.1:0",
        state=Path("kept"),
        nodes_max=10,
        nodes_new_per_minute=5,
        series_max=7,
        advertise="me:8080",
        stall_after_s=9,
        live=("pay", "ship"),
        signatures="require",
        signing_keys=Path("keys.yaml"),
        log_level="warning",
    )


def test_an_archives_file_says_all_that_its_command_line_can_say_and_more(tmp_path: Path) -> None:
    usual = ArchiveOptions("a:1")
    assert archive(tmp_path, ARCHIVE) == replace(
        usual,
        store=Path("kept"),
        listen="0.0.0.0:9",
        metrics="127.0.0.1:7",
        keep=("heartbeats=7d", "probe_results=30d"),
        cold_after=("probe_results=2d",),
        sql_users=Path("users.yaml"),
        sql=replace(usual.sql, execution_s=9),
        limits=replace(usual.limits, wait_s=2, bytes=1_000),
        ready_lag=5,
        log_level="error",
    )


def test_without_a_file_all_is_as_usual() -> None:
    assert worker_options({"objectives": Path("o")}, WorkerFile()) == WorkerOptions("127.0.0.1:19092", Path("o"))
    assert archive_options({}, ArchiveFile()) == ArchiveOptions("127.0.0.1:19092", store=Path(".fleetbeat/store"))


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ({"brokers": "c:3"}, {"brokers": "c:3"}),
        ({"objectives": Path("o")}, {"objectives": Path("o")}),
        ({"nodes_max": 3}, {"nodes_max": 3}),
        ({"live": ("other",)}, {"live": ("other",)}),
        ({"stall_after_s": 60.0}, {"stall_after_s": 60.0}),
    ],
)
def test_what_the_command_line_gives_counts_also_when_it_is_the_usual(
    tmp_path: Path, asked: dict[str, Any], instead: dict[str, Any]
) -> None:
    assert worker(tmp_path, WORKER, **asked) == replace(worker(tmp_path, WORKER), **instead)


def test_every_option_of_both_commands_can_stand_in_a_file() -> None:
    internal = {"group"}  # Kafka's access lists know it
    assert {field.name for field in fields(ArchiveOptions)} - internal == set(ARCHIVE_KEYS)
    assert {field.name for field in fields(WorkerOptions)} == set(WORKER_KEYS)
    for model, keys in ((WorkerFile, WORKER_KEYS), (ArchiveFile, ARCHIVE_KEYS)):
        assert {key.split(".")[0] for key in keys.values()} == set(model.model_fields)


def test_of_what_is_kept_each_table_counts_by_itself(tmp_path: Path) -> None:
    options = archive(tmp_path, ARCHIVE, keep=("heartbeats=1d", "dead_letters=9d"))
    assert options.keep == ("heartbeats=7d", "probe_results=30d", "heartbeats=1d", "dead_letters=9d")


SERVER = "clickhouse: {url: 'http://ch1:8123', cluster: fleet}\n"
URL = "http://other:secret@ch2:8123"


@pytest.mark.parametrize(
    ("text", "asked", "environment", "place"),
    [
        pytest.param(SERVER, {}, None, ("http://ch1:8123", None, "fleet"), id="the file's server"),
        pytest.param(SERVER, {}, URL, (URL, None, "fleet"), id="the environment knows the password"),
        pytest.param("clickhouse: {cluster: fleet}", {}, URL, (URL, None, "fleet"), id="and alone where it is"),
        pytest.param(SERVER, {"clickhouse": "http://ch3"}, URL, ("http://ch3", None, "fleet"), id="typed: a server"),
        pytest.param(SERVER, {"store": Path("s")}, URL, (None, Path("s"), None), id="typed: a store, no cluster"),
        pytest.param("store: kept", {}, None, (None, Path("kept"), None), id="the file's store"),
        pytest.param("store: kept", {}, URL, (URL, None, None), id="the environment before the file"),
        pytest.param("log_level: info", {}, None, (None, Path(".fleetbeat/store"), None), id="nobody says anything"),
    ],
)
def test_rows_go_where_the_first_says_that_says_anything(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    asked: dict[str, Any],
    environment: str | None,
    place: tuple[str | None, Path | None, str | None],
) -> None:
    if environment:
        monkeypatch.setenv("FLEETBEAT_CLICKHOUSE", environment)
    options = archive(tmp_path, text, **asked)
    assert (options.clickhouse, options.store, options.cluster) == place


def test_users_of_the_file_are_those_of_a_store(tmp_path: Path) -> None:
    assert archive(tmp_path, "sql_users: u.yaml", store=Path("s")).sql_users == Path("u.yaml")
    assert archive(tmp_path, "sql_users: u.yaml", clickhouse="http://ch").sql_users is None


def test_a_server_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="clickhouse: no url; expected one below that key, in --clickhouse, or in"):
        archive(tmp_path, "clickhouse: {cluster: fleet}")


def test_passwords_come_from_files_that_only_their_owner_can_read(tmp_path: Path) -> None:
    password = secret(tmp_path / "password", "p@ss/word\n")
    told = f"url: 'http://me@ch1:8123/', password_file: {password}"
    expected = "http://me:p%40ss%2Fword@ch1:8123/"
    assert worker(tmp_path, f"{{objectives: o, history: {{{told}}}}}").history == expected
    assert archive(tmp_path, f"clickhouse: {{{told}}}").clickhouse == expected
    password.chmod(0o644)
    with pytest.raises(SecretFileError, match=r"clickhouse\.password_file .*: mode 0644: others can get at it"):
        archive(tmp_path, f"clickhouse: {{{told}}}")


def test_the_past_is_asked_for_where_the_command_line_the_environment_or_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{objectives: o, history: {url: 'http://file:1'}}"
    assert worker(tmp_path, text).history == "http://file:1"
    monkeypatch.setenv("FLEETBEAT_HISTORY", "http://environment:1")
    assert worker(tmp_path, text).history == "http://environment:1"
    assert worker(tmp_path, text, history="http://typed:1").history == "http://typed:1"


def test_kafka_is_reached_as_the_file_says_or_the_file_that_it_names_or_the_command_line(tmp_path: Path) -> None:
    password = secret(tmp_path / "password", "x")
    secured = f"sasl: {{user: USER, password_file: {password}}}, tls: {{}}"
    (tmp_path / "kafka.yaml").write_text("{brokers: 'own:1', " + secured.replace("USER", "other") + "}")
    inline = f"{{objectives: o, kafka: {{brokers: 'k:1', {secured.replace('USER', 'inline')}}}}}"
    named = f"{{objectives: o, kafka: {{config: {tmp_path / 'kafka.yaml'}}}}}"

    def reached(text: str, **asked: object) -> tuple[str, str]:
        brokers = worker(tmp_path, text, **asked).brokers
        assert isinstance(brokers, SecuredBrokers)
        return brokers.addresses, brokers.security.principal

    assert reached(inline) == ("k:1", "User:inline")
    assert reached(inline, brokers="typed:1") == ("typed:1", "User:inline")
    assert reached(inline, kafka_config=tmp_path / "kafka.yaml") == ("k:1", "User:other")
    assert reached(named) == ("own:1", "User:other")
    assert reached(named.replace("config:", "brokers: 'k:1', config:")) == ("k:1", "User:other")


def test_the_command_line_wins_over_the_file_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def noted(options: object, config: Loaded[Any]) -> int:
        assert config.options is options
        asked.append(options)
        return 0

    monkeypatch.setattr("streams.app.run_worker", noted)
    monkeypatch.setattr("streams.archive.app.run_archive", noted)
    (tmp_path / "worker.yaml").write_text(WORKER)
    (tmp_path / "archive.yaml").write_text(ARCHIVE)
    assert fleetbeat.main(["worker", "--config", str(tmp_path / "worker.yaml"), "--nodes-max", "3"]) == 0
    assert fleetbeat.main(["archive", "--config", str(tmp_path / "archive.yaml"), "--metrics", "127.0.0.1:1"]) == 0
    assert asked == [
        replace(worker(tmp_path, WORKER), nodes_max=3),
        replace(archive(tmp_path, ARCHIVE), metrics="127.0.0.1:1"),
    ]


def test_a_version_is_what_sha256sum_says(tmp_path: Path) -> None:
    path = tmp_path / "worker.yaml"
    path.write_bytes(b"objectives: o\n")
    _, loaded = begin(path, WORKER_FILE, partial(worker_options, {}))
    assert loaded is not None
    assert loaded.version == "1217afb3aba4"


def test_what_is_unusual_in_yaml_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for text, said in (
        ("[1]", "expected a mapping"),
        ("", "0 documents; expected one"),
        ("a: b\n---\na: b", "2 docum"),
    ):
        with pytest.raises(DocumentError, match=said):
            worker(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("objectives: o\nkafka: {brokers: 'k:1'}\nlisten: 127.0.0.1:1", "a worker"),
        ("store: s\nkafka: {brokers: 'k:1'}\nlisten: 127.0.0.1:1\nmetrics: 127.0.0.1:1", "an archive"),
        ("node: {id: n}\nkafka: {brokers: 'k:1'}\nmetrics: {listen: null}", "an agent with 0 probes"),
        ("kafka: {brokers: 'k:1'}", "an agent with 0 probes"),
    ],
)
def test_a_file_is_known_by_the_keys_that_no_other_kind_has(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    assert _checked(path) == what


def test_a_file_is_of_the_kind_with_most_of_its_keys_and_not_of_the_first_with_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("node: {id: n}\nheartbeat: {interval_s: 1}\nstate: here\n")
    with pytest.raises(DocumentError, match=r"state: unknown key .* expected node, kafka, spool, heartbeat"):
        _checked(path)


def _checked(path: Path) -> str:
    return check_file(path, [lambda: check.KINDS, lambda: agents_check.KINDS])


def test_keys_by_which_servers_are_known_are_those_of_their_files_and_no_other_server_has_them() -> None:
    known = {kind.name: kind for kind in check.KINDS}
    for name, model in (("worker", WorkerFile), ("archive", ArchiveFile)):
        assert known[name].keys | known[name].shared == set(model.model_fields)
    assert not known["worker"].keys & known["archive"].keys


@pytest.mark.parametrize("model", [WorkerFile, ArchiveFile])
def test_every_key_is_explained_in_the_reference(model: type[BaseModel]) -> None:
    sections = {
        "kafka",
        "limits",
        "keep",
        "cold_after",
        "sql",
        "batches",
        "clickhouse",
    }  # these have texts of their own
    assert [name for name, key in model.model_fields.items() if not key.description and name not in sections] == []
