"""`fleetbeat up` as a process of its own, and how to see that nothing of it is left."""

import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from infra.local.children import child_environment, fleetbeat
from tests.ports import free_port

WELCOMED = "Ctrl-C stops everything."
READY_S = 200.0
LOOK_S = 90.0
PORTS = ("kafka", "worker", "sql")
Found = TypeVar("Found")


def free_ports() -> dict[str, int]:
    return {name: free_port() for name in PORTS}


def port_flags(ports: dict[str, int]) -> list[str]:
    return [f"--{name}-port={port}" for name, port in ports.items()]


@dataclass(frozen=True)
class Up:
    """One that runs; `said` is what it has said until it welcomed its user."""

    process: subprocess.Popen[bytes]
    state: Path
    log: Path
    ports: dict[str, int]
    said: str

    @classmethod
    def start(cls, folder: Path, *options: str) -> Self:
        """Returns when it has welcomed its user, or has ended."""
        log, state, ports = folder / "up.log", folder / "state", free_ports()
        command = fleetbeat("up", *options, "--state", state, *port_flags(ports))
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=child_environment(), cwd=folder)

        def ready(text: str) -> bool:
            return WELCOMED in text or process.poll() is not None

        try:
            return cls(process, state, log, ports, until(lambda: log.read_text(encoding="utf-8"), ready, READY_S))
        except BaseException:
            process.kill()
            process.wait()
            raise

    @property
    def host(self) -> tuple[str, int]:
        """Address of this host's page, and the pid of its agent."""
        found = re.search(r"^  host    (http\S+) .*pid (\d+)", self.said, re.MULTILINE)
        assert found is not None, self.said
        return found[1], int(found[2])


def state_of(page: str) -> str:
    """What a node's page says of it; empty when it says nothing now."""
    try:
        with urllib.request.urlopen(page, timeout=20) as answer:  # noqa: S310 - http, from our own stack
            return str(json.loads(answer.read())["state"])
    except OSError:  # 503 among them
        return ""


def until(look: Callable[[], Found], is_it: Callable[[Found], bool], timeout_s: float = LOOK_S) -> Found:
    """What `look` returns once it is as wanted."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if is_it(found) or time.monotonic() > deadline:
            assert is_it(found), found
            return found
        time.sleep(0.25)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def processes_with(word: str) -> list[int]:
    """Processes with the word in their command line."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if word.encode() in cmdline(pid)]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
