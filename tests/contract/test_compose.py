"""infra/compose.yaml: valid, pinned, on loopback only, without a default password, in step with fleetbeat itself."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fleetbeat
from agents.config import load_agent
from schemas.listen import parse_listen
from streams.archive.options import ArchiveOptions
from streams.config import load_objectives
from tests.contract.surroundings import COMPOSE, INFRA, load, own_commands, services, understood
from tests.programs import need, run

ROOT = INFRA.parent
CONTAINERFILE = INFRA / "container" / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECRETS = {"CLICKHOUSE_PASSWORD", "CLICKHOUSE_READER_PASSWORD", "GRAFANA_PASSWORD"}
ONCE, NOT_WATCHED = {"topics-apply"}, {"topics-apply", "simulate"}
TEXT = COMPOSE.read_text(encoding="utf-8")


def config(environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """What docker-compose makes of the file with only these variables; it needs no engine for that."""
    need("docker-compose")
    names = folder / "compose.env"
    names.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    done = run("docker-compose", "--env-file", names, "--file", COMPOSE, "--profile", "demo", "config")
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    status, said = config(dict.fromkeys(SECRETS, "s3cret"), tmp_path)
    assert status == 0, said
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(said)
    assert set(load(resolved)["services"]) == set(services())


@pytest.mark.slow
@pytest.mark.parametrize("secret", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_it_does_not_start_without_a_password(
    secret: str, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    others = dict.fromkeys(SECRETS - {secret}, "s3cret")
    status, said = config(others if value is None else {**others, secret: value}, tmp_path)
    assert status != 0
    assert secret in said
    assert "set it in .env" in said


def test_no_password_stands_in_the_file_and_the_example_names_all_that_it_asks_for() -> None:
    asked = re.findall(r"\$\{(\w+)(:[-?])", TEXT)
    assert {name for name, kind in asked if kind == ":?"} == SECRETS
    example = (INFRA / "compose.env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^#?(\w+)=(.*)$", example, re.MULTILINE))
    assert set(given) == {name for name, _ in asked} | {"COMPOSE_PROJECT_NAME"}
    assert {given[name] for name in SECRETS} == {""}
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), name


def test_a_password_is_on_no_command_line() -> None:
    assert [name for name, service in services().items() if "PASSWORD" in str(service.get("command"))] == []


def test_every_image_is_pinned_to_a_full_version() -> None:
    bases = re.findall(r"^FROM (\S+)", CONTAINERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    images = [service["image"] for service in services().values()]
    assert [image for image in (*images, *bases) if not re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", image)] == []
    assert len(set(bases)) == 1


def test_versions_are_those_of_the_project() -> None:
    pom = (INFRA / "kafka" / "pom.xml").read_text(encoding="utf-8")
    (kafka,) = re.findall(r"<kafka\.version>(.+)</", pom)
    assert services()["kafka"]["image"] == f"apache/kafka:{kafka}"
    own = {service["image"] for service in services().values() if "build" in service}
    assert own == {f"fleetbeat:{PROJECT['project']['version']}"}


def listening(service: dict[str, Any]) -> Iterator[str]:
    """Every HOST:PORT on which a service of the machine's own network listens."""
    yield from re.findall(r"(?:listen|metrics)\S*?[= ](\S+:\d+)", " ".join(service.get("command", [])))
    if host := service.get("environment", {}).get("GF_SERVER_HTTP_ADDR"):
        yield f"{host}:{service['environment']['GF_SERVER_HTTP_PORT']}"


def test_nothing_listens_beyond_loopback() -> None:
    found: dict[str, list[str]] = {}
    for name, service in services().items():
        if service.get("network_mode") == "host":
            assert "ports" not in service
            found[name] = list(listening(service))
            for address in found[name]:
                parse_listen(address)
        else:
            assert service["ports"]
            for port in service["ports"]:
                assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), name
    assert {name for name, addresses in found.items() if addresses} == {"worker", "archive", "prometheus", "grafana"}
    assert load_agent(INFRA / "container" / "agent.yaml").listen == parse_listen("127.0.0.1:9118")


def test_every_service_is_limited_and_watched() -> None:
    for name, service in services().items():
        assert {"mem_limit", "cpus"} <= set(service), name
        assert ("healthcheck" in service) is (name not in NOT_WATCHED), name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name


def test_health_is_asked_where_a_service_listens() -> None:
    for name in ("worker", "archive", "prometheus", "grafana"):
        (address,) = listening(services()[name])
        assert f"http://{address}/" in str(services()[name]["healthcheck"]["test"])


def test_fleetbeats_own_processes_have_no_privileges() -> None:
    for name in own_commands():
        service = services()[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.search(r"^USER (?!root)\w+$", CONTAINERFILE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(own_commands()))
def test_the_command_line_understands_what_a_service_runs(name: str) -> None:
    options = understood(own_commands()[name])
    assert options.get("brokers", "127.0.0.1:19092") == "127.0.0.1:19092"


def test_the_archive_finds_the_stores_address_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = services()["archive"]
    asked: list[ArchiveOptions] = []

    def noted(options: ArchiveOptions, _config: object) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr("streams.archive.app.run_archive", noted)
    monkeypatch.setenv("FLEETBEAT_CLICKHOUSE", archive["environment"]["FLEETBEAT_CLICKHOUSE"])
    assert fleetbeat.main(archive["command"]) == 0
    assert (asked[0].clickhouse or "").startswith("http://fleetbeat:")
    assert fleetbeat.main([*archive["command"], "--store", "folder"]) == 0
    assert asked[1].clickhouse is None


def test_kafkas_settings_are_ones_that_our_own_broker_has_too() -> None:
    parts = [INFRA / "kafka" / name for name in ("server.properties", "plain.properties")]
    template = "".join(part.read_text(encoding="utf-8") for part in parts)
    known = dict(re.findall(r"^([a-z][\w.]+)=(.*)$", template, re.MULTILINE))
    environment = services()["kafka"]["environment"]
    named = {name.removeprefix("KAFKA_").replace("_", ".").lower(): value for name, value in environment.items()}
    assert set(named) - set(known) == {"heap.opts", "listener.security.protocol.map"}
    ours = {name: value for name, value in named.items() if name in known and "$" not in known[name]}
    assert {name: (value, known[name]) for name, value in ours.items() if value != known[name]} == {}


def test_whatever_is_mounted_is_there() -> None:
    volumes = set(load(COMPOSE)["volumes"])
    used = set()
    for name, service in services().items():
        for mount in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-(.+?)\}", r"\1", mount).split(":")[0]
            used.add(source)
            assert source in volumes or (INFRA / source).exists(), f"{name}: {source}"
    assert volumes <= used


def test_what_is_mounted_by_default_is_valid() -> None:
    assert load_objectives(INFRA / "demo" / "slos.yaml")
    assert load_agent(INFRA / "container" / "agent.yaml").probes


def test_the_image_is_built_from_everything_that_the_wheel_needs() -> None:
    text = CONTAINERFILE.read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    project = PROJECT["project"]
    needed = {*wheel, *project["license-files"], project["readme"], "pyproject.toml", "requirements.lock"}
    assert copied == needed
    let_in = re.findall(r"^!(.+)$", (INFRA / "container" / "Containerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(let_in) == needed
