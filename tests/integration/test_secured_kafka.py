"""Agent and worker on a broker with TLS, users and ACLs: the SLO is exact, and who lacks a right is told which."""

import asyncio
from collections.abc import Iterator

import pytest

from infra.local.children import Child, fleetbeat, unready
from schemas.records import ProbeResult
from tests.integration.agent_process import SELF, AgentProcess
from tests.integration.secured_world import Secured, read_results, secured_broker
from tests.integration.worker_process import READY_S, Promise, WorkerProcess, eventually, write_objectives
from tests.ports import free_port

pytestmark = [pytest.mark.kafka]

ALL = Promise("all")
EVENTS = 8


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as world:
        yield world


def test_agent_and_worker_as_their_own_principals_keep_an_exact_slo(
    secured: Secured, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, brokers = tmp_path_factory.mktemp("exact"), secured.broker.bootstrap
    objectives = write_objectives(folder / "slos.yaml", [ALL])
    config = SELF + secured.for_agent(secured.listeners.kafka_config("collector"))
    options = ("--kafka-config", str(secured.listeners.kafka_config("worker")))
    archive_port = free_port()
    archive = Child(
        "archive",
        fleetbeat(
            *("archive", "--brokers", brokers, "--kafka-config", secured.listeners.kafka_config("archive")),
            *("--store", folder / "store", "--listen", f"127.0.0.1:{free_port()}"),
            *("--metrics", f"127.0.0.1:{archive_port}"),
        ),
        folder / "archive.log",
        grace_s=30,
    )
    try:
        with (
            AgentProcess(folder, brokers, config) as agent,
            WorkerProcess(brokers, folder, objectives, options=options) as worker,
        ):
            agent.start()
            worker.start()
            agent.await_ready()
            agent.await_metric("fleetbeat_agent_records_acknowledged_total", EVENTS, topic="probe-results")
            assert agent.stop() == 0
            worker.await_ready()
            sent = asyncio.run(read_results(secured.as_("admin")))
            assert len(sent) >= EVENTS
            wanted = {"total": len(sent), "good": sum(event.success for event in sent)}
            assert 0 < wanted["good"] < wanted["total"]
            eventually(lambda: counted(worker, sent) == wanted, f"{wanted}")
            assert worker.metric("fleetbeat_rollup_late_events_total") == 0
            assert worker.stop() == 0
        archive.await_ready(lambda: unready(f"http://127.0.0.1:{archive_port}/-/ready"), READY_S)
    finally:
        archive.stop()


def counted(worker: WorkerProcess, sent: list[ProbeResult]) -> dict[str, int]:
    first = min(event.ts for event in sent) // 10_000 * 10_000
    slices = worker.slices(ALL, first, first + 3_600_000)
    if isinstance(slices, str):
        return {}
    return {name: sum(row[name] for row in slices.values()) for name in ("total", "good")}
