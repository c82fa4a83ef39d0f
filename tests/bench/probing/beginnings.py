"""How soon an agent is of use, and what it costs when little happens."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.spool.layout import SEGMENT_HEADER_BYTES
from infra.state import pick_port
from tests.bench.probing.cores import ONE_CORE, Spent, pinned
from tests.bench.probing.ours import document, probe
from tests.bench.probing.targets import Targets

PROBES, EVERY_S = 10, 10.0
SETTLE_S, IDLE_S = 15.0, 60.0
POLL_S = 0.0005
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """How an agent is started: what stands before `agent --config FILE`, and its environment."""

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ColdStart:
    """From before exec until the first heartbeat is in a file of the spool; and the processor time by then."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Idle:
    """With ten probes every ten seconds whose results Kafka takes as they come.

    `scraped_rss_mb`: once somebody has asked for metrics, which brings in their library.
    """

    rss_mb: float
    pss_mb: float
    scraped_rss_mb: float
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Host:
    """A small agent's surroundings."""

    folder: Path
    brokers: str
    targets: Targets

    def cold_start(self, program: Program, number: int) -> ColdStart:
        """With an empty spool. A record written to its file outlives the process; the policy syncs it later."""
        spool = self.folder / f"cold-{number}"
        config = self._config(spool, None)
        began_s = time.perf_counter()
        with self._running(program, config) as process:
            while not _has_record(spool):
                if time.perf_counter() > began_s + PATIENCE_S or process.poll() is not None:
                    raise RuntimeError(f"no heartbeat in {spool} within {PATIENCE_S:.0f} s: {self._said()}")
                time.sleep(POLL_S)
            wall_s = time.perf_counter() - began_s
            return ColdStart(wall_s * 1_000, Spent.by(process.pid).cpu_s * 1_000)

    def idle(self, program: Program) -> Idle:
        """After a minute of it."""
        port = pick_port(None, None, "the agent")
        with self._running(program, self._config(self.folder / "idle", port)) as process:
            time.sleep(SETTLE_S)
            began = Spent.by(process.pid)
            time.sleep(IDLE_S)
            ended = Spent.by(process.pid)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                page: str = answer.read().decode()
            if page.count("probe_success{") != PROBES:
                raise RuntimeError(f"expected {PROBES} probes on the page: {page}")
            scraped = Spent.by(process.pid)
        cpu_percent = round(100 * (ended.cpu_s - began.cpu_s) / IDLE_S, 2)
        return Idle(ended.rss_mb, ended.pss_mb, scraped.rss_mb, cpu_percent)

    def _config(self, spool: Path, port: int | None) -> Path:
        probes = [probe(f"target-{number}", self.targets.url(number, 0), EVERY_S) for number in range(PROBES)]
        listen = None if port is None else f"127.0.0.1:{port}"
        path = self.folder / "small.yaml"
        agent = document("bench-small", self.brokers, spool, probes) | {"metrics": {"listen": listen}}
        path.write_text(json.dumps(agent), encoding="utf-8")
        return path

    @contextmanager
    def _running(self, program: Program, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
        command = [*program.command, "agent", "--config", str(config)]
        with pinned(ONE_CORE), (self.folder / "small.log").open("wb") as log:
            process = subprocess.Popen(command, env={**os.environ, **program.environment}, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _said(self) -> str:
        return (self.folder / "small.log").read_text()[-2_000:]


def _has_record(spool: Path) -> bool:
    return any(path.stat().st_size > SEGMENT_HEADER_BYTES for path in spool.glob("*/heartbeats/*.segment"))


def python_alone_ms() -> float:
    """What starting Python costs on this machine, for comparison."""
    with pinned(ONE_CORE):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-c", "pass"], check=True)
        return (time.perf_counter() - began_s) * 1_000
