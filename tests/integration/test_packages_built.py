"""The packed agent, built for real: it runs with an empty environment, away from this checkout and its Python."""

import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from agents.spool.layout import SEGMENT_HEADER_BYTES, Record, scan
from infra.packages.build import WORK, build
from schemas.codec import decode
from schemas.records import Heartbeat

pytestmark = [pytest.mark.long]

CONFIG = """
node: {{id: packed}}
kafka: {{brokers: "127.0.0.1:1"}}
spool: {{dir: {spool}}}
metrics: {{listen: null}}
probes:
  - {{name: web, service: s, every_s: 1, http: {{url: "http://127.0.0.1:1/", expect: {{body_regex: "a+"}}}}}}
  - {{name: name, service: s, every_s: 1, dns: {{name: localhost, server: 127.0.0.1, port: 1}}}}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(WORK, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def program(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the archive unpacks it."""
    folder = tmp_path_factory.mktemp("host")
    with tarfile.open(built[0]) as tar:
        tar.extractall(folder, filter="data")
    return folder / "fleetbeat-agent" / "fleetbeat"


def said(*command: str | Path) -> tuple[int, str]:
    answer = subprocess.run(
        command, cwd="/", env={}, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    return answer.returncode, answer.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG.format(spool=tmp_path / "spool"), encoding="utf-8")
    return path


def test_it_knows_its_version_and_what_is_not_for_hosts(program: Path) -> None:
    assert said(program, "version") == (0, "fleetbeat 0.1.0\n")
    for command in (["worker", "--objectives", "slos.yaml"], ["archive"], ["topics", "check"]):
        status, text = said(program, *command)
        assert (status, "is not in the agent's package" in text) == (2, True), text


def test_it_checks_a_config_and_runs_a_probe(program: Path, config: Path) -> None:
    assert said(program, "check", config) == (0, f"{config}: good, an agent with 2 probes\n")
    status, text = said(program, "probe", "web", "--config", config)
    assert (status, "down (refused)" in text) == (1, True), text
    status, text = said(program, "probe", "name", "--config", config)
    assert (status, "down" in text or "timeout" in text) == (1, True), text


def test_its_heartbeat_is_in_the_spool_while_there_is_no_kafka(program: Path, config: Path, tmp_path: Path) -> None:
    with subprocess.Popen([program, "agent", "--config", config], cwd="/", env={}, stderr=subprocess.DEVNULL) as agent:
        try:
            heartbeat = decode(_first(tmp_path / "spool", agent))
        finally:
            agent.kill()
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.node_id == "packed"


def test_the_deb_installs_what_runs(built: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "host"
    subprocess.run(["dpkg-deb", "--extract", built[1], root], check=True, timeout=60)
    assert said(root / "usr" / "bin" / "fleetbeat", "version") == (0, "fleetbeat 0.1.0\n")
    assert said(root / "usr" / "bin" / "fleetbeat", "check", root / "etc" / "fleetbeat" / "agent.yaml")[0] == 0


def test_nothing_names_a_folder_of_this_machine_where_libraries_are_looked_for(program: Path) -> None:
    dynamic = [
        line
        for path in program.parent.rglob("*.so*")
        for line in said("/usr/bin/objdump", "-p", path)[1].splitlines()
        if "RUNPATH" in line or "RPATH" in line
    ]
    assert [line for line in dynamic if "$ORIGIN" not in line] == []


def _first(spool: Path, agent: "subprocess.Popen[bytes]") -> bytes:
    """The first heartbeat, once it is in its file."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and agent.poll() is None:
        for path in spool.glob("*/heartbeats/*.segment"):
            for _, found in scan(path.read_bytes()[SEGMENT_HEADER_BYTES:]):
                if isinstance(found, Record):
                    return found.payload
        time.sleep(0.01)
    raise AssertionError(f"no heartbeat in {spool}")
