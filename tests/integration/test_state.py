"""`fleetbeat state`: what is shown is what is there, and what is begun anew comes out as the logs have it."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from infra.local.children import child_environment, fleetbeat
from streams.state.changes import exact_from_ms
from streams.state.cluster import Log
from streams.state.survey import TOPICS
from tests.integration.node_fleet import NodeFleet, SimulatedNode, known_from_log
from tests.integration.worker_process import (
    GROUP,
    Promise,
    Sender,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    now_ms,
    probe_result,
    read_log,
)

PARTITIONS = 2
ALL = Promise("all")
NODES = 10


class Given:
    """Some probe results and heartbeats, all of which the worker has counted."""

    def __init__(self, brokers: str) -> None:
        self.from_ms = now_ms()
        self._brokers = brokers
        self._sender = Sender(brokers)
        for seq in range(300):
            node = f"node-{seq % NODES}"
            self._sender.send(probe_result(node_id=node, seq=seq, ts=self.from_ms - 100 * seq, latency_us=seq))
        self._sender.flush()
        fleet = NodeFleet(brokers, [SimulatedNode(f"node-{n}", interval_ms=200) for n in range(NODES)])
        fleet.start()
        eventually(lambda: fleet.sent > 3 * NODES, "heartbeats")
        fleet.end()

    def differs(self, worker: WorkerProcess) -> list[str]:
        found = worker.slices(ALL, (self.from_ms - 60_000) // 1_000 * 1_000, now_ms() + 60_000)
        wanted = expected(ALL, counted(read_log(self._brokers), self._sender.events))
        return [found] if isinstance(found, str) else differences(wanted, found)

    def agrees(self, worker: WorkerProcess) -> None:
        eventually(lambda: not self.differs(worker), "agreement")
        known = {node_id: node.heartbeats for node_id, node in known_from_log(self._brokers).items()}
        eventually(lambda: heartbeats(worker) == known, "agreement on nodes")


def heartbeats(worker: WorkerProcess) -> dict[str, int]:
    status, answer = worker.get("/api/v1/nodes?limit=1000")
    return {node["node_id"]: node["heartbeats"] for node in answer["nodes"]} if status == 200 else {}


def state(brokers: str, *arguments: str) -> tuple[int, str, str]:
    command = fleetbeat("state", *arguments, "--brokers", brokers)
    done = subprocess.run(
        command,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def shown(brokers: str) -> dict[str, Any]:
    status, out, _ = state(brokers, "show", "--json")
    found: dict[str, Any] = json.loads(out)
    assert status == (1 if any(one["unreadable"] or one["newer"] for one in found["states"]) else 0)
    return found


def pages(brokers: str) -> int:
    return sum(one["pages"] for one in shown(brokers)["states"])


def administer(brokers: str, step: Callable[[AIOKafkaAdminClient], Any]) -> None:
    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        try:
            await step(admin)
        finally:
            await admin.close()

    asyncio.run(run())


@pytest.mark.kafka
@pytest.mark.slow
def test_state_is_shown_deleted_and_counted_again(brokers: str, worker: WorkerProcess) -> None:
    given = Given(brokers)
    given.agrees(worker)
    status, _, said = state(brokers, "reset", "--yes")
    assert (status, f"group {GROUP} has 1 members" in said, "stop every worker" in said) == (1, True, True), said
    assert worker.stop() == 0

    found = shown(brokers)
    slo = [one for one in found["states"] if one["family"] == "slo"]
    nodes = [one for one in found["states"] if one["family"] == "nodes"]
    assert len(slo) == len(nodes) == PARTITIONS
    assert found["members"] == []
    assert {one["topics"][-1]["topic_id"] for one in slo} == {found["topic_ids"]["slo-partials"]}
    assert all(one["applied_offset"] + 1 == one["commit"]["offset"] and one["lag"] == 0 for one in slo), slo
    assert all(set(one["chunks_s"]) == {"1s", "1m", "1h"} or not one["chunks_s"] for one in slo)
    assert sum(one["nodes"] for one in nodes) == NODES
    assert all(one["lag"] == 0 and one["log_end"] == one["commit"]["offset"] for one in nodes), nodes
    status, text, _ = state(brokers, "show", "--family", "slo", "--partition", "1")
    assert status == 0
    assert [line.split()[:2] for line in text.splitlines()[1:2]] == [["slo", "1"]]

    before = pages(brokers)
    status, out, said = state(brokers, "reset")
    assert (status, "expected --yes" in said) == (2, True)
    assert "nothing is lost" in out
    assert state(brokers, "reset", "--family", "tables")[0] == 2
    assert pages(brokers) == before > 0
    assert state(brokers, "reset", "--yes")[0] == 0
    assert pages(brokers) == 0
    assert all(one["commit"] is None for one in shown(brokers)["states"])
    worker.start().await_ready()
    given.agrees(worker)

    assert worker.stop() == 0
    ends = {TopicPartition("slo-partials", p): RecordsToDelete(-1) for p in range(PARTITIONS)}
    administer(brokers, lambda admin: admin.delete_records(ends))
    status, out, _ = state(brokers, "rebuild", "--yes")
    assert status == 0
    assert "300 records of probe-results are counted again; that is all there ever were" in out
    worker.start().await_ready()
    given.agrees(worker)


@pytest.mark.kafka
@pytest.mark.long
def test_another_number_of_partitions_is_refused_until_the_state_is_rebuilt(
    brokers: str, worker: WorkerProcess
) -> None:
    given = Given(brokers)
    given.agrees(worker)
    assert worker.stop() == 0
    more = dict.fromkeys((*TOPICS, "slo-status", "node-states", "dead-letters", "objectives"), NewPartitions(4))
    administer(brokers, lambda admin: admin.create_partitions(more))
    worker.start()
    eventually(lambda: worker.child.poll() is not None, "end")
    assert worker.child.poll() == 1
    assert "topics have 4 partitions, but the commit of " in worker.log.read_text()
    status, _, said = state(brokers, "reset", "--yes")
    assert (status, "the state was written with [2] partitions, topics have 4" in said) == (1, True), said
    assert state(brokers, "rebuild", "--family", "slo", "--yes")[0] == 0
    assert state(brokers, "rebuild", "--yes")[0] == 0
    worker.start().await_ready()
    given.agrees(worker)


@pytest.mark.parametrize(
    ("logs", "at_ms"),
    [
        pytest.param([Log(0, 5, 1_000), Log(0, 0, None)], None, id="nothing was ever deleted"),
        pytest.param([Log(3, 5, 1_000), Log(0, 9, 500)], 12_000, id="of one the beginning is gone"),
        pytest.param([Log(3, 5, 1_000), Log(1, 9, 7_000)], 18_000, id="of both: the later one decides"),
    ],
)
def test_tables_are_exact_from_where_no_log_lacks_anything(logs: list[Log], at_ms: int | None) -> None:
    assert exact_from_ms(logs) == at_ms
