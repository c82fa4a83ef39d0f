"""`fleetbeat agent` from its command line: light to load, and the same options whichever door they come through."""

import subprocess
import sys
from pathlib import Path

import pytest

import agents.app
import fleetbeat_commands
from agents.app import AgentOptions, OptionError, parse_options, run_agent

ROOT = Path(__file__).parents[2]
# Too heavy for what starts on every host, or of no use there. prometheus_client comes when metrics are asked for.
NOT_LOADED = {
    "aiohttp",
    "agents.health.kernel_events",
    "ctypes",
    "cyclopts",
    "dns",
    "faust",
    "http.server",
    "numpy",
    "polars",
    "prometheus_client",
    "pyarrow",
    "rich",
    "structlog",
}
CONFIG = """
metrics: {listen: "127.0.0.1:0"}
kafka: {brokers: "127.0.0.1:1"}
probes:
  - {name: port, service: s, tcp: {host: 127.0.0.1, port: 1}}
  - {name: ports, service: s, targets: {list: ["127.0.0.1:1"]}, tcp: {host: "{host}", port: "{port}"}}
"""


def test_a_running_agent_has_loaded_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIG, encoding="utf-8")
    code = (
        "import sys, agents.app, fleetbeat\n"
        "agents.app.FLUSH_S = 0.01\n"
        "status = fleetbeat.main(sys.argv[1:])\n"
        "print(status, *sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "agent", "--once", "--config", str(tmp_path / "agent.yaml")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    status, *loaded = answer.stdout.split()
    assert status == "1"  # there is no Kafka
    assert {"aiokafka", "agents.kafka", "agents.probes.tcp"} <= set(loaded)
    assert set(loaded) & NOT_LOADED == set()
    assert {name for name in loaded if name.startswith(("streams", "infra"))} == set()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--config a.yaml", AgentOptions(Path("a.yaml"))),
        ("--config=a.yaml --once", AgentOptions(Path("a.yaml"), once=True)),
        ("--brokers k1:9092,k2:9092 --config a.yaml", AgentOptions(Path("a.yaml"), "k1:9092,k2:9092")),
    ],
)
def test_the_quick_way_and_the_documented_way_understand_the_same(
    monkeypatch: pytest.MonkeyPatch, arguments: str, options: AgentOptions
) -> None:
    got: list[AgentOptions] = []

    def keep(options: AgentOptions) -> int:
        got.append(options)
        return 0

    monkeypatch.setattr(agents.app, "run_agent", keep)
    assert fleetbeat_commands.run(["agent", *arguments.split()]) == 0
    assert [parse_options(arguments.split())] == got == [options]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "required: --config"),
        ("--config", "argument --config: expected one argument"),
        ("--config a.yaml --conf b", "unrecognized arguments: --conf b"),
        ("--config a.yaml b.yaml", "unrecognized arguments: b.yaml"),
    ],
)
def test_what_it_does_not_understand_is_refused_by_name(arguments: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_options(arguments.split())


def test_brokers_that_are_no_addresses_are_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(OptionError, match="--brokers: 'kafka1'; expected HOST:PORT, several separated by commas"):
        run_agent(AgentOptions(tmp_path / "agent.yaml", "kafka1"))
