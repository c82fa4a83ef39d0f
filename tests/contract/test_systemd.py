"""infra/systemd: units that systemd takes, that leave a process next to nothing, and whose commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.surroundings import INFRA, PROGRAM, UNITS, services, understood, unit_command, unit_settings
from tests.programs import need, run

MOST_EXPOSURE = 1.5  # of 10, by systemd's own measure; a unit without any restriction has 9.6
RESTRICTIONS = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "SystemCallArchitectures": "native",
    "Restart": "on-failure",
}

pytestmark = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def as_if_installed(unit: Path, folder: Path) -> Path:
    """A copy whose program exists."""
    copy = folder / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, sys.executable))
    return copy


def test_systemd_takes_the_unit_without_a_warning(unit: Path, tmp_path: Path) -> None:
    need("systemd-analyze")
    done = run("systemd-analyze", "verify", as_if_installed(unit, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_it_exposes_little(unit: Path, tmp_path: Path) -> None:
    need("systemd-analyze")
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", as_if_installed(unit, tmp_path))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE, done.stdout


def test_it_is_restricted_and_limited(unit: Path) -> None:
    settings = dict(unit_settings(unit))
    assert {name: settings.get(name) for name in RESTRICTIONS} == RESTRICTIONS
    assert {"MemoryMax", "TasksMax", "RestrictAddressFamilies", "SystemCallFilter", "StateDirectory"} <= set(settings)
    assert settings["StateDirectory"] == unit.stem


def test_the_command_line_understands_what_it_runs(unit: Path) -> None:
    assert understood(unit_command(unit))
    assert unit.stem == f"fleetbeat-{unit_command(unit)[0]}"


def test_it_listens_where_the_compose_file_does(unit: Path) -> None:
    name = unit_command(unit)[0]
    listens = [re.findall(r"127\.0\.0\.1:80\d\d", " ".join(command)) for command in
               (unit_command(unit), services()[name]["command"])]  # fmt: skip
    assert listens[0] == listens[1]


def test_a_program_that_must_not_map_memory_for_writing_and_running_starts(unit: Path) -> None:
    if dict(unit_settings(unit)).get("MemoryDenyWriteExecute") != "yes":
        assert "# No MemoryDenyWriteExecute: polars" in unit.read_text(encoding="utf-8")
        return
    # prctl 65 is PR_SET_MDWE of Linux 6.3; systemd forbids the same by a filter of system calls.
    code = (
        "import ctypes, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "from fleetbeat import main\n"
        f"sys.exit(main({[*unit_command(unit)[:-1], '/nonexistent/agent.yaml']!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=INFRA.parent, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel knows no PR_SET_MDWE")
    assert done.returncode in (1, 2), done.stderr
    assert "/nonexistent/agent.yaml" in done.stderr, "it got as far as reading its config"
