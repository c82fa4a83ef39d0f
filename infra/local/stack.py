"""The processes of one stack: the order in which they start, when each is ready, and the order in which they stop."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from infra.kafka import LocalKafka
from infra.local.addresses import Addresses
from infra.local.agent import local_node_id, write_config
from infra.local.children import Child, ChildFailedError, child_environment, fleetbeat, unready
from infra.local.options import UpOptions, UpOptionsError, demo_file
from infra.progress import Board
from infra.state import LOOPBACK, pick_port
from schemas.kafka.option import VARIABLE

WORKER_PORT = 8080
SQL_PORT = 8123
# A broker that ends is noticed at once; so much is for a machine that does much else.
BROKER_TIMEOUT_S = 200.0
TOPICS_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0


def hand_on_kafka_config(options: UpOptions) -> None:
    """To all children, by the environment; to none of them when the broker is our own, which knows no TLS."""
    os.environ.pop(VARIABLE, None)
    if options.brokers is not None and options.kafka_config is not None:
        os.environ[VARIABLE] = str(options.kafka_config.absolute())


class Stack:
    """Starts what `fleetbeat up` needs in `folder`, and stops it in reverse order; `failure` watches it in between."""

    def __init__(self, options: UpOptions, folder: Path, board: Board) -> None:
        self.folder = folder
        self._options = options
        self._board = board
        self._broker: LocalKafka | None = None
        self._children: list[Child] = []
        self._agent: Child | None = None
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Raises RuntimeError before `start`."""
        if self._addresses is None:
            raise RuntimeError("this stack was never started")
        return self._addresses

    def start(self) -> None:
        """All but the fleet; returns when all are ready. Raises InfraError, UpOptionsError."""
        if self._options.objectives is not None:
            _refuse_bad_file(self._options.objectives)
        hand_on_kafka_config(self._options)
        self._addresses = where = self._choose_addresses(self._start_broker())
        self._apply_topics(where.kafka)
        views, sql, metrics = (url.removeprefix("http://") for url in (where.views, where.sql, where.archive_metrics))
        worker: list[str | Path] = [
            "--objectives",
            self._options.objectives_file,
            "--listen",
            views,
            "--state",
            self.folder / "worker",
            "--history",
            where.sql,
        ]
        if self._options.objectives is None:
            worker += ["--live", "checkout-latency"]
        archive: list[str | Path] = ["--store", self.folder / "store", "--listen", sql, "--metrics", metrics]
        # Both at once: each spends its first seconds on imports.
        begun = time.monotonic()
        children = [
            self._spawn("worker", "worker", "--brokers", where.kafka, *worker),
            self._spawn("archive", "archive", "--brokers", where.kafka, *archive),
        ]
        for child, health, shown in zip(
            children, (where.views, where.archive_metrics), (where.views, where.sql), strict=True
        ):
            with self._marked(child.name, shown, begun=begun):
                self._await_ready(child, f"{health}/-/ready")
        self._start_agent(where)

    def start_fleet(self, *, duration_s: float | None, ledger: Path | None) -> Child:
        """Starts the simulated fleet; without a duration it goes on until it is stopped."""
        options = self._options
        arguments: list[str | Path] = ["--nodes", str(options.nodes), "--rate", str(options.results_per_s)]
        arguments += ["--interval", str(options.heartbeat_every_s), "--script", demo_file("script.yaml")]
        for name, value in (
            ("--seed", options.seed),
            ("--duration", duration_s),
            ("--ledger", ledger),
        ):
            if value is not None:
                arguments += [name, str(value)]
        return self._spawn("simulate", "simulate", "--brokers", self.addresses.kafka, *arguments)

    def raise_failure(self) -> None:
        """Raises ChildFailedError when a process that should run has ended."""
        failure = self.failure()
        if failure is not None:
            raise failure

    def failure(self) -> ChildFailedError | None:
        """What to say when a process that should run has ended, else None; the agent is not meant."""
        for child in self._children:
            if child is not self._agent and child.poll() is not None:
                return child.ended()
        if self._broker is not None and (code := self._broker.poll()) is not None:
            said = "\n  ".join([f"the end of {self._broker.log_path}:", *self._broker.last_log_lines()])
            return ChildFailedError(f"broker ended with status {code}; {said}")
        return None

    @property
    def agent_pid(self) -> int:
        """Of this host's agent. Raises RuntimeError before `start`."""
        if self._agent is None:
            raise RuntimeError("this stack has no agent")
        return self._agent.pid

    def agent_failure(self) -> ChildFailedError | None:
        """What to say when this host's agent has ended, else None: its node turns DOWN, and all else goes on."""
        return None if self._agent is None or self._agent.poll() is None else self._agent.ended()

    def stop_agent(self) -> None:
        """Lets this host say goodbye. Raises ChildFailedError when its agent ended otherwise."""
        agent, self._agent = self._agent, None
        if agent is None:
            raise RuntimeError("this stack has no agent")
        self._board.mark(agent.name, "stopping")
        self.release(agent)
        if agent.stop() != 0:
            raise agent.ended()
        self._board.mark(agent.name, "stopped")

    def release(self, child: Child) -> None:
        """Takes a process that has ended as it should out of what is watched."""
        self._children.remove(child)

    def stop(self) -> None:
        """Stops each process and waits for it, the last started first."""
        for child in reversed(self._children):
            self._board.mark(child.name, "stopping")
            child.stop()
            self._board.mark(child.name, "stopped")
        self._children.clear()
        if self._broker is not None:
            self._board.mark("broker", "stopping")
            self._broker.stop()
            self._board.mark("broker", "stopped")

    def kill(self) -> None:
        """Ends at once all that still runs, by kill -9; waits for nothing, so that a signal handler may call it."""
        for child in self._children:
            child.kill()
        if self._broker is not None:
            with contextlib.suppress(RuntimeError, ProcessLookupError):  # it does not run, or no more
                os.kill(self._broker.pid, signal.SIGKILL)

    def _choose_addresses(self, brokers: str) -> Addresses:
        options = self._options
        ports = (
            pick_port(WORKER_PORT, options.worker_port, "the views"),
            pick_port(SQL_PORT, options.sql_port, "SQL"),
            pick_port(None, None, "metrics of the archive"),
            pick_port(None, None, "metrics of the agent"),
        )
        views, sql, archive, agent = (f"http://{LOOPBACK}:{port}" for port in ports)
        return Addresses(brokers, views, sql, archive, agent, local_node_id())

    def _start_broker(self) -> str:
        if self._options.brokers is not None:
            self._board.mark("broker", "ready", f"{self._options.brokers}, which was running")
            return self._options.brokers
        self._broker = LocalKafka(
            self.folder,
            port=self._options.kafka_port,
            progress=lambda line: self._board.mark("broker", "starting", line),
            start_timeout_s=BROKER_TIMEOUT_S,
        )
        with self._marked("broker") as ready:
            self._broker.start()
            ready.append(self._broker.bootstrap)
        return self._broker.bootstrap

    def _apply_topics(self, brokers: str) -> None:
        local = () if self._options.brokers is not None else ("--local",)
        child = self._spawn("topics", "topics", "apply", "--brokers", brokers, *local)
        with self._marked("topics", end="done"):
            child.await_end(TOPICS_TIMEOUT_S)
        self.release(child)

    def _start_agent(self, where: Addresses) -> None:
        config = self.folder / "agent.yaml"
        kafka_config = None if self._options.brokers is None else self._options.kafka_config
        write_config(config, where, self._options.heartbeat_every_s, self.folder, kafka_config)
        with self._marked("agent", where.node_id):
            agent = self._spawn("agent", "agent", "--config", config)
            self._await_ready(agent, f"{where.agent_metrics}/-/ready")
            self._await_ready(agent, where.node_page)
        self._agent = agent

    def _spawn(self, name: str, *arguments: str | Path) -> Child:
        self._board.mark(name, "starting")
        child = Child(name, fleetbeat(*arguments), self.folder / "logs" / f"{name}.log")
        self._children.append(child)
        return child

    def _await_ready(self, child: Child, url: str) -> None:
        def reason() -> str | None:
            self.raise_failure()
            return unready(url)

        child.await_ready(reason, READY_TIMEOUT_S)

    @contextlib.contextmanager
    def _marked(self, name: str, *words: str, end: str = "ready", begun: float | None = None) -> Iterator[list[str]]:
        """Shows a process as starting, then as `end` with how long that took, or as failed; yields its words."""
        begun = time.monotonic() if begun is None else begun
        shown = list(words)
        self._board.mark(name, "starting", *words)
        try:
            yield shown
        except Exception:
            self._board.mark(name, "failed")
            raise
        self._board.mark(name, end, " ".join([*shown, f"in {time.monotonic() - begun:.1f} s"]))


def _refuse_bad_file(objectives: Path) -> None:
    """The worker would say the same, but only when the broker runs. Raises UpOptionsError."""
    command = fleetbeat("check", objectives)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    if done.returncode != 0:
        raise UpOptionsError(done.stderr.strip())
