"""The config of this host's agent in the stack: what the agent itself makes of it, and the addresses beside it."""

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from agents.config import load_agent
from agents.simulate.options import SimulateOptions, check
from infra.local.addresses import Addresses
from infra.local.agent import local_node_id, write_config
from infra.local.options import UpOptions, UpOptionsError
from infra.local.stack import hand_on_kafka_config
from infra.local.welcome import welcome
from schemas.kafka import Sasl, Security, Tls
from schemas.kafka.option import VARIABLE, reach
from schemas.listen import ListenAddress

WHERE = Addresses(
    kafka="127.0.0.1:19092",
    views="http://127.0.0.1:8080",
    sql="http://127.0.0.1:8123",
    archive_metrics="http://127.0.0.1:20001",
    agent_metrics="http://127.0.0.1:20002",
    node_id="local-my host",
)


def test_the_agent_takes_the_config_and_probes_the_stack(tmp_path: Path) -> None:
    write_config(tmp_path / "agent.yaml", WHERE, 2, tmp_path)
    config = load_agent(tmp_path / "agent.yaml")
    assert (config.node_id, config.id_from) == ("local-my host", "config")
    assert (config.region, config.zone, config.interval_s) == ("local", "local", 2.0)
    assert config.kafka.brokers == WHERE.kafka
    assert config.listen == ListenAddress("127.0.0.1", 20_002)
    assert [(probe.kind, probe.service) for probe in config.probes] == [
        ("tcp", "fleetbeat-kafka"),
        ("http", "fleetbeat-worker"),
        ("http", "fleetbeat-archive"),
        ("disk", "fleetbeat-disk"),
    ]


@pytest.mark.parametrize("brokers", ["kafka1:9092,kafka2:9093", "[::1]:9092"])
def test_brokers_may_be_several_or_have_an_address_of_ip_6(tmp_path: Path, brokers: str) -> None:
    write_config(tmp_path / "agent.yaml", replace(WHERE, kafka=brokers), 2, tmp_path)
    assert load_agent(tmp_path / "agent.yaml").kafka.brokers == brokers


def test_this_host_is_not_called_like_a_simulated_node() -> None:
    assert local_node_id().startswith("local-")


def test_the_welcome_shows_the_page_of_this_host() -> None:
    assert WHERE.node_page == "http://127.0.0.1:8080/api/v1/nodes/local-my%20host"
    assert f"  host    {WHERE.node_page} " in welcome(WHERE, Path("state"), 4711)


def test_a_check_has_short_intervals() -> None:
    assert UpOptions(check=True).heartbeat_every_s < UpOptions().heartbeat_every_s


def test_the_agent_logs_in_where_the_stack_does_and_a_broker_of_our_own_knows_no_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "brokers: k:9093\ntls: {ca_file: ca.pem}\nsasl: {user: all, password_file: p}\n"
    (tmp_path / "kafka.yaml").write_text(text, encoding="utf-8")
    write_config(tmp_path / "agent.yaml", WHERE, 2, tmp_path, tmp_path / "kafka.yaml")
    kafka = load_agent(tmp_path / "agent.yaml").kafka
    assert kafka.brokers == WHERE.kafka
    assert kafka.security() == Security(Tls(Path("ca.pem")), Sasl("SCRAM-SHA-512", "all", Path("p")))

    monkeypatch.setenv(VARIABLE, "elsewhere.yaml")
    hand_on_kafka_config(UpOptions(brokers="k:9093", kafka_config=tmp_path / "kafka.yaml"))
    assert os.environ[VARIABLE] == str(tmp_path / "kafka.yaml")
    hand_on_kafka_config(UpOptions(kafka_config=tmp_path / "kafka.yaml"))
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("option", "value", "good"),
    [
        ("nodes", 4_000_000, True),
        ("nodes", 4_000_001, False),
        ("nodes", 0, False),
        ("rate", 50_000_000, True),
        ("rate", 50_000_001, False),
        ("duration_s", 2_592_000.0, True),
        ("duration_s", float("inf"), False),
        ("duration_s", float("nan"), False),
        ("duration_s", 0.0001, False),
        ("seed", (1 << 64) - 1, True),
        ("seed", 1 << 64, False),
        ("seed", -1, False),
    ],
)
def test_what_the_fleet_would_refuse_is_refused_before_anything_starts(
    option: str, value: float, *, good: bool
) -> None:
    name = option.removesuffix("_s")
    with nullcontext() if good else pytest.raises(ValueError, match=f"^--{name} .*: expected "):
        check(SimulateOptions(reach("k:9092", None), **{option: value}))  # type: ignore[arg-type]
    with nullcontext() if good else pytest.raises(UpOptionsError, match=f"^--{name}: value .*; expected "):
        UpOptions(**{option: value})  # type: ignore[arg-type]
