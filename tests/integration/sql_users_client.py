"""Users of a gateway in tests, and how they ask."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streams.archive.passwords import PasswordHash
from tests.integration.sql_gateway_client import Server

SECRET = "open-sesame"  # noqa: S105 - made up
FOREVER = "SELECT count() FROM numbers(1e12) WHERE sipHash64(number) = 1"
ADMIN = {"X-ClickHouse-User": "admin", "X-ClickHouse-Key": SECRET}
READER = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": SECRET}


def users_file(folder: Path, secret: str = SECRET) -> Path:
    hashed = PasswordHash.of(secret)
    file = folder / "users.yaml"
    file.write_text(
        f"""users:
  admin: {{password: {hashed}, scopes: [telemetry, system]}}
  reader: {{password: {hashed}}}
  small: {{password: {hashed}, limits: {{read_rows: 1000, result_bytes: 100000}}}}
  single: {{password: {hashed}, limits: {{running: 1, execution_s: 1}}}}
""",
        encoding="utf-8",
    )
    file.chmod(0o600)
    return file


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def slow(server: Server, headers: dict[str, str]) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads(server.ask(None, headers, "/-/slow").text)
    assert found["slower_than_s"] == 0.3
    queries: list[dict[str, Any]] = found["queries"]
    return queries


def open_query(server: Server, sql: str, **asked: str) -> HTTPConnection:
    connection = HTTPConnection(server.address, timeout=60)
    connection.request("POST", "/?" + urlencode(asked), sql, READER)
    return connection


def wait_for(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    until_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until_s, "it never became so"
        time.sleep(0.05)
