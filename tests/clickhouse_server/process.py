"""The test server from outside: started, killed, stopped, asked."""

import sys
import urllib.request
from pathlib import Path
from typing import Self

from infra.local.children import Child, unready
from infra.oracle.sources import Sql
from infra.state import LOOPBACK
from tests.clickhouse_server.shim import Shim
from tests.integration.worker_process import eventually
from tests.ports import free_port

START_S = 120.0


class ClickHouseProcess:
    """A server on a port of its own; `start` may be called again after `kill`, on the same folder."""

    def __init__(self, folder: Path, shim: Shim | None = None) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.sql = Sql(self.url)
        self.shim = shim
        self._folder = folder
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self.kill()

    def start(self) -> Self:
        command: list[str | Path] = [
            sys.executable,
            "-P",
            "-m",
            "tests.clickhouse_server.server",
            self._folder / "store",
            str(self.port),
        ]
        prefix: list[str | Path] = self.shim.prefix if self.shim else []
        self._child = Child("clickhouse", [*prefix, *command], self._folder / "clickhouse.log")
        self._child.await_ready(lambda: unready(f"{self.url}/ping"), START_S)
        return self

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        child = self._child
        assert child is not None, "not started"
        child.kill()
        eventually(lambda: child.poll() is not None, "end of the server", START_S)

    def command(self, sql: str) -> None:
        """Runs a statement that gives nothing back. Raises OSError."""
        request = urllib.request.Request(f"{self.url}/", sql.encode())  # noqa: S310 - http, ours
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            answer.read()
