"""What is said when Java, Maven or the jars cannot be had, and that a fetch cut short never counts."""

from pathlib import Path

import pytest

from infra import InfraError
from infra.kafka import LocalKafka
from infra.kafka.cache import ensure_jars, jar_folder
from infra.kafka.java import ToolMissing, find_java

FETCHES = 'touch kafka_2.13-4.3.1.jar; echo "[INFO] Downloaded from x"'
FAILS = 'touch kafka_2.13-4.3.1.jar; echo "[INFO] trying"; echo "[ERROR] no route to host"; exit 1'


@pytest.fixture(autouse=True)
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH but what a test puts there, and with an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FLEETBEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def put(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    (folder / name).chmod(0o755)


def java_saying(text: str) -> str:
    return f"echo '{text}' >&2"


def test_no_java(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="no `java` is in PATH; install a JRE of version 17 or newer"):
        LocalKafka(tmp_path).start()


def test_java_home_comes_before_path(empty_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(empty_path, "java", java_saying('openjdk version "17.0.15" 2025-04-15'))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(ToolMissing, match=r"no `java` is in JAVA_HOME \("):
        find_java()
    put(tmp_path / "jdk" / "bin", "java", java_saying('openjdk version "21" 2023-09-19'))
    assert find_java() == tmp_path / "jdk" / "bin" / "java"


@pytest.mark.parametrize(("text", "version"), [('java version "1.8.0_392"', "8"), ('openjdk version "11.0.2"', "11")])
def test_java_too_old(empty_path: Path, text: str, version: str) -> None:
    put(empty_path, "java", java_saying(text))
    with pytest.raises(ToolMissing, match=f"cannot run on Java {version}, which .*/bin/java is; install a JRE"):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "21", "26-ea"])
def test_java_new_enough(empty_path: Path, version: str) -> None:
    put(empty_path, "java", java_saying(f'openjdk version "{version}" 2025-04-15'))
    assert find_java() == empty_path / "java"


def test_no_maven(tmp_path: Path, empty_path: Path) -> None:
    put(empty_path, "java", java_saying('openjdk version "17"'))
    with pytest.raises(ToolMissing, match="no `mvn` is in PATH; install Maven"):
        LocalKafka(tmp_path).start()


def test_a_failed_fetch_leaves_nothing_that_looks_complete(empty_path: Path) -> None:
    put(empty_path, "mvn", FAILS)
    with pytest.raises(InfraError, match=r"exit status 1\); it said:\n  \[ERROR\] no route to host$"):
        ensure_jars()
    assert not jar_folder().exists()
    put(empty_path, "mvn", FETCHES)
    assert [jar.name for jar in ensure_jars().glob("*.jar")] == ["kafka_2.13-4.3.1.jar"]


def test_jars_are_fetched_once(empty_path: Path) -> None:
    put(empty_path, "mvn", FETCHES)
    folder = ensure_jars()
    (empty_path / "mvn").unlink()
    assert ensure_jars() == folder
    assert folder.parent.name == "cache"
    assert folder.name.startswith("kafka-4.3.1-")
