"""Fixtures that several integration tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.sql_gateway_client import Server


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def one(**limits: float) -> Server:
        started.append(Server(tmp_path, **limits))
        return started[-1]

    yield one
    for server in started:
        server.stop()
