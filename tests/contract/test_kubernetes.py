"""The DaemonSet: the agent takes its config, its probes are pages that there are, and it has no rights to spare."""

import asyncio
import re
import tomllib
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from agents.app import parse_options
from agents.config import load_agent
from agents.server import Page, Server

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "infra" / "kubernetes" / "agent.yaml"
BY_KIND: dict[str, Any] = {document["kind"]: document for document in YAML(typ="safe").load_all(MANIFEST.read_text())}
POD: dict[str, Any] = BY_KIND["DaemonSet"]["spec"]["template"]["spec"]
(AGENT,), (INIT,) = POD["containers"], POD["initContainers"]


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    (name, text), *more = BY_KIND["ConfigMap"]["data"].items()
    assert (name, more) == ("agent.yaml", [])
    path = tmp_path / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_agent_takes_the_config_and_is_called_as_its_node(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (variable,) = AGENT["env"]
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    monkeypatch.setenv(variable["name"], "worker-7.example")
    config = load_agent(config_path)
    assert (config.node_id, config.id_from) == ("worker-7.example", "FLEETBEAT_NODE_ID")
    assert len(config.probes) == 1


def test_the_command_line_reads_the_file_that_is_mounted() -> None:
    command, *arguments = AGENT["args"]
    assert command == "agent"
    path = parse_options(arguments).config
    mounts = {mount["name"]: mount for mount in AGENT["volumeMounts"]}
    assert path == Path(mounts["config"]["mountPath"]) / "agent.yaml"
    assert mounts["config"]["readOnly"] is True


def test_the_spool_is_on_the_node_and_made_for_the_agents_user(config_path: Path) -> None:
    (state,) = (volume["hostPath"] for volume in POD["volumes"] if volume["name"] == "state")
    assert state["type"] == "DirectoryOrCreate"
    config = load_agent(config_path)
    assert config.spool is not None
    assert config.spool.dir is not None
    assert config.spool.dir == INIT["command"][-1]
    (mounted,) = (mount["mountPath"] for mount in AGENT["volumeMounts"] if mount["name"] == "state")
    assert Path(config.spool.dir).is_relative_to(mounted)
    user, group = POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]
    assert INIT["command"][:-1] == ["install", "-d", "-m", "0700", "-o", str(user), "-g", str(group)]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
@pytest.mark.parametrize(("status", "expected"), [(HTTPStatus.OK, 0), (HTTPStatus.SERVICE_UNAVAILABLE, 1)])
def test_the_kubelets_command_asks_a_page_that_there_is(
    probe: str, status: HTTPStatus, expected: int, config_path: Path
) -> None:
    listen = load_agent(config_path).listen
    assert listen is not None
    command = AGENT[probe]["exec"]["command"]
    assert f"/dev/tcp/{listen.host}/{listen.port} " in command[-1]
    (path,) = re.findall(r"GET (\S+) HTTP", command[-1])
    assert any(f'"{path}":' in source.read_text(encoding="utf-8") for source in (ROOT / "agents").glob("*.py"))

    async def page() -> Page:
        return Page(status, b"so it is\n")

    async def ask() -> int | None:
        server = Server({path: page})
        _, _, port = (await server.start("127.0.0.1", 0)).rpartition(":")
        asking = await asyncio.create_subprocess_exec(
            *command[:-1], command[-1].replace(f"/{listen.port} ", f"/{port} ")
        )
        try:
            return await asyncio.wait_for(asking.wait(), 30)
        finally:
            server.close()

    assert asyncio.run(ask()) == expected


def test_it_has_no_rights_that_it_does_not_need() -> None:
    assert (POD["hostNetwork"], POD["hostPID"], POD["automountServiceAccountToken"]) == (False, False, False)
    assert POD["securityContext"]["runAsNonRoot"] is True
    for container in (AGENT, INIT):
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"]["drop"] == ["ALL"]
    assert AGENT["securityContext"]["capabilities"].get("add") is None


def test_it_is_the_version_of_this_checkout_and_the_user_of_its_image() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {AGENT["image"], INIT["image"]} == {f"fleetbeat-agent:{version}"}
    image = (ROOT / "infra" / "container" / "Containerfile").read_text(encoding="utf-8")
    assert f"--uid {POD['securityContext']['runAsUser']} " in image
