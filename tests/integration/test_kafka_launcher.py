"""The local broker: its data outlives it, and it outlives nobody."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra import InfraError
from infra.kafka import LocalKafka
from infra.kafka.metadata import answering_cluster
from infra.state import PortTaken, is_free, pick_port
from infra.topics import run_apply
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

AGAIN_WITHIN_S = 200.0
UP = """
import pathlib, sys, time
from infra.kafka import LocalKafka
broker = LocalKafka(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]), heap_mb=256, start_timeout_s=200)
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that is formatted once; tests leave no broker in it."""
    return tmp_path_factory.mktemp("state")


def new_broker(folder: Path) -> LocalKafka:
    return LocalKafka(folder, port=free_port(), heap_mb=256, start_timeout_s=200)


def runs(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody reaps has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):  # it may end between open and read
        return False


def await_end(broker: LocalKafka) -> None:
    deadline = time.monotonic() + 60
    while broker.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def send(bootstrap: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait("probe-results", value, partition=0)


async def read(bootstrap: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([TopicPartition("probe-results", 0)])
        await consumer.seek_to_beginning()
        return [(await asyncio.wait_for(consumer.getone(), 60)).value for _ in range(count)]


def test_data_outlives_a_kill_a_stop_and_a_change_of_port(folder: Path) -> None:
    with new_broker(folder) as broker:
        assert run_apply(broker.bootstrap, 1, local=True) == 0
        asyncio.run(send(broker.bootstrap, b"before the kill"))
        port = broker.port
        os.kill(broker.pid, signal.SIGKILL)
        await_end(broker)
        assert broker.poll() == -signal.SIGKILL
        broker.start()
        assert broker.port == port
        asyncio.run(send(broker.bootstrap, b"after the kill"))
    assert is_free(port)
    with new_broker(folder) as another:
        assert another.port != port
        assert asyncio.run(read(another.bootstrap, 2)) == [b"before the kill", b"after the kill"]


def test_kill_9_of_the_parent_ends_the_broker_and_the_folder_starts_again(folder: Path) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", UP, folder, str(port)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        cluster = answering_cluster(port, timeout_s=30)
        assert cluster is not None
        begun = time.monotonic()
        parent.kill()
    # Whoever starts again at once gets the folder and the port all the same, as soon as the broker is gone.
    with LocalKafka(folder, port=port, heap_mb=256, start_timeout_s=200) as broker:
        assert not runs(pid)
        assert time.monotonic() - begun < AGAIN_WITHIN_S
        assert answering_cluster(broker.port, timeout_s=30) == cluster


def test_a_broker_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broker = new_broker(tmp_path)
    data = broker.folder / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=abc\nnode.id=7\n")
    with pytest.raises(InfraError, match=r"ended with status 1 while starting; the end of .*broker\.log:\n") as caught:
        broker.start()
    assert "configured node id matches" in str(caught.value)
    assert broker.poll() is None


def test_a_port_asked_for_and_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1, asked for Kafka, is taken"):
            LocalKafka(tmp_path, port=port).start()
    assert not (tmp_path / "kafka" / "data").exists()


def test_a_port_lost_between_the_look_and_the_bind_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as faster:
        lost = [faster.getsockname()[1]]

        def pick(_preferred: int | None, explicit: int | None, used_for: str) -> int:
            return lost.pop() if used_for == "Kafka" and lost else pick_port(None, explicit, used_for)

        monkeypatch.setattr("infra.kafka.broker.pick_port", pick)
        broker = LocalKafka(folder, heap_mb=256, start_timeout_s=200)
        with broker:
            assert broker.port != faster.getsockname()[1]
