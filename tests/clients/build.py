"""Builds the Go and Java clients of the SQL endpoint once for a machine, into the cache that holds Kafka's jars too."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.kafka.cache import cache_folder, made_once
from tests.programs import need, run

HERE = Path(__file__).parent
BUILD_S = 280
# It runs for a second: what is not optimized is built sooner.
GO = ("go", "build", "-ldflags=-s -w", "-gcflags=all=-N -l")
MAVEN = ("mvn", "--batch-mode", "--strict-checksums", "dependency:copy-dependencies", "-DincludeScope=runtime")
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True, slots=True)
class Client:
    """A command that takes HOST:PORT and prints `name=found` lines."""

    command: tuple[str, ...]

    def ask(self, address: str) -> dict[str, str]:
        done = run(*self.command, address, timeout_s=120)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


def go_client() -> Client:
    """With clickhouse-go from the module proxy, checked against go.sum."""
    need("go")
    folder = _built(HERE / "go", lambda target: (*GO, "-o", str(target / "client"), "."))
    return Client((str(folder / "client"),))


def java_client() -> Client:
    """With clickhouse-jdbc from Maven Central; the one source file is compiled when it is run."""
    need("mvn", "java", "javac")
    source = HERE / "java"
    folder = _built(source, lambda target: (*MAVEN, f"-DoutputDirectory={target}"))
    return Client((*JAVA, "-cp", f"{folder}/*", str(source / "Gateway.java")))


def _built(source: Path, command: Callable[[Path], tuple[str, ...]]) -> Path:
    """The folder of what is built from a folder's files as they are now."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()) if path.is_file()))
    name = f"client-{source.name}"

    def build(partial: Path) -> None:
        done = run(*command(partial), folder=source, timeout_s=BUILD_S)
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]

    return made_once(cache_folder() / f"{name}-{digest.hexdigest()[:12]}", f"{name}.lock", build)


if __name__ == "__main__":
    go_client()
    java_client()
