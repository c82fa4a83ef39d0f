"""The example plugin is built and installed as users would do it, is found, and runs; its how-to shows its files."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugins" / "fleetbeat-probe-file-age"
PAPER = (ROOT / "docs" / "how-to" / "add-a-probe.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Installed:
    """The plugin in a folder that is on the path before everything else."""

    folder: Path

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        command = [sys.executable, "-P", *arguments]
        environment = os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=200, check=False
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built without a network: hatchling is in the lock, and the one dependency, fleetbeat, is this checkout."""
    folder = tmp_path_factory.mktemp("plugin")
    install = ["uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    command = [sys.executable, "-m", *install, "--target", str(folder / "site"), str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return Installed(folder / "site")


def blocks(kind: str) -> dict[str, str]:
    """The how-to's blocks of a kind, by the file that is named above them."""
    return dict(re.findall(rf"^`([\w.-]+)`\n```{kind}\n(.*?)^```$", PAPER, re.MULTILINE | re.DOTALL))


def test_the_how_to_shows_every_file_as_it_is() -> None:
    shown = blocks("toml") | blocks("python")
    files = {path.name: path.read_text(encoding="utf-8") for path in PLUGIN.iterdir() if path.is_file()}
    assert shown == files


def test_its_own_tests_pass_where_it_is_installed(installed: Installed) -> None:
    done = installed.python("-m", "pytest", "-q", "-p", "no:cacheprovider", PLUGIN / "test_file_age.py")
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_registry_finds_it_by_its_name_and_only_where_it_is_installed(installed: Installed) -> None:
    code = (
        "from agents.probes.registry import probe_kind, probe_kind_names, probe_kinds\n"
        "kind = probe_kind('file-age')\n"
        "print('file-age' in probe_kind_names(), probe_kinds()['file-age'] is kind, kind.config.__name__)\n"
    )
    done = installed.python("-c", code)
    assert (done.stdout, done.stderr) == ("True True FileAgeConfig\n", "")
    assert "file-age" not in importlib.metadata.entry_points(group="fleetbeat.probes").names
    assert not installed.folder.is_relative_to(sysconfig.get_path("purelib"))


def test_the_command_of_the_how_to_answers_as_shown(installed: Installed, tmp_path: Path) -> None:
    shown = re.findall(r"^\$ fleetbeat (.+)\n((?:.+\n)+)```", PAPER, re.MULTILINE)
    ((command, answer),) = shown
    backup, config = tmp_path / "latest.tar", tmp_path / "agent.yaml"
    backup.write_text("backup")
    config.write_text(blocks("yaml")["agent.yaml"].replace("/var/backups/latest.tar", str(backup)))
    arguments = command.replace("agent.yaml", str(config)).split()
    done = installed.python("-m", "fleetbeat", *arguments)
    assert done.returncode == 0, done.stderr
    assert numberless(done.stdout) == numberless(answer.replace("/var/backups/latest.tar", str(backup)))
    backup.unlink()
    done = installed.python("-m", "fleetbeat", *arguments)
    assert done.returncode == 1
    assert done.stdout.startswith(f"backup: down (no-file): {backup}: No such file or directory\n")


def numberless(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "#", text))
