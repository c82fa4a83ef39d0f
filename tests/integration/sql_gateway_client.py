"""Starts a SQL gateway in a process of its own, and asks it as clients do."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import clickhouse_connect
from clickhouse_connect.driver import Client

ROWS = 50_000
SERVER = Path(__file__).with_name("sql_gateway_process.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@dataclass(frozen=True)
class Reply:
    status: int
    code: str | None
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Server:
    """One gateway process."""

    def __init__(self, folder: Path, **limits: float | str) -> None:
        self._folder = folder
        command = [sys.executable, str(SERVER), str(folder / "store"), json.dumps(limits)]
        with (folder / "log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENVIRONMENT,
                cwd=folder,
            )
        self.address = str(self._hear())

    def client(self, user: str = "anyone", password: str = "anything") -> Client:  # noqa: S107 - made up
        host, port = self.address.split(":")
        return clickhouse_connect.get_client(host=host, port=int(port), username=user, password=password)

    def ask(
        self, sql: str | bytes | None = None, headers: dict[str, str] | None = None, path: str = "/", **asked: str
    ) -> Reply:
        data = sql.encode() if isinstance(sql, str) else sql
        request = Request(f"http://{self.address}{path}?{urlencode(asked)}", data, headers or {})
        try:
            with urlopen(request, timeout=120) as found:  # noqa: S310
                return Reply(found.status, None, dict(found.headers), found.read())
        except HTTPError as problem:
            with problem:
                headers = dict(problem.headers)
                return Reply(problem.code, headers.get("X-ClickHouse-Exception-Code"), headers, problem.read())

    @property
    def log(self) -> str:
        """What it wrote to stderr and as log lines."""
        return (self._folder / "log").read_text(encoding="utf-8")

    def tell(self, command: str) -> Any:  # noqa: ANN401 - JSON
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)
        return self._hear()

    def stop(self) -> int:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.process.wait()

    def _hear(self) -> Any:  # noqa: ANN401 - JSON
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the server ended: {self.log[-2000:]}")
        return json.loads(line)
