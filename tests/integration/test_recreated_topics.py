"""Topics that are deleted and created again under their name: nothing of the new one passes for a repetition."""

import asyncio
from contextlib import suppress

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from infra.topics import run_apply
from tests.integration.node_fleet import NodeFleet, SimulatedNode, known_from_log
from tests.integration.worker_process import (
    SOURCE,
    Counted,
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

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 2
ALL = Promise("all")
NODES = 12


def recreate(brokers: str, *topics: str, partitions: int = PARTITIONS) -> None:
    delete_topics(brokers, *topics)
    assert run_apply(brokers, partitions, local=True) == 0


def delete_topics(brokers: str, *topics: str) -> None:
    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        try:
            await admin.delete_topics(list(topics))
            async with asyncio.timeout(60):
                while set(topics) & set(await admin.list_topics()):  # noqa: ASYNC110 - the broker tells nobody
                    await asyncio.sleep(0.02)
        finally:
            await admin.close()

    asyncio.run(delete())


class Ledger:
    """What was sent, over all topics of the name."""

    def __init__(self, brokers: str) -> None:
        self.from_ms = now_ms()
        self.counted: list[Counted] = []
        self._brokers = brokers
        self._sequence = 0

    def send(self, count: int, ts_ms: int) -> None:
        """Events of one moment, in every partition."""
        sender = Sender(self._brokers)
        for _ in range(count):
            self._sequence += 1
            sender.send(
                probe_result(node_id=f"node-{self._sequence % NODES}", seq=self._sequence, ts=ts_ms, latency_us=100)
            )
        sender.flush()
        self._sent = sender.events

    def note(self) -> None:
        """What the topic that is there now holds of the last ones."""
        self.counted += counted(read_log(self._brokers), self._sent)

    def differs(self, worker: WorkerProcess) -> list[str]:
        found = worker.slices(ALL, self.from_ms // 1_000 * 1_000 - 60_000, now_ms() + 60_000)
        return [found] if isinstance(found, str) else differences(expected(ALL, self.counted), found)

    def agrees(self, worker: WorkerProcess, timeout_s: float = 120) -> None:
        with suppress(AssertionError):
            eventually(lambda: alive(worker) and not self.differs(worker), "agreement", timeout_s)
        assert self.differs(worker) == []


def alive(worker: WorkerProcess) -> bool:
    """One that has ended itself is started again, as a service manager would."""
    if worker.child.poll() is not None:
        worker.start()
    return True


def test_probe_results_created_anew_while_no_worker_runs(brokers: str, worker: WorkerProcess) -> None:
    """Events of one second stand in both topics: those of the second one have the smaller offsets."""
    ledger = Ledger(brokers)
    for _ in range(4):
        before = len(ledger.counted)
        moment = now_ms() + 4_000
        ledger.send(400, moment)
        ledger.note()
        ledger.agrees(worker)
        assert worker.stop() == 0
        recreate(brokers, SOURCE)
        ledger.send(60, moment)
        ledger.note()
        worker.start().await_ready()
        ledger.agrees(worker)
        if not any(entry.late for entry in ledger.counted[before:]):
            break
    else:
        pytest.fail("this machine takes longer for all that than a second stays open: nothing was proved")
    ledger.send(10, now_ms() + 2_000)
    ledger.note()
    ledger.agrees(worker)


def test_probe_results_created_anew_under_a_running_worker(brokers: str, worker: WorkerProcess) -> None:
    """Also when the new topic is soon longer than the old one was: its offsets look as if they went on."""
    ledger = Ledger(brokers)
    moment = now_ms() + 4_000
    ledger.send(100, moment)
    ledger.note()
    ledger.agrees(worker)
    recreate(brokers, SOURCE)
    ledger.send(600, moment)
    ledger.note()
    ledger.agrees(worker)
    worker.await_ready()
    ledger.agrees(worker)


@pytest.mark.long
@pytest.mark.parametrize("running", [False, True])
def test_slo_partials_created_anew(brokers: str, worker: WorkerProcess, running: bool) -> None:  # noqa: FBT001 - a case
    """Cells that were on their way are gone with the topic: they are counted again, and the others are not doubled."""
    ledger = Ledger(brokers)
    ledger.send(300, now_ms())
    ledger.note()
    ledger.agrees(worker)
    eventually(lambda: worker.metric("fleetbeat_pages_total"), "pages")
    if not running:
        assert worker.stop() == 0
        ledger.send(200, now_ms())
        ledger.note()
    recreate(brokers, "slo-partials")
    if not running:
        worker.start()
    ledger.send(50, now_ms() + 1_000)
    ledger.note()
    ledger.agrees(worker)
    worker.await_ready()
    said = worker.log.read_text()
    assert "what was read went into a topic of id" in said
    assert "the tables go on from pages of a topic that was deleted since" in said


@pytest.mark.parametrize("running", [False, pytest.param(True, marks=pytest.mark.long)])
def test_heartbeats_created_anew(brokers: str, worker: WorkerProcess, running: bool) -> None:  # noqa: FBT001 - a case
    """What is known of nodes stays, and the heartbeats of the new topic are counted on top."""
    nodes = [SimulatedNode(f"node-{number}", interval_ms=200) for number in range(NODES)]

    def known() -> dict[str, int]:
        status, answer = worker.get("/api/v1/nodes?limit=1000")
        return {node["node_id"]: node["heartbeats"] for node in answer["nodes"]} if status == 200 else {}

    def logged() -> dict[str, int]:
        return {node_id: node.heartbeats for node_id, node in known_from_log(brokers).items()}

    first = NodeFleet(brokers, nodes)
    first.start()
    eventually(lambda: sum(known().values()) > 20 * NODES, "heartbeats")
    first.end()
    before = logged()
    eventually(lambda: known() == before, "agreement")
    if not running:
        assert worker.stop() == 0
    recreate(brokers, "heartbeats")
    second = NodeFleet(brokers, [*first.nodes.values(), SimulatedNode("node-new", interval_ms=200)])
    second.start()
    eventually(lambda: second.sent > 3 * NODES, "heartbeats of the new topic")
    if not running:
        worker.start()
    eventually(lambda: alive(worker) and sum(known().values()) > sum(before.values()) + 3 * NODES, "counts")
    second.end()
    after = logged()
    wanted = {node_id: before.get(node_id, 0) + after[node_id] for node_id in after}
    eventually(lambda: alive(worker) and known() == wanted, f"{wanted}, but {known()}")


def test_of_deleted_heartbeats_nothing_is_told_and_objectives_go_on(brokers: str, worker: WorkerProcess) -> None:
    """What is committed of a topic that is gone is never acknowledged: the rebalance must not wait for it."""
    fleet = NodeFleet(brokers, [SimulatedNode("node-0", interval_ms=200)])
    fleet.start()
    eventually(lambda: worker.metric("fleetbeat_heartbeats_total") > 3, "heartbeats")
    fleet.end()
    delete_topics(brokers, "heartbeats")
    eventually(lambda: worker.get("/api/v1/nodes/node-0")[0] == 503, "end of answers about nodes", 60)
    worker.await_ready()
    ledger = Ledger(brokers)
    ledger.send(400, now_ms())
    ledger.note()
    ledger.agrees(worker)
    assert worker.stop() == 0
