"""An archive process that may be told to die at a named point of its own, and the stores that archives fill."""

import os
import signal
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Self

from infra.local.children import Child, unready
from infra.local.figures import total
from infra.oracle.sources import Sql, UnavailableError
from infra.state import LOOPBACK
from tests.clickhouse_server.shim import Shim
from tests.faults.driver.mortal import Mortal
from tests.integration.worker_process import eventually
from tests.ports import free_port

READY_S = 400.0
MODULE = "tests.faults.driver.dying_archive"


@dataclass(frozen=True, slots=True)
class Death:
    """Where an archive kills itself: see dying_archive.py. `part_of`: the table whose part is renamed, else `table`."""

    point: str
    table: str = "probe_results"
    nth: int = 1
    part_of: str | None = None

    def __str__(self) -> str:
        of = f" of {self.part_of}" if self.part_of else ""
        return f"{self.point}{of} at insert {self.nth} into {self.table}"

    @property
    def options(self) -> list[str]:
        part_of = ["--part-of", self.part_of] if self.part_of else []
        return ["--point", self.point, "--table", self.table, "--nth", str(self.nth), *part_of]


# Each once, whatever the seed: before the insert, in its middle, after it, and at both sides of a part's rename.
NAMED = (
    ("before-insert", "probe_results"),
    ("at-rename", "probe_results"),
    ("after-insert", "probe_results"),
    ("after-rename", "probe_results"),
    ("half-insert", "probe_results"),
    ("lost-answer", "probe_results"),
    ("at-rename", "archive_plans"),
    ("after-rename", "archive_plans"),
    ("at-rename", "heartbeats"),
    ("before-insert", "heartbeats"),
)
SHORT = (NAMED[1], NAMED[2])


def deaths(rng: Random, *, long: bool, rollups: list[str]) -> list[Death]:
    """The named points in any order; the rename of each rollup's part among them."""
    drawn = [Death(point, table, rng.randrange(1, 4)) for point, table in (NAMED if long else SHORT)]
    drawn += [
        Death(point, nth=rng.randrange(1, 4), part_of=rollup)
        for rollup in rollups
        for point in (("at-rename", "after-rename") if long else ("at-rename",))
    ]
    rng.shuffle(drawn)
    return drawn


class ArchiveProcess(Mortal):
    """One archive; `start` may be called again after `kill`. `options` say which store and group."""

    def __init__(self, name: str, folder: Path, options: list[str | Path], shim: Shim | None = None) -> None:
        super().__init__(name)
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._folder = folder
        self._options = options
        self.shim = shim

    def start(self, death: Death | None = None) -> Self:
        if self.shim is not None:
            self.shim.calm()
        command = [sys.executable, "-P", "-m", MODULE, *self._options, "--metrics", self.url.removeprefix("http://")]
        prefix: list[str | Path] = self.shim.prefix if self.shim else []
        log = self._folder / f"{self.name}.log"
        self._child = Child(self.name, [*prefix, *command, *(death.options if death else [])], log, grace_s=60)
        self.wanted = death is None
        return self

    def await_ready(self) -> Self:
        self.child.await_ready(lambda: unready(f"{self.url}/-/ready"), READY_S)
        return self

    def is_ready(self) -> bool:
        return unready(f"{self.url}/-/ready") is None

    def stop(self) -> None:
        self.wanted = False
        self.note_peak()
        if self.child.stop() != 0:
            raise self.child.ended()

    def pause(self) -> None:
        os.kill(self.child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)

    def end(self) -> None:
        """Whatever it is doing."""
        if self.runs:
            self.resume()
            self.child.kill()
            eventually(lambda: self.child.poll() is not None, f"end of {self.name}", self.death_s)

    def metric(self, name: str) -> int | None:
        """The sum of a metric over its labels; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310 - http, ours
                return total(str(answer.read(), "utf-8"), name)
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class FilledStore:
    """A store, the archives that fill it, and how it is asked."""

    name: str
    archives: tuple[ArchiveProcess, ...]
    sql: Sql

    def number(self, query: str) -> int:
        """The only value of the answer; -1 while nobody answers."""
        try:
            return self.sql.number(query)
        except UnavailableError:
            return -1
