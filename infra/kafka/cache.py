"""Kafka's jars, fetched once through Maven into a cache folder that all state folders share."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from infra import InfraError
from infra.kafka.java import find_maven

Progress = Callable[[str], None]

_VERSION = re.compile(r"<kafka\.version>(.+?)</kafka\.version>")
_TOLD_EVERY = 20


def cache_folder() -> Path:
    """$FLEETBEAT_CACHE, else `fleetbeat` in the user's cache folder."""
    if own := os.environ.get("FLEETBEAT_CACHE"):
        return Path(own).absolute()
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "fleetbeat"


def jar_folder() -> Path:
    """Where the jars of this version of pom.xml are, or will be; complete when it exists."""
    pom = _pom()
    version = _VERSION.search(pom)
    if version is None:
        raise ValueError("infra/kafka/pom.xml: no <kafka.version>")
    return cache_folder() / f"kafka-{version[1]}-{hashlib.sha256(pom.encode()).hexdigest()[:8]}"


def ensure_jars(progress: Progress | None = None) -> Path:
    """The folder with all jars; fetches what is missing. Raises InfraError with Maven's last words when it fails."""
    folder = jar_folder()
    if folder.is_dir():
        return folder
    maven = find_maven()

    def fetch(partial: Path) -> None:
        (partial / "pom.xml").write_text(_pom(), encoding="utf-8")
        _run_maven(maven, partial, progress or (lambda _: None))

    return made_once(folder, "fetching.lock", fetch)


def made_once(folder: Path, lock: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache that is complete when it exists: `make` fills it under another name. Raises what that does.

    `lock` names a file beside it; who holds it is the only process that makes what it is for.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / lock):
        if folder.is_dir():  # it was there, or another process made it meanwhile
            return folder
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by one that was interrupted
        partial.mkdir()
        make(partial)
        partial.rename(folder)
    return folder


def _pom() -> str:
    return (files("infra.kafka") / "pom.xml").read_text(encoding="utf-8")


def _run_maven(maven: Path, folder: Path, progress: Progress) -> None:
    command: list[str | Path] = [maven, "--batch-mode", "--strict-checksums", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", "-DoutputDirectory=."]
    progress(f"fetching Kafka's jars into {folder.parent} (about 45 MB, once)")
    last: deque[str] = deque(maxlen=40)
    fetched = 0
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout or ():
            last.append(line.rstrip())
            if line.startswith("[INFO] Downloaded"):
                fetched += 1
                if fetched % _TOLD_EVERY == 0:
                    progress(f"fetching Kafka's jars: {fetched} files so far")
    if run.returncode != 0 or not any(folder.glob("kafka_*.jar")):
        errors = [line for line in last if line.startswith("[ERROR]")] or list(last)
        said = "\n  ".join(errors[:8])
        raise InfraError(f"Maven could not fetch Kafka's jars (exit status {run.returncode}); it said:\n  {said}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
