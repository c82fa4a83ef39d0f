"""What peers need to run, made once under .fleetbeat/ from pinned versions: a venv for Quix, jars and classes."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.kafka.java import find_java, find_maven

ROOT = Path(__file__).parents[3]
PEERS = ROOT / "tests" / "bench" / "peers"
_MADE = ROOT / ".fleetbeat" / "bench"


def quix_python() -> Path:
    """The interpreter of an environment with what quix.lock pins, by hash. Raises CalledProcessError."""
    lock = PEERS / "quix.lock"

    def make(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", folder])
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        _run([folder / "bin" / "python", *pip, "--only-binary", ":all:", "-r", lock])

    return _made("quix", [lock], make) / "bin" / "python"


def kafka_streams() -> list[str | Path]:
    """The command that runs the compiled peer, without its arguments. Raises CalledProcessError."""
    project = PEERS / "kafka_streams"
    sources = sorted(path for path in project.rglob("*") if path.suffix in {".xml", ".java"})

    def make(folder: Path) -> None:
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns("target"))
        _run(
            [find_maven(), "--quiet", "--batch-mode", "--strict-checksums", "compile", "dependency:copy-dependencies"],
            folder,
        )

    target = _made("kafka-streams", sources, make) / "target"
    return [find_java(), "-Xmx2g", "-cp", f"{target / 'classes'}:{target / 'jars'}/*", "Peer"]


def _made(name: str, inputs: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The folder made from these files; what was made from others is left where it is."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:8]
    folder = _MADE / f"{name}-{digest}"
    done = folder / "made"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)  # left by a build that was interrupted
        _MADE.mkdir(parents=True, exist_ok=True)
        make(folder)
        done.touch()
    return folder


def _run(command: Sequence[str | Path], folder: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)
