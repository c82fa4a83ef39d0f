"""Fixtures that several integration tests share."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTopics
from tests.integration.sql_gateway_client import Server
from tests.integration.worker_process import Promise, WorkerProcess, write_objectives

ALL = (Promise("all"),)


@pytest.fixture
def rng() -> random.Random:
    """Drawn anew for each test; a failed one shows its seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def brokers(topics: MakeTopics, request: pytest.FixtureRequest) -> str:
    """The address of the shared broker with empty topics, of as many partitions as the file's PARTITIONS says."""
    return topics(request.module.PARTITIONS).bootstrap


@pytest.fixture
def start(brokers: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., WorkerProcess]]:
    """`start(name, *options)` makes a worker and starts it, with the file's PROMISES, or one of everything."""
    objectives = write_objectives(tmp_path / "slos.yaml", getattr(request.module, "PROMISES", ALL))
    started: list[WorkerProcess] = []

    def one(name: str = "worker", *options: str) -> WorkerProcess:
        started.append(WorkerProcess(brokers, tmp_path, objectives, name, options=options).start())
        return started[-1]

    yield one
    for worker in started:
        worker.__exit__()


@pytest.fixture
def worker(start: Callable[..., WorkerProcess]) -> WorkerProcess:
    """One that is ready."""
    return start().await_ready()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def one(**limits: float) -> Server:
        started.append(Server(tmp_path, **limits))
        return started[-1]

    yield one
    for server in started:
        server.stop()
