"""The agent's file: what it may say, what it means, and the sentence for each mistake."""

import socket
from pathlib import Path

import pytest

import fleetbeat
from agents.config import NODE_ID, AgentConfig, load_agent
from agents.probes.base import ProbeKind, Settings
from schemas.documents import DocumentError
from schemas.listen import ListenAddress
from schemas.records import Label
from tests.unit.agent_fakes import Answering

WHOLE = """
node: {id: web-17, region: eu-1, zone: eu-1a, labels: {role: web}}
kafka: {brokers: "kafka1:9092,kafka2:9092", compression: zstd, buffer_records: 500, give_up_after_s: 30}
heartbeat: {interval_s: 5}
metrics: {listen: "[::1]:0"}
workers: 7
queue: 20
probes:
  - name: home
    service: shop
    endpoint: /
    every_s: 20
    timeout_s: 3
    impact: P1
    labels: {team: web}
    tcp: {host: 127.0.0.1, port: 80}
  - name: cache
    service: shop
    every_s: 2
    tcp: {host: 127.0.0.1, port: 6379}
"""


def load(tmp_path: Path, text: str) -> AgentConfig:
    (tmp_path / "agent.yaml").write_text(text, encoding="utf-8")
    return load_agent(tmp_path / "agent.yaml")


def test_a_file_means_what_it_says(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    assert (config.node_id, config.id_from, config.region, config.zone) == ("web-17", "config", "eu-1", "eu-1a")
    assert config.labels == (Label("role", "web"),)
    assert (config.kafka.brokers, config.kafka.compression) == ("kafka1:9092,kafka2:9092", "zstd")
    assert (config.kafka.buffer_records, config.kafka.give_up_after_s) == (500, 30)
    assert (config.interval_s, config.listen, config.workers, config.queue) == (5, ListenAddress("::1", 0), 2, 20)
    home, cache = config.probes
    assert (home.name, home.kind, home.service, home.endpoint) == ("home", "tcp", "shop", "/")
    assert (home.every_s, home.timeout_s, home.impact, home.labels) == (20, 3, "P1", (Label("team", "web"),))
    assert (cache.endpoint, cache.every_s, cache.timeout_s, cache.impact) == ("cache", 2, 2, None)


@pytest.mark.parametrize(
    ("given", "variable", "called", "by"),
    [
        pytest.param("{id: web-17}", "web-18", "web-17", "config", id="the file counts first"),
        pytest.param("{}", "web-18", "web-18", "FLEETBEAT_NODE_ID", id="then the environment"),
        pytest.param("{}", "", socket.gethostname(), "host name", id="an empty variable says nothing"),
    ],
)
def test_who_names_the_node(
    given: str, variable: str, called: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE_ID, variable)
    config = load(tmp_path, f"node: {given}\nprobes: []\n")
    assert (config.node_id, config.id_from) == (called, by)


def test_a_file_that_says_next_to_nothing_is_enough(tmp_path: Path) -> None:
    config = load(tmp_path, "probes: []\n")
    assert (config.node_id, config.id_from) == (socket.gethostname(), "host name")
    assert (config.region, config.zone, config.interval_s) == ("default", "default", 10)
    assert (config.kafka.brokers, config.listen) == ("127.0.0.1:19092", ListenAddress("127.0.0.1", 9118))
    assert load(tmp_path, "metrics: {listen: null}\n").listen is None


TWO = "probes:\n  - {name: a, service: s, tcp: {host: h, port: 1}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nod: {}\n", ":1:1: nod: unknown key (value {})"),
        ("node: {id: ''}\n", ":1:8: node.id: value '': 0 bytes; expected 1 to 255 bytes of printable text"),
        (
            'node: {zone: "a\\nb"}\n',
            ":1:8: node.zone: value 'a\\nb': 3 bytes; expected 1 to 255 bytes of printable text",
        ),
        (f"node: {{id: {'é' * 128}}}\n", ": 256 bytes; expected 1 to 255 bytes of printable text"),
        ("node: {labels: {1a: x}}\n", "node.labels.1a.[key]: value '1a': expected a letter or _, then letters,"),
        ("heartbeat: {interval_s: 0}\n", ":1:13: heartbeat.interval_s: value 0: expected greater than or equal to 0.1"),
        ("kafka: {brokers: kafka1}\n", ":1:9: kafka.brokers: value 'kafka1': 'kafka1'; expected HOST:PORT"),
        ("kafka: {compression: snappy}\n", ":1:9: kafka.compression: value 'snappy': expected 'lz4' or 'zstd'"),
        ("spool: {dir: ''}\n", ":1:9: spool.dir: value '': expected"),
        ("spool: {max_bytes: 1}\n", ":1:9: spool.max_bytes: value 1: expected greater than or equal to 1048576"),
        (
            "spool: {when_full: drop}\n",
            ":1:9: spool.when_full: value 'drop': expected 'drop_oldest', 'drop_newest' or 'block'",
        ),
        ("spool: {max_age_s: 0}\n", ":1:9: spool.max_age_s: value 0: expected greater than or equal to 1"),
        ("spool: {fsync: 1}\n", ":1:9: spool.fsync: unknown key (value 1)"),
        ("metrics: {listen: 9118}\n", ":1:11: metrics.listen: value 9118: expected a valid string"),
        (
            "metrics: {listen: host}\n",
            ":1:11: metrics.listen: value 'host': expected HOST:PORT, such as 127.0.0.1:8080",
        ),
        (TWO.replace("tcp", "tpc"), ":2:27: probes.0.tpc: unknown key (value"),
        (TWO.replace("tcp", "tpc"), "or a kind of probe: disk, dns, http, icmp, process, tcp, tls"),
        (TWO.replace("port: 1", "port: x"), ":2:42: probes.0.tcp.port: value 'x': expected"),
        (
            TWO.replace(", tcp: {host: h, port: 1}", ""),
            ":2:5: probes.0: value {'name': 'a', 'service': 's'}: has no kind",
        ),
        (TWO.replace("port: 1}", "port: 1}, disk: {path: /}"), "has the kinds disk and tcp; expected one: write two"),
        (TWO.replace("s, ", "s, every_s: 2, timeout_s: 3, ", 1), "timeout_s 3; expected at most every_s, 2"),
        (TWO.replace("s, ", "s, impact: P3, ", 1), "probes.0.impact: value 'P3': expected 'P0', 'P1' or 'P2'"),
        (TWO + TWO.splitlines()[1], ":3:6: probes.1.name: value 'a': expected each name once; line 2 has it"),
        ("probes: 3\n", ":1:1: probes: value 3: expected a valid list"),
        ("probes: [3]\n", ":1:10: probes.0: value 3: expected a mapping"),
        ("- 3\n", ":1:1: document: value [3]: expected a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, text)
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "agent.yaml"))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, WHOLE.replace("workers: 7", "workers: 0").replace("port: 80", "port: 0").replace("P1", "P9"))
    assert [problem.split(" ")[1] for problem in refused.value.problems] == [
        "workers:",
        "probes.0.impact:",
        "probes.0.tcp.port:",
    ]


