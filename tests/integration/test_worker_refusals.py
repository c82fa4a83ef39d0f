"""What a worker does not start with, or does not go on with, and what it says then."""

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

import fleetbeat
from infra.kafka import LocalKafka
from infra.local.children import child_environment
from infra.local.children import fleetbeat as command_of
from tests.conftest import drop_topics
from tests.integration.worker_process import (
    READY_S,
    SOURCE,
    Promise,
    Sender,
    WorkerProcess,
    eventually,
    probe_result,
    write_objectives,
)
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PROMISES = (Promise("all"),)
PAGES = "fleetbeat-worker-pages-changelog"


@pytest.fixture
def objectives(tmp_path: Path) -> Path:
    return write_objectives(tmp_path / "slos.yaml", PROMISES)


def ended(folder: Path, *options: str | Path, brokers: str = "127.0.0.1:1") -> tuple[int, str]:
    """Exit status and stderr of a worker that ends by itself."""
    command = command_of("worker", "--brokers", brokers, "--state", folder / "state", *options)
    done = subprocess.run(
        command, env=child_environment(), cwd=folder, capture_output=True, text=True, check=False, timeout=READY_S
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: str | Path) -> tuple[int, str]:
    """The same of one that is told before anything is started, so that it may be called in this process."""
    command = ("worker", "--brokers", "127.0.0.1:1", "--state", folder / "state", *options)
    status = fleetbeat.main([str(word) for word in command])
    out, said = capsys.readouterr()
    assert out == ""
    return status, said


def administer(brokers: str, step: Callable[[AIOKafkaAdminClient], Awaitable[object]]) -> None:
    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        try:
            await step(admin)
        finally:
            await admin.close()

    asyncio.run(run())


async def delete(admin: AIOKafkaAdminClient, topic: str) -> None:
    await admin.delete_topics([topic])
    async with asyncio.timeout(60):
        while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.05)


def test_a_bad_objectives_file_is_refused_with_every_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, objectives: Path
) -> None:
    text = objectives.read_text().replace("Occurrences", "RatioTimeslices").replace("target: 0.99", "target: 99")
    objectives.write_text(text)
    lines = text.splitlines()
    status, said = refused(capsys, tmp_path, "--objectives", objectives)
    assert status == 2
    places = re.findall(rf"{re.escape(str(objectives))}:(\d+):(\d+): (\S+): (.*expected.*)", said)
    assert [field for _, _, field, _ in places] == ["spec.budgetingMethod", "spec.objectives.0.target"], said
    for line, column, field, _ in places:
        assert lines[int(line) - 1][int(column) - 1 :].startswith(field.rpartition(".")[2])
    assert "Traceback" not in said


def test_a_missing_objectives_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, said = refused(capsys, tmp_path, "--objectives", tmp_path / "none.yaml")
    assert (status, said.count("\n")) == (2, 1)
    assert "none.yaml: no such file" in said


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1"])
def test_addresses_that_are_not_loopback_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, objectives: Path, listen: str
) -> None:
    status, said = refused(capsys, tmp_path, "--objectives", objectives, "--listen", listen)
    assert (status, said.count("\n")) == (2, 1), said
    assert listen in said
    assert "expected" in said


def test_brokers_that_do_not_answer_are_named(tmp_path: Path, objectives: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    status, said = ended(tmp_path, "--objectives", objectives, "--listen", "127.0.0.1:0", brokers=nobody)
    assert status == 1
    assert nobody in said.splitlines()[-1]
    assert "Traceback" not in said


def test_missing_topics_are_named(topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path) -> None:
    brokers = topics(2).bootstrap
    asyncio.run(drop_topics(brokers))
    status, said = ended(tmp_path, "--objectives", objectives, "--listen", "127.0.0.1:0", brokers=brokers)
    assert status == 1
    assert "probe-results" in said
    assert "slo-partials" in said
    assert "fleetbeat topics apply" in said
    assert "Traceback" not in said


def test_the_topic_of_the_pages_is_not_left_to_faust(
    topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path
) -> None:
    brokers = topics(2).bootstrap
    administer(brokers, lambda admin: delete(admin, PAGES))
    status, said = ended(tmp_path, "--objectives", objectives, "--listen", "127.0.0.1:0", brokers=brokers)
    assert (status, PAGES in said, "Traceback" in said) == (1, True, False), said


def test_different_partition_counts_are_refused(
    topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path
) -> None:
    brokers = topics(2).bootstrap
    administer(brokers, lambda admin: delete(admin, "slo-status"))
    administer(brokers, lambda admin: admin.create_topics([NewTopic("slo-status", 3, 1)]))
    status, said = ended(tmp_path, "--objectives", objectives, "--listen", "127.0.0.1:0", brokers=brokers)
    assert status == 1
    assert "'slo-status': 3" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_said_in_a_sentence(
    topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path
) -> None:
    brokers = topics(2).bootstrap
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = ended(tmp_path, "--objectives", objectives, "--listen", listen, brokers=brokers)
    assert status == 1
    assert listen in said
    assert "Traceback" not in said


def test_times_of_producers_are_refused(topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path) -> None:
    brokers = topics(2).bootstrap
    without = ConfigResource(ConfigResourceType.TOPIC, SOURCE, {"message.timestamp.type": "CreateTime"})
    administer(brokers, lambda admin: admin.alter_configs([without]))
    sender = Sender(brokers)
    sender.send(probe_result())
    sender.flush()
    status, said = ended(tmp_path, "--objectives", objectives, "--listen", "127.0.0.1:0", brokers=brokers)
    assert status == 1
    assert f"topic {SOURCE}" in said
    assert "expected message.timestamp.type=LogAppendTime (run `fleetbeat topics apply`)" in said


def test_a_free_port_is_taken_for_port_0_and_told(
    topics: Callable[[int], LocalKafka], tmp_path: Path, objectives: Path
) -> None:
    with WorkerProcess(topics(2).bootstrap, tmp_path, objectives, listen="127.0.0.1:0") as worker:
        worker.start()

        def told() -> str | None:
            lines = [json.loads(line) for line in worker.log.read_text().splitlines() if '"views"' in line]
            return lines[0]["address"] if lines else None

        worker.port = int(eventually(told, "address").rpartition(":")[2])
        worker.await_ready()
