"""Two network namespaces with a cable between them, whose packets are lost as nftables are told: needs root and nft.

The far one is where agents run; the near one has a proxy to the broker, which delays. Neither is the machine's own, so
that nothing else on it is touched: between the near one and the machine nothing but the proxy's two ends goes.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from infra import InfraError

NEAR_IP, FAR_IP = "10.213.7.1", "10.213.7.2"
_NEWNET = 0x40000000
_TABLE = "inet faults"
T = TypeVar("T")

# What the far namespace does to packets from and to the port; `numgen` is the only dice that nftables have.
RULES = {
    "deaf both ways": ("drop", "drop"),
    "deaf to the broker": ("accept", "drop"),
    "unheard by it": ("drop", "accept"),
    "reset": ("reject with tcp reset", "reject with tcp reset"),
    "5 % lost": ("numgen random mod 100 < 5 drop", "numgen random mod 100 < 5 drop"),
}


class Namespaces:
    """Made on entry and taken away on exit. `rule` and `heal` break and mend the way to a TCP port of the near one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._near, self._far = (f"fb-{side}-{os.getpid()}" for side in ("near", "far"))

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("ip") is None:
            raise InfraError(
                "network namespaces need root, ip and nft; expected to run as root with nftables installed"
            )
        try:
            for name in (self._near, self._far):
                _do("ip", "netns", "add", name)
                _do("ip", "-n", name, "link", "set", "lo", "up")
            cable = ("ip", "link", "add", "fb0", "netns", self._near, "type", "veth", "peer", "fb0", "netns", self._far)
            _do(*cable)
            for name, address in ((self._near, NEAR_IP), (self._far, FAR_IP)):
                _do("ip", "-n", name, "addr", "add", f"{address}/30", "dev", "fb0")
                _do("ip", "-n", name, "link", "set", "fb0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self._near, self._far):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    @property
    def inside(self) -> tuple[str, ...]:
        """Before a command, so that it runs in the far namespace."""
        return ("ip", "netns", "exec", self._far)

    def rule(self, name: str) -> None:
        """One of RULES, from now on; to the broker first."""
        up, down = RULES[name]
        self.heal()
        self._nft(
            f"table {_TABLE} {{",
            f"chain up {{ type filter hook output priority 0; tcp dport {self._port} {up}; }}",
            f"chain down {{ type filter hook input priority 0; tcp sport {self._port} {down}; }}",
            "}",
        )

    def heal(self) -> None:
        self._nft(f"table {_TABLE} {{ }}", f"delete table {_TABLE}")

    def _nft(self, *lines: str) -> None:
        _do(*self.inside, "nft", "\n".join(lines))

    def in_near(self, what: Callable[[], T]) -> T:
        """Its result, from a thread in the near namespace: sockets stay where they were made."""
        return _within(self._near, what)

    def in_far(self, what: Callable[[], T]) -> T:
        """Its result, from a thread in the far namespace."""
        return _within(self._far, what)


def enter(name: str) -> None:
    """Moves this thread, and no other, into a namespace."""
    descriptor = os.open(Path("/run/netns") / name, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(descriptor)


def _within(name: str, what: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            enter(name)
            results.append(what())
        except Exception as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    thread = threading.Thread(target=run, name=f"in {name}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _do(*command: str) -> None:
    with suppress(FileNotFoundError):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise InfraError(f"{' '.join(command)}: {done.stderr.strip()}")
