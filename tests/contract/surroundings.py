"""What stands around fleetbeat in infra/, read for tests: compose services, systemd units, and the commands in both."""

import shlex
from pathlib import Path
from typing import Any

import cyclopts
from ruamel.yaml import YAML

from fleetbeat_commands import app

INFRA = Path(__file__).parents[2] / "infra"
COMPOSE = INFRA / "compose.yaml"
UNITS = sorted((INFRA / "systemd").glob("*.service"))
PROGRAM = "/opt/fleetbeat/bin/fleetbeat"


def load(path: Path) -> Any:  # noqa: ANN401 - YAML is any structure
    """A YAML file with its merge keys resolved."""
    return YAML(typ="safe").load(path)


def services() -> dict[str, dict[str, Any]]:
    """Services of the compose file by name."""
    found: dict[str, dict[str, Any]] = load(COMPOSE)["services"]
    return found


def own_commands() -> dict[str, list[str]]:
    """Command lines of the services that run fleetbeat's image."""
    return {name: one["command"] for name, one in services().items() if one["image"].startswith("fleetbeat:")}


def unit_settings(unit: Path) -> list[tuple[str, str]]:
    """Keys and values of a unit in their order, continued lines joined."""
    text = unit.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in lines]


def unit_command(unit: Path) -> list[str]:
    """The arguments of the one program that a unit starts; variables stand for themselves."""
    (line,) = [value for key, value in unit_settings(unit) if key == "ExecStart"]
    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    return arguments


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options of a command as today's command line reads them; fails where it would refuse them."""
    try:
        _, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except cyclopts.CycloptsError as cause:
        raise AssertionError(f"fleetbeat {shlex.join(arguments)}: {cause}") from cause
    return dict(bound.arguments)
