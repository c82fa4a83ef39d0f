"""The classes of a broker, loaded and checked once on this machine: a start computes a third less with them."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from infra.kafka import LocalKafka
from infra.kafka.cache import ensure_jars, jar_folder, made_once
from infra.topics import run_apply
from tests.ports import free_port

_OPTIONS = "JDK_JAVA_OPTIONS"
# A test's broker lives for a minute: the code that the second compiler makes costs more than it saves, by half of all
# that a broker computes. And what a program in Java says on its output may be read by a test.
_SHORT_LIVED = "-XX:TieredStopAtLevel=1 -Xlog:disable -Xlog:all=error:stderr"
_FILE = "broker.jsa"


class _Recorded(LocalKafka):
    """Writes the archive when it is stopped."""

    def _format(self, tool: Sequence[str | Path], data: Path) -> None:
        super()._format(list(tool), data)
        _set(f"-XX:ArchiveClassesAtExit={self.folder.with_name(_FILE)}")


def use_archive() -> None:
    """From now on brokers that this process and its children start take the archive, if there is one."""
    archive = _folder() / _FILE
    # Naming a file that is not there would switch off what Java itself comes with.
    _set(f"-XX:SharedArchiveFile={archive}" if archive.exists() else "")


def make_archive() -> None:
    """Starts and stops a broker for it when there is none; takes ten seconds, once on a machine."""
    ensure_jars()
    made_once(_folder(), "class-archive.lock", _make)
    use_archive()


def _make(folder: Path) -> None:
    with _Recorded(folder, port=free_port(), heap_mb=320, start_timeout_s=200) as broker:
        assert run_apply(broker.bootstrap, 1, local=True) == 0
    shutil.rmtree(broker.folder)


def _set(option: str) -> None:
    os.environ[_OPTIONS] = f"{_SHORT_LIVED} {option}".strip()


def _folder() -> Path:
    """Java takes an archive only with the jars and the build that it was made with, and without a word no other."""
    java = Path(shutil.which("java") or "java").resolve()
    build = f"{java} {java.stat().st_mtime_ns if java.exists() else 0}"
    return jar_folder().with_name(f"{jar_folder().name}-classes-{hashlib.sha256(build.encode()).hexdigest()[:8]}")
