"""`fleetbeat agent` as a process of its own, and what it has written to Kafka."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from infra.local.children import Child, fleetbeat
from infra.local.figures import total
from schemas.codec import decode
from schemas.records import Heartbeat, ProbeResult, RequestCount
from tests.integration.pages import asked
from tests.integration.worker_process import ANSWER_S, READY_S, eventually, read_log
from tests.ports import free_port

NODE = "agent-node-é"
# Something to probe that is there as long as the agent: its own port.
SELF = """
heartbeat: {interval_s: 0.5}
probes:
  - name: self
    service: agent
    endpoint: tcp
    impact: P2
    every_s: 0.5
    labels: {team: test}
    tcp: {host: 127.0.0.1, port: %PORT%}
  - name: nobody
    service: agent
    every_s: 0.5
    tcp: {host: 127.0.0.1, port: 1}
"""
R = TypeVar("R", Heartbeat, ProbeResult, RequestCount)


class AgentProcess:
    """One agent with a config of its own; it ends with the test."""

    def __init__(self, folder: Path, brokers: str, config: str = SELF, name: str = "agent") -> None:
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self.config = folder / f"{name}.yaml"
        self.config.write_text(
            f"node: {{id: {NODE}, region: eu-1, zone: eu-1a, labels: {{role: test}}}}\n"
            f"metrics: {{listen: '127.0.0.1:{self.port}'}}\n{config.replace('%PORT%', str(self.port))}",
            encoding="utf-8",
        )
        self._command = fleetbeat("agent", "--config", self.config, "--brokers", brokers)
        self._name = name
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self.kill()

    @property
    def child(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def start(self, *arguments: str) -> Self:
        self._child = Child(self._name, [*self._command, *arguments], self.log, grace_s=30)
        return self

    def await_ready(self, timeout_s: float = READY_S) -> Self:
        self.child.await_ready(lambda: None if self.get("/-/ready")[0] == 200 else "not ready", timeout_s)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer; status 0 when there is none."""
        return asked(self.port, path, timeout_s=ANSWER_S)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the samples that have these labels."""
        page = self.get("/metrics")[1].splitlines()
        kept = [line for line in page if all(f'{key}="{value}"' in line for key, value in labels.items())]
        return total("\n".join(kept), name)

    def await_metric(self, name: str, least: float, timeout_s: float = READY_S, **labels: str) -> float:
        """Its value once it is at least `least`."""

        def enough() -> float | None:
            value = self.metric(name, **labels)
            return value if value >= least else None

        return eventually(enough, f"{name} {labels} of {least}", timeout_s)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def stop(self) -> int:
        return self.child.stop()

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        self.child.kill()
        eventually(lambda: self.child.poll() is not None, "death")


def records(brokers: str, topic: str, kind: type[R], wanted: Callable[[R], bool] = lambda _: True) -> list[R]:
    """What this node wrote to a topic, in order; every record's key is its node id, raw."""
    found = []
    for logged in read_log(brokers, topic):
        record = decode(logged.value)
        assert isinstance(record, kind)
        assert logged.key == record.node_id.encode()
        if record.node_id == NODE and wanted(record):
            found.append(record)
    return sorted(found, key=lambda record: (record.boot_id, record.seq))


def boots(beats: list[Heartbeat]) -> list[str]:
    """Boot ids, oldest first."""
    return list(dict.fromkeys(beat.boot_id for beat in sorted(beats, key=lambda beat: beat.boot_ts)))
