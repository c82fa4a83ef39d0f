"""The built wheel: complete, installed beside nothing but its dependencies, and working from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("agents", "infra", "schemas", "streams")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to stand in."""

    environment: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        program = self.environment / "bin" / command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.folder,
            env=clean,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=200)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--python",
        str(python),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=200)
    # The dependencies of this environment come after the new one's own packages. A .pth file inside the added folder
    # is not read, so the editable install of this checkout stays out of sight.
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(environment, tmp_path_factory.mktemp("empty"))


def test_it_carries_every_file_of_every_room(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert shipped == expected | {"fleetbeat.py", "fleetbeat_commands.py"}
    assert {Path(name).suffix for name in shipped} >= {".avsc", ".properties", ".py", ".sql", ".typed", ".xml", ".yaml"}


def test_every_room_loads_from_the_wheel_and_finds_its_data(installed: Installed) -> None:
    code = (
        "import json, agents, infra, schemas, streams, fleetbeat\n"
        "from schemas.catalog import load_catalog\n"
        "rooms = (agents, infra, schemas, streams, fleetbeat)\n"
        "print(json.dumps({'files': [room.__file__ for room in rooms], 'topics': len(load_catalog().topics)}))\n"
    )
    answer = installed.run("python", "-c", code)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [path for path in found["files"] if not Path(path).is_relative_to(installed.environment)] == []
    assert found["topics"] > 0


@pytest.mark.parametrize("command", [("fleetbeat",), ("python", "-m", "fleetbeat")], ids=" ".join)
def test_its_command_runs_in_an_empty_folder(installed: Installed, command: tuple[str, ...]) -> None:
    answer = installed.run(*command, "version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"fleetbeat {version}\n", "")


def test_its_benchmarks_stay_in_the_checkout(installed: Installed) -> None:
    answer = installed.run("fleetbeat", "bench", "decode")
    assert answer.returncode == 2
    assert "expected a checkout" in answer.stderr
    assert "Traceback" not in answer.stderr
