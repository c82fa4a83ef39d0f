"""A process that is started, told to die or killed, and started again; it remembers the most memory it has held."""

import signal
from pathlib import Path

from infra.local.children import Child
from tests.integration.worker_process import eventually


class Mortal:
    """Whoever starts it sets `_child` and `wanted`: it runs, as far as anybody knows who has started it."""

    death_s = 400.0

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted = False
        self._child: Child | None = None
        self._peak_mb = 0

    @property
    def child(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def await_death(self) -> None:
        """Raises ChildFailedError when it ended in another way."""
        eventually(lambda: self.child.poll() is not None, f"death of {self.name}", self.death_s)
        if self.child.poll() != -signal.SIGKILL:
            raise self.child.ended()

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        self.wanted = False
        self.note_peak()
        self.child.kill()
        eventually(lambda: self.child.poll() is not None, f"end of {self.name}", self.death_s)

    def peak_mb(self) -> int:
        """The most memory that any run of it has held, MB."""
        if self.runs:
            self.note_peak()
        return self._peak_mb

    def note_peak(self) -> None:
        """Looks while it runs, since nobody can afterwards."""
        try:
            status = Path(f"/proc/{self.child.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        found = [int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
        self._peak_mb = max([self._peak_mb, *found])
