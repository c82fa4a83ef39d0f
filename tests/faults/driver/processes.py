"""A worker process that may be told to die at a named point of its own."""

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Self

from tests.integration.worker_process import WorkerProcess, eventually

PAGES = "fleetbeat-worker-pages-changelog"
PARTIALS = "slo-partials"
NODE_PAGES = "fleetbeat-worker-nodes-changelog"
DEATH_S = 200.0
# As in infra/systemd/fleetbeat-worker.service.
RESTART_S = 5.0
CANNOT_RUN = 2


@dataclass(frozen=True, slots=True)
class Death:
    """Where a worker kills itself: see dying_worker.py."""

    point: str
    topic: str
    nth: int

    def __str__(self) -> str:
        return f"{self.point} at send {self.nth} to {self.topic}"


# Sends to each topic among which a death is drawn: some sets of pages (20 every two seconds, of nodes 4 a second), and
# some flushes of partials.
SENDS = {PAGES: 90, PARTIALS: 90, NODE_PAGES: 30}
# Before the changelog's ack, halfway through a set of pages, acknowledged and not committed.
NAMED = tuple((point, topic) for topic in SENDS for point in ("unacked", "half", "uncommitted"))


def deaths(rng: Random, count: int) -> list[Death | None]:
    """Named points first, each once, then any of them, where every third is a random moment, None."""
    points = [NAMED[n] if n < len(NAMED) else rng.choice(NAMED) for n in range(count)]
    drawn = [Death(point, topic, rng.randrange(1, SENDS[topic])) for point, topic in points]
    return [None if n >= len(NAMED) and n % 3 == 0 else death for n, death in enumerate(drawn)]


class DoomedWorker(WorkerProcess):
    """`start_doomed` starts it with a death. `wanted`: it runs, as far as anybody knows who has started it."""

    wanted = False

    def start(self) -> Self:
        super().start()
        self.wanted = True
        return self

    def kill(self) -> None:
        self.wanted = False
        super().kill()

    def ask_to_stop(self) -> None:
        """And does not wait."""
        self.wanted = False
        self.child.terminate()

    def start_doomed(self, death: Death) -> Self:
        usual = self._command
        options = usual[usual.index("worker") + 1 :]
        module = [sys.executable, "-P", "-m", "tests.faults.driver.dying_worker"]
        self._command = [*module, death.point, death.topic, str(death.nth), *options]
        self.start()
        self.wanted = False
        self._command = usual
        return self

    def await_death(self) -> None:
        """Raises ChildFailedError when it ended in another way."""
        eventually(lambda: self.child.poll() is not None, f"death of {self.name}", DEATH_S)
        if self.child.poll() != -signal.SIGKILL:
            raise self.child.ended()

    @property
    def name(self) -> str:
        return self._name

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended by itself."""
        return self.wanted and not self.runs

    def peak_mb(self) -> int:
        """The most memory that the process has held, MB."""
        status = Path(f"/proc/{self.child.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024


class Keeper:
    """Starts a worker again when it ends by itself, as its systemd unit does: later, and not after status 2."""

    def __init__(self, worker: DoomedWorker, say: Callable[[str], None]) -> None:
        self._worker = worker
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper of {worker.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            if not self._worker.is_lost:
                continue
            status = self._worker.child.poll()
            self._say(f"  {self._worker.name} ended by itself with status {status}")
            if status == CANNOT_RUN or self._stop.wait(RESTART_S):
                return
            self._worker.start()
