"""An agent process with a ledger of what it took, that may be told to die at a named point of its own."""

import http.client
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Self

from infra.local.children import Child
from infra.local.figures import total
from tests.faults.driver.mortal import Mortal
from tests.ports import free_port

READY_S = 300.0
ANSWER_S = 5.0
MODULE = "tests.faults.driver.dying_agent"
RUNS = "fleetbeat_agent_probe_runs_total"
WAITING = "fleetbeat_agent_records_waiting"
DROPPED = "fleetbeat_agent_records_dropped_total"
# Of each of the two topics; the segments of so small a spool hold 64 KiB.
SPOOL_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wired into an agent (dying_agent.py): `without` is the rule that a control lacks, `clock` a file."""

    ledger: str
    prefix: str = ""
    point: str | None = None
    nth: int = 0
    without: str | None = None
    clock: str | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """Where an agent kills itself."""

    point: str
    nth: int

    def __str__(self) -> str:
        return f"{self.point}, time {self.nth}"


# Before it is taken, after that (the ledger does not say so yet, or does), in the middle of writing it or the journal;
# its batch stands in the journal and has not left, is on its way, is acknowledged and that is not written yet.
# How often a point is passed in a second: with each record, or with each batch.
NAMED = {
    "offered": 60,
    "taken": 60,
    "accepted": 60,
    "half-record": 60,
    "half-journal": 20,
    "flown": 10,
    "unacked": 10,
    "acknowledged": 10,
}


def deaths(rng: Random, count: int) -> list[Death | None]:
    """The named points in any order, then at random moments, None, and at any of them."""
    points = list(NAMED)
    rng.shuffle(points)
    drawn: list[Death | None] = [Death(point, rng.randrange(1, NAMED[point])) for point in points]
    while len(drawn) < count:
        point = rng.choice(points)
        drawn.append(Death(point, rng.randrange(1, NAMED[point])) if rng.random() < 0.5 else None)
    return drawn[:count]


class LedgeredAgent(Mortal):
    """One agent; `start` may be called again after its end. `inside` is put before its command, as `ip netns exec`."""

    death_s = 300.0

    def __init__(
        self,
        folder: Path,
        brokers: str,
        target: str,
        name: str = "agent",
        *,
        spool: Path | None = None,
        without: str | None = None,
        prefix: str = "",
        clock: Path | None = None,
        inside: tuple[str, ...] = (),
        within: Callable[[Callable[[], str | None]], str | None] = lambda what: what(),
        probes: int = 10,
        memory_records: int = 2_000,
    ) -> None:
        super().__init__(name)
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self.spool = spool or folder / f"{name}-spool"
        self.probes = [f"{name}-{number}" for number in range(probes)]
        self.is_control = without is not None
        self._inside = inside
        self._within = within
        self._memory_records = memory_records
        self.prefix = prefix
        told = None if clock is None else str(clock)
        self._plan = Plan(str(folder / f"{name}.ledger"), self.prefix, without=without, clock=told)
        self._config = folder / f"{name}.yaml"
        self._config.write_text(json.dumps(self._file(target), indent=1), encoding="utf-8")
        self._brokers = brokers
        self.ends = 0
        """How often it has ended, or was ended."""

    def _file(self, target: str) -> dict[str, object]:
        return {
            "node": {"id": self.name, "region": "eu-1", "zone": "a"},
            "metrics": {"listen": f"127.0.0.1:{self.port}"},
            "heartbeat": {"interval_s": 0.2},
            "kafka": {"buffer_records": self._memory_records},
            "spool": {"dir": str(self.spool), "max_bytes": SPOOL_BYTES, "max_age_s": 1_800},
            "probes": [
                {
                    "name": name,
                    "service": "agents",
                    "every_s": 0.2,
                    "timeout_s": 0.2,
                    "http": {"url": f"{target}/{name}"},
                }
                for name in self.probes
            ],
        }

    @property
    def ledger(self) -> Path:
        return Path(self._plan.ledger)

    def start(self, death: Death | None = None) -> Self:
        plan = asdict(self._plan) | ({} if death is None else {"point": death.point, "nth": death.nth})
        command = [sys.executable, "-P", "-m", MODULE, json.dumps(plan)]
        options = ["--config", str(self._config), "--brokers", self._brokers]
        self._child = Child(self.name, [*self._inside, *command, *options], self.log, grace_s=60)
        self.wanted = death is None
        return self

    def await_death(self) -> None:
        """Raises ChildFailedError when it ended in another way."""
        super().await_death()
        self.ends += 1

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        self.ends += 1
        super().kill()

    def end(self) -> None:
        if self.runs:
            self.kill()

    def stop(self) -> int:
        """A stop in good order; the exit status."""
        self.wanted = False
        self.ends += 1
        self.note_peak()
        return self.child.stop()

    def await_idle(self) -> None:
        """Until it sends and less than two batches wait."""
        self._await(lambda: 0 <= self.metric(WAITING) < 60 and self.get("/-/ready") is not None, "nothing that waits")

    def await_runs(self, more: int) -> Self:
        """Until its probes have run so many times since the process began."""
        self._await(lambda: self.metric(RUNS) >= more, f"{more} runs")
        return self

    def await_more(self, name: str, more: int) -> None:
        """Until a metric has grown by so much."""
        before = self.await_metric(name, 0)
        self.await_metric(name, before + more)

    def await_metric(self, name: str, least: int, **labels: str) -> int:
        """Its value once it is at least that."""
        self._await(lambda: self.metric(name, **labels) >= least, f"{name} of {least}")
        return self.metric(name, **labels)

    def await_below(self, name: str, most: int) -> None:
        """Until a metric is less."""
        self._await(lambda: 0 <= self.metric(name) < most, f"{name} below {most}")

    def metric(self, name: str, **labels: str) -> int:
        """The sum over its series with these labels; -1 when it does not answer."""
        page = self.get("/metrics")
        if page is None:
            return -1
        lines = [line for line in page.splitlines() if all(f'{key}="{text}"' in line for key, text in labels.items())]
        return total("\n".join(lines), name)

    def get(self, path: str) -> str | None:
        """What it answers with 200; None for anything else."""
        return self._within(lambda: self._get(path))

    def _get(self, path: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return text if answer.status == http.client.OK else None

    def _await(self, what: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + READY_S
        while not what():
            if not self.runs:
                raise self.child.ended()
            assert time.monotonic() < deadline, f"{self.name}: no {name} within {READY_S:.0f} s"
            time.sleep(0.1)
