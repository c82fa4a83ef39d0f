"""The node table through kill -9, lost pages, floods of forged ids and other workers: each heartbeat counts once."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer

from schemas.codec import encode
from tests.integration.node_fleet import NodeFleet, SimulatedNode, announced, known_from_log, wrongly_silent
from tests.integration.worker_process import WorkerProcess, eventually, read_log

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 3
KILLS = 3
# A node is DOWN after three and a second: a machine that stalls for less than 4 s lets none look dead.
INTERVAL_MS = 1_000
PAGES = "fleetbeat-worker-nodes-changelog"
Start = Callable[..., WorkerProcess]
StartFleet = Callable[[int], NodeFleet]


@pytest.fixture
def start_fleet(brokers: str) -> Iterator[StartFleet]:
    """`start_fleet(nodes)`: each beats every INTERVAL_MS."""
    started: list[NodeFleet] = []

    def some(nodes: int) -> NodeFleet:
        zones = "abcdef"
        fleet = [SimulatedNode(f"node-{n}", zone=zones[n % len(zones)], interval_ms=INTERVAL_MS) for n in range(nodes)]
        started.append(NodeFleet(brokers, fleet))
        started[-1].start()
        return started[-1]

    yield some
    for fleet in started:
        fleet.end()


def totals(worker: WorkerProcess) -> dict[str, int] | None:
    """What `/fleet` has counted; None while it does not say."""
    status, answer = worker.get("/api/v1/fleet")
    return answer["totals"] if status == 200 else None


def expected_totals(brokers: str) -> dict[str, int]:
    known = known_from_log(brokers).values()
    sums = {name: sum(getattr(node, name) for node in known) for name in ("heartbeats", "lost", "restarts")}
    return {**sums, "refused": 0}


def all_nodes(worker: WorkerProcess) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    path = "/api/v1/nodes?limit=1000"
    while path:
        status, answer = worker.asked(path)
        assert status == 200, answer
        found |= {node["node_id"]: node for node in answer["nodes"]}
        path = "" if answer["next"] is None else f"/api/v1/nodes?limit=1000&after={answer['next']}"
    return found


def agree(worker: WorkerProcess, brokers: str) -> None:
    """The worker knows of every node what the log says."""
    wanted = expected_totals(brokers)
    eventually(lambda: totals(worker) == wanted, f"{wanted}, but {totals(worker)}")
    known = {
        node_id: (node.heartbeats, node.lost, node.restarts, node.last_seen_ms, node.newest.boot_ts, node.newest.seq)
        for node_id, node in known_from_log(brokers).items()
    }
    names = ("heartbeats", "lost", "restarts", "last_seen_ms", "boot_ts", "seq")
    assert {node_id: tuple(node[name] for name in names) for node_id, node in all_nodes(worker).items()} == known


def test_kill_minus_nine_under_load(brokers: str, start: Start, start_fleet: StartFleet, rng: random.Random) -> None:
    worker, fleet = start(), start_fleet(200)
    for kill in range(KILLS):
        if kill % 2 == 0:
            worker.await_ready()
        for _ in range(20):
            time.sleep(rng.uniform(0, 0.2))
            node_id = f"node-{rng.randrange(200)}"
            fleet.restart(node_id) if rng.random() < 0.5 else fleet.lose(node_id, rng.randrange(1, 5))
        worker.kill()
        worker.start()
    worker.await_ready()
    eventually(lambda: totals(worker), "answer of the fleet")
    time.sleep(rng.uniform(0, 2))
    assert wrongly_silent(brokers) == []
    fleet.end()
    agree(worker, brokers)
    wanted = expected_totals(brokers)
    assert wanted["heartbeats"] == fleet.sent
    assert wanted["restarts"] > KILLS
    assert wanted["lost"] > KILLS
    assert worker.metric("fleetbeat_missing_offsets_total") == 0
    assert worker.metric("fleetbeat_unreadable_pages_total") == 0


def test_a_clean_stop_leaves_nothing_to_count_again(brokers: str, start: Start, start_fleet: StartFleet) -> None:
    worker, fleet = start(), start_fleet(50)
    worker.await_ready()
    eventually(lambda: (totals(worker) or {}).get("heartbeats", 0) > 200, "heartbeats")
    fleet.end()
    agree(worker, brokers)
    assert worker.stop() == 0
    worker.start().await_ready()
    agree(worker, brokers)
    assert worker.metric("fleetbeat_heartbeats_total") == 0


def test_a_page_that_cannot_be_read_costs_its_nodes_and_not_the_start(
    brokers: str, start: Start, start_fleet: StartFleet
) -> None:
    worker, fleet = start(), start_fleet(50)
    worker.await_ready()
    eventually(lambda: totals(worker), "answer of the fleet")
    fleet.end()
    agree(worker, brokers)
    assert worker.stop() == 0
    pages = {record.key: record for record in read_log(brokers, PAGES) if record.value is not None}
    lost = next(record for record in pages.values() if record.partition == 1)
    producer = Producer({"bootstrap.servers": brokers})
    producer.produce(PAGES, key=lost.key, value=(lost.value or b"")[:-40], partition=1)
    assert producer.flush(10) == 0
    worker.start().await_ready()
    assert worker.metric("fleetbeat_unreadable_pages_total") == 1
    there = {record.key: record for record in read_log(brokers, "heartbeats")}
    wanted = sorted(key.decode() for key, record in there.items() if record.partition != 1 and key)
    assert sorted(all_nodes(worker)) == wanted
    eventually(lambda: worker.metric("fleetbeat_missing_nodes_total") == 50 - len(wanted), "count of lost nodes")


def test_pages_that_vanish_are_not_taken_for_an_empty_fleet(
    brokers: str, start: Start, start_fleet: StartFleet
) -> None:
    worker, fleet = start(), start_fleet(30)
    worker.await_ready()
    eventually(lambda: totals(worker), "answer of the fleet")
    fleet.end()
    assert worker.stop() == 0
    asyncio.run(recreate(brokers, PAGES))
    worker.start()
    eventually(lambda: worker.child.poll() is not None, "end")
    assert worker.child.poll() == 1
    assert "nodes are in the commit" in worker.log.read_text()


async def recreate(brokers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(60):
            while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.05)
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


def test_a_flood_of_forged_ids_does_not_touch_those_that_are_known(
    brokers: str, start: Start, start_fleet: StartFleet
) -> None:
    worker = start("worker", "--nodes-max", "300")
    worker.await_ready()
    fleet = start_fleet(50)
    eventually(lambda: worker.told("/api/v1/fleet").get("known") == 50, "fleet")
    forged = [SimulatedNode(f"forged-{number}", zone="x", interval_ms=60_000) for number in range(5_000)]
    for node in forged:
        fleet.send_raw(node.node_id.encode(), encode(node.heartbeat()))
    fleet.flush()
    eventually(lambda: (totals(worker) or {}).get("refused", 0) > 4_000, "refusals")
    time.sleep(2)
    assert [subject for subject in wrongly_silent(brokers) if subject.startswith("node-")] == []
    assert [s.subject for s in announced(brokers) if s.subject.startswith("node-") and s.state == "GONE"] == []
    fleet.end()
    wanted = {n: (k.heartbeats, k.lost) for n, k in known_from_log(brokers).items() if n.startswith("node-")}

    def found() -> dict[str, tuple[int, int]]:
        return {n: (k["heartbeats"], k["lost"]) for n, k in all_nodes(worker).items() if n.startswith("node-")}

    eventually(lambda: found() == wanted, "counts of the true nodes")
    status, answer = worker.asked("/api/v1/fleet")
    assert status == 200
    assert answer["known"] <= PARTITIONS * (100 + 4 * 10)
    assert answer["totals"]["refused"] == len(wanted) + len(forged) - answer["known"]
    assert worker.metric("fleetbeat_refused_nodes_total") == answer["totals"]["refused"]


def test_new_nodes_are_bounded_in_a_minute(start: Start, start_fleet: StartFleet) -> None:
    """That the next minute takes others is proved by tests/unit/test_liveness_membership.py, and in `make long`."""
    worker = start("worker", "--nodes-new-per-minute", "3")
    worker.await_ready()
    start_fleet(60)
    bound = PARTITIONS * (1 + 4)
    known = eventually(lambda: worker.told("/api/v1/fleet").get("known"), "first nodes")
    assert 0 < known <= 2 * bound < 60, "a minute may just have ended"


@pytest.mark.long
def test_new_nodes_beyond_the_bound_of_a_minute_come_later(start: Start, start_fleet: StartFleet) -> None:
    worker = start("worker", "--nodes-new-per-minute", "3")
    worker.await_ready()
    start_fleet(60)
    known = eventually(lambda: worker.told("/api/v1/fleet").get("known"), "first nodes")
    eventually(lambda: worker.told("/api/v1/fleet").get("known", 0) > known, "those of the next minute")


def test_two_workers_of_which_one_is_killed(brokers: str, start: Start, start_fleet: StartFleet) -> None:
    fleet = start_fleet(100)
    first = start("first").await_ready()
    second = start("second").await_ready()

    def owners() -> list[list[str]]:
        return [[n for n in fleet.nodes if w.get(f"/api/v1/nodes/{n}", alone=True)[0] == 200] for w in (first, second)]

    eventually(lambda: all(kept := owners()) and sum(map(len, kept)) == len(fleet.nodes), "sharing")
    first.kill()
    eventually(lambda: totals(second), "all nodes with the second worker")
    time.sleep(2)
    assert wrongly_silent(brokers) == []
    fleet.end()
    agree(second, brokers)
