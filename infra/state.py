"""The state folder of one `fleetbeat up`, held by a lock, and the choice of ports."""

import fcntl
import json
import os
import random
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from infra import InfraError

DEFAULT_FOLDER = Path(".fleetbeat")
LOOPBACK = "127.0.0.1"
# Below the kernel's range for outgoing connections (32768 and up), so that no client can take a port between two runs.
_FREE_PORTS = range(20_000, 32_768)
_TRIES = 200
# Whoever asked for these may not listen yet: no other part of this process is given one of them.
_given: deque[int] = deque(maxlen=1_000)


class AlreadyRunning(InfraError):  # noqa: N818 - it is a finding, not a failure
    """Another process holds the state folder."""


class PortTaken(InfraError):  # noqa: N818
    """A port that was asked for by number is in use."""


class StateFolder:
    """An exclusive hold on a folder, given up by `release`, by leaving the context, or by the end of this process."""

    def __init__(self, path: Path = DEFAULT_FOLDER) -> None:
        """Takes the hold. Raises AlreadyRunning, and InfraError when the folder cannot be written."""
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock.json", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            sentence = f"cannot write the state folder {path}: {cause.strerror}; choose another folder"
            raise InfraError(sentence) from cause
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 1 << 16, 0)
            os.close(self._lock)
            raise AlreadyRunning(_who_holds(path, holder)) from None
        self.announce({})

    def announce(self, addresses: Mapping[str, str]) -> None:
        """Writes down, for whoever finds the folder held, who holds it and what it serves (name → address)."""
        text = json.dumps({"pid": os.getpid(), "addresses": dict(addresses)}).encode()
        # Spaces first where the old note was longer, then the cut: a reader never finds it empty or half old.
        os.pwrite(self._lock, text.ljust(os.fstat(self._lock).st_size), 0)
        os.ftruncate(self._lock, len(text))

    def release(self) -> None:
        """Gives the folder up; a second call does nothing."""
        if self._lock >= 0:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _who_holds(folder: Path, note: bytes) -> str:
    try:
        found = json.loads(note)
        pid, addresses = f"pid {found['pid']}", [f"{name} {where}" for name, where in found["addresses"].items()]
    except (ValueError, KeyError, TypeError, AttributeError):  # it has the lock but has not said yet who it is
        pid, addresses = "its pid is not written yet", []
    serving = f", serving {', '.join(addresses)}" if addresses else ""
    return (
        f"another fleetbeat ({pid}) runs in {folder}{serving}; "
        "use that one, stop it (Ctrl-C there, or kill the pid), or give this one another state folder"
    )


def pick_port(preferred: int | None, explicit: int | None, used_for: str) -> int:
    """The port asked for, else the preferred one, else any that is free on 127.0.0.1. Raises PortTaken."""
    if explicit is not None:
        if not is_free(explicit):
            raise PortTaken(
                f"port {explicit} on {LOOPBACK}, asked for {used_for}, is taken; "
                "choose another, or name none to get a free one"
            )
        return explicit
    if preferred is not None and is_free(preferred):
        return preferred
    for port in random.SystemRandom().sample(_FREE_PORTS, _TRIES):
        if port not in _given and is_free(port):
            _given.append(port)
            return port
    tried = f"{_TRIES} of the ports {_FREE_PORTS.start} to {_FREE_PORTS.stop - 1} on {LOOPBACK}"
    raise PortTaken(f"no free port for {used_for}: tried {tried}")


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: closed connections do not hinder them
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
