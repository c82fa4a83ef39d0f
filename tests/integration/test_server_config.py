"""`fleetbeat worker --config` and `fleetbeat archive --config` as processes: a changed file, a bad one, a restart."""

import json
import os
import signal
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from infra.local.children import Child, fleetbeat
from tests.integration.pages import asked
from tests.integration.worker_process import READY_S, Promise, eventually, write_objectives
from tests.ports import free_port

PARTITIONS = 2

pytestmark = [pytest.mark.kafka, pytest.mark.long]


class Server:
    """A process with a file, and its pages on a port."""

    def __init__(self, process: str, folder: Path, port: int) -> None:
        self.process = process
        self.path = folder / f"{process}.yaml"
        self.port = port
        self.log = folder / f"{process}.log"
        self.child: Child

    @contextmanager
    def running(self, text: str, *options: str) -> Iterator["Server"]:
        self.write(text)
        self.child = Child(self.process, fleetbeat(self.process, "--config", self.path, *options), self.log, grace_s=30)
        try:
            self.child.await_ready(lambda: None if asked(self.port, "/-/ready")[0] == 200 else "not ready", READY_S)
            yield self
            assert self.child.stop() == 0
        finally:
            if self.child.poll() is None:
                self.child.kill()

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def is_in_effect(self) -> bool:
        version = sha256(self.path.read_bytes()).hexdigest()[:12]
        return f'fleetbeat_{self.process}_config_info{{version="{version}"}} 1.0' in asked(self.port, "/metrics")[1]

    def reload(self) -> tuple[int, dict[str, Any]]:
        status, text = asked(self.port, "/-/reload", "POST")
        return status, json.loads(text)

    def says(self, text: str) -> bool:
        return text in self.log.read_text()


def test_a_worker_follows_its_file(brokers: str, tmp_path: Path) -> None:
    slos = write_objectives(tmp_path / "one.yaml", [Promise("x")])
    others = write_objectives(tmp_path / "two.yaml", [Promise("x"), Promise("y")])
    port = free_port()
    fixed = f"kafka: {{brokers: {brokers}}}\nstate: {tmp_path / 'state'}\n"
    with Server("worker", tmp_path, port).running(
        f"{fixed}objectives: {slos}\nlisten: 127.0.0.1:9\n", "--listen", f"127.0.0.1:{port}"
    ) as worker:
        assert worker.is_in_effect()
        worker.write(f"{fixed}objectives: {others}\nlimits: {{series_max: 2000, nodes_max: 7}}\nlog_level: warning\n")
        eventually(worker.is_in_effect, "notice of the file")
        said = worker.reload()[1]
        assert (said["announced"], said["objectives"], said["config"]["result"]) == (False, 2, "unchanged")
        good = worker.path.read_text()
        worker.write(good.replace("warning", "loud"))
        os.kill(worker.child.pid, signal.SIGHUP)
        eventually(lambda: worker.says("value 'loud': expected 'debug', 'info', 'warning' or 'error'"), "refusal")
        worker.write(good + "live: [x]\nstall_after_s: 5\n")
        status, said = worker.reload()
        assert (status, said["needs_restart"]) == (409, ["live"])
        assert not worker.is_in_effect()
        worker.write(good)
        assert worker.reload()[1]["config"]["result"] == "unchanged"
        assert worker.is_in_effect()


def test_an_archive_follows_its_file(brokers: str, tmp_path: Path) -> None:
    port, sql = free_port(), free_port()
    fixed = f"kafka: {{brokers: {brokers}}}\nstore: {tmp_path / 'store'}\n"
    fixed += f"listen: 127.0.0.1:{sql}\nmetrics: 127.0.0.1:{port}\n"

    def answer(query: str) -> str:
        return asked(sql, f"/?query={urllib.parse.quote(query)}")[1]

    def in_force() -> tuple[str, bool]:
        kept = answer("SHOW CREATE TABLE telemetry.heartbeats")
        return answer("SELECT getSetting('max_execution_time')").strip(), "toIntervalDay(9)" in kept

    with Server("archive", tmp_path, port).running(f"{fixed}sql: {{execution_s: 20}}\n") as archive:
        assert archive.is_in_effect()
        assert in_force() == ("20", False)
        archive.write(f"{fixed}sql: {{execution_s: 9}}\nkeep: {{heartbeats: 9d}}\nbatches: {{wait_s: 2}}\n")
        eventually(archive.is_in_effect, "notice of the file")
        assert in_force() == ("9", True)
        archive.write(fixed.replace(str(port), "1") + "sql: {execution_s: 8}\n")
        assert archive.reload()[1]["needs_restart"] == ["metrics"]
        archive.write(f"{fixed}cold_after: {{heartbeats: 1d}}\nsql: {{execution_s: 8}}\n")
        status, said = archive.reload()
        assert (status, "no storage policy with the volumes cold, default" in said["problems"][0]) == (422, True)
        assert in_force() == ("9", True)
        archive.write(f"{fixed}keep: [heartbeats]\n")
        os.kill(archive.child.pid, signal.SIGHUP)
        eventually(lambda: archive.says("keep: value ['heartbeats']: expected a mapping"), "refusal")
        assert in_force() == ("9", True)
        assert asked(port, "/-/ready")[0] == 200
