"""Reads what the kernel counts. Files stay open and are read into one buffer, which costs a fifth of opening them."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.health.window import (
    MEMINFO,
    MEMORY,
    NETSTAT,
    OWN_SCHEDSTAT,
    PROCESSOR,
    SCHEDSTAT,
    SNMP,
    Snapshot,
)

# Of each line the first file that can be read is enough.
_WANTED = ((SNMP,), (MEMORY, MEMINFO), (PROCESSOR, SCHEDSTAT, OWN_SCHEDSTAT))
# /proc/schedstat is the only long one. Where it is longer, on hundreds of processors, it would cost too much.
_BUFFER = 65_536


class ProcFiles:
    """The files below `root`, opened once; those that are not there are not looked for again."""

    def __init__(
        self, now_s: Callable[[], float], events: Callable[[], tuple[int, int]] | None = None, root: Path = Path("/")
    ) -> None:
        self.events = events
        self._now_s = now_s
        self._buffer = bytearray(_BUFFER)
        self._files: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        for path in (NETSTAT, *(path for line in _WANTED for path in line)):
            try:
                self._files[path] = os.open(root / path[1:], os.O_RDONLY | os.O_CLOEXEC)
            except OSError as cause:
                self._problems[path] = _why(cause)
        self._last: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """As of now, in any thread; never raises."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        texts: dict[str, bytes] = {}
        problems = self._problems.copy()
        for line in _WANTED:
            self._read_first(line, texts, problems)
        # Half of the cost, and it can say nothing new: without a segment no connection began, ended or was dropped.
        if SNMP in texts and self._last.get(SNMP) == texts[SNMP] and NETSTAT in self._last:
            texts[NETSTAT] = self._last[NETSTAT]
        else:
            self._read_first((NETSTAT,), texts, problems)
        self._last = texts
        return Snapshot(self._now_s(), texts, problems, None if self.events is None else self.events())

    def close(self) -> None:
        """From now on nothing is read."""
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    def _read_first(self, paths: Sequence[str], texts: dict[str, bytes], problems: dict[str, str]) -> None:
        for path in paths:
            if path not in self._files:
                continue
            try:
                size = os.preadv(self._files[path], [self._buffer], 0)
            except OSError as cause:  # such as EOPNOTSUPP, where pressure is switched off
                problems[path] = _why(cause)
                continue
            if size == _BUFFER:
                problems[path] = f"{size} bytes or more; expected less"
                continue
            texts[path] = bytes(memoryview(self._buffer)[:size])
            return


def _why(cause: OSError) -> str:
    return os.strerror(cause.errno or 0).lower()