class Refusing(Settings):
    much: int


def build_refusing(settings: Refusing) -> Answering:
    raise ValueError(f"much {settings.much}; expected less")


def test_a_plugin_may_have_any_name_and_refuse_what_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        "odd-kind": ProbeKind("odd-kind", Refusing, build_refusing),
        "schema": ProbeKind("schema", Refusing, lambda _: Answering()),
    }
    monkeypatch.setattr("agents.config.load.probe_kind", lambda name: kinds[name])
    config = load(tmp_path, "probes:\n  - {name: a, service: s, schema: {much: 3}}\n")
    assert config.probes[0].kind == "schema"
    with pytest.raises(DocumentError, match=r"agent.yaml:2:27: probes.0.odd-kind: much 3; expected less"):
        load(tmp_path, "probes:\n  - {name: a, service: s, odd-kind: {much: 3}}\n")


def test_500_probes_load(tmp_path: Path) -> None:
    entries = "".join(
        f"  - {{name: target-{n}, service: s{n % 7}, tcp: {{host: 127.0.0.1, port: {n + 1}}}}}\n" for n in range(500)
    )
    config = load(tmp_path, "probes:\n" + entries)
    assert len(config.probes) == 500
    assert config.workers == 500
    assert len({spec.name for spec in config.probes}) == 500


def test_check_knows_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(WHOLE, encoding="utf-8")
    assert fleetbeat.main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good, an agent with 2 probes\n"
    file.write_text(WHOLE.replace("workers: 7", "workers: 0"), encoding="utf-8")
    assert fleetbeat.main(["check", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}:6:1: workers: value 0: expected greater than or equal to 1\n"
