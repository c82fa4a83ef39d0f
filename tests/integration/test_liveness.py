"""What one worker says about nodes that die, leave, restart, lose heartbeats or are lied about, and about a zone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from infra.kafka import LocalKafka
from schemas.codec import encode
from schemas.records import NodeState
from tests.integration.node_fleet import (
    SOURCE,
    NodeFleet,
    SimulatedNode,
    announced,
    known_from_log,
    wrongly_silent,
)
from tests.integration.worker_process import (
    Promise,
    WorkerProcess,
    eventually,
    letters,
    make_topics,
    now_ms,
    write_objectives,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 3
INTERVAL_S = 1.0
_BY_WORKER = (SOURCE, "worker")
DOWN_WITHIN_S = 3 * INTERVAL_S + 2
# More than the promise, as other tests run beside this one. By the log's time the oracle of `up --check` keeps it.
BESIDE_OTHERS_S = 60
# As old as an answer may be, and says so, on a busy machine: as in infra/oracle/sightings.py.
STALE_MS = 30_000
# What a node that speaks may look like: on a machine that stalls for a second it is LATE.
ALIVE = {"UP", "LATE", "SUSPECT"}
IN_A = [f"a-{number}" for number in range(40)]
IN_B = [f"b-{number}" for number in range(20)]
ELSEWHERE = [f"node/with: odd ü {number}" for number in range(5)]


@dataclass(frozen=True, slots=True)
class World:
    """A worker and the nodes that it watches."""

    worker: WorkerProcess
    fleet: NodeFleet
    brokers: str

    def node(self, node_id: str) -> dict[str, Any]:
        status, answer = self.worker.asked(f"/api/v1/nodes/{quote(node_id, safe='')}")
        assert status == 200, answer
        return dict(answer)

    def of(self, subject: str) -> list[NodeState]:
        """What was announced of a node or zone, in order."""
        return [state for state in announced(self.brokers) if state.subject == subject]


@pytest.fixture(scope="module")
def world(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    make_topics(kafka.bootstrap, PARTITIONS)
    folder = tmp_path_factory.mktemp("worker")
    nodes = [
        *(SimulatedNode(node_id) for node_id in IN_A),
        *(SimulatedNode(node_id, zone="b") for node_id in IN_B),
        *(SimulatedNode(node_id, "us-1", "c") for node_id in ELSEWHERE),
    ]
    fleet = NodeFleet(kafka.bootstrap, nodes)
    with WorkerProcess(kafka.bootstrap, folder, write_objectives(folder / "slos.yaml", [Promise("all")])) as worker:
        worker.start()
        fleet.start()
        try:
            worker.await_ready()
            eventually(lambda: worker.told("/api/v1/fleet").get("known") == len(nodes), "whole fleet")
            yield World(worker, fleet, kafka.bootstrap)
        finally:
            fleet.end()


def test_a_node_is_up_with_all_that_it_said(world: World) -> None:
    def fresh() -> dict[str, Any] | None:
        found = world.node("a-0")
        return found if (found["state"], found["staleness_ms"] < STALE_MS) == ("UP", True) else None

    node = eventually(fresh, "node that is UP in a fresh answer")
    sent = world.fleet.nodes["a-0"]
    wanted = {"state": "UP", "reported": "UP", "region": "eu-1", "zone": "a", "agent_version": "test", "cause": None}
    facts = {"interval_ms": 1_000, "health": 97, "cpu_permille": 312, "memory_permille": None, "boot_ts": sent.boot_ts}
    assert {name: node[name] for name in (*wanted, *facts)} == {**wanted, **facts}
    assert node["boot_id"] == f"boot-{sent.boot_ts}"
    assert node["heartbeats"] >= 1
    assert node["first_seen_ms"] <= node["last_seen_ms"] <= now_ms() + 50
    assert abs(node["skew_ms"]) < STALE_MS
    assert node["staleness_ms"] >= 0
    (applied,) = node["offsets"]["heartbeats"].values()
    assert applied >= node["last_offset"]


@pytest.mark.parametrize("node_id", [ELSEWHERE[0], ELSEWHERE[4]])
def test_any_name_can_be_asked_for(world: World, node_id: str) -> None:
    assert world.node(node_id)["node_id"] == node_id


def test_a_node_that_dies_is_down_within_three_intervals_and_two_seconds(world: World) -> None:
    seen: list[str] = []
    died_s = world.fleet.silence("a-1")
    while (state := world.node("a-1")["state"]) != "DOWN":
        seen += [state] if state not in seen else []
        assert time.monotonic() - died_s < DOWN_WITHIN_S + BESIDE_OTHERS_S, seen
        time.sleep(0.05)
    took_s = time.monotonic() - died_s
    assert seen == [state for state in ("UP", "LATE", "SUSPECT") if state in seen], "in this order, as far as we looked"
    assert seen or took_s > 3 * INTERVAL_S, "nobody looked before it was due"
    last_seen_ms = known_from_log(world.brokers)["a-1"].last_seen_ms

    def told() -> list[NodeState]:
        return [s for s in world.of("a-1") if (s.state, s.last_seen) == ("DOWN", last_seen_ms)]

    (down,) = eventually(told, f"announcement of the silence since {last_seen_ms}")
    assert (down.reason, down.region, down.zone) == ("missed-heartbeats", "eu-1", "a")
    assert down.previous in ALIVE
    assert down.since - down.last_seen == 3 * 1_000 + 1_000
    world.fleet.wake("a-1")
    eventually(lambda: world.node("a-1")["state"] == "UP", "return")
    after = eventually(lambda: (said := world.of("a-1"))[said.index(down) + 1 :], "announced return")
    assert (after[0].previous, after[0].state) == ("DOWN", "UP")


def test_a_goodbye_makes_a_node_gone_and_not_down(world: World) -> None:
    world.fleet.goodbye("a-2")
    eventually(lambda: world.node("a-2")["state"] == "GONE", "goodbye")
    time.sleep(DOWN_WITHIN_S)
    assert world.node("a-2")["state"] == "GONE"
    told, left = [(s.state, s.reason) for s in world.of("a-2")], ("GONE", "goodbye")
    # Of a node whose second heartbeat comes before the first look that one is told, as any other.
    assert told[0] in {("UP", "new-node"), ("UP", "heartbeat")}
    assert (told[-1], told.count(left)) == (left, 1)
    assert "a-2" not in wrongly_silent(world.brokers)
    world.fleet.restart("a-2")
    eventually(lambda: world.node("a-2")["state"] == "UP", "return")


def test_a_new_boot_is_a_restart(world: World) -> None:
    before = world.node("a-3")
    world.fleet.restart("a-3")
    after = eventually(lambda: n if (n := world.node("a-3"))["restarts"] and n["state"] == "UP" else None, "restart")
    assert (before["restarts"], after["restarts"]) == (0, 1)
    assert after["boot_ts"] > before["boot_ts"]
    boot = eventually(lambda: [s for s in world.of("a-3") if s.reason == "new-boot"], "announcement")
    assert [(s.state, s.boot_ts) for s in boot] == [("UP", after["boot_ts"])]
    assert boot[0].previous in ALIVE


def test_gaps_in_the_numbers_are_lost_heartbeats(world: World) -> None:
    world.fleet.lose("a-4", 7)
    eventually(lambda: world.node("a-4")["lost"] == 7, "loss")


def test_a_heartbeat_under_a_foreign_key_is_a_dead_letter_and_moves_nobody(world: World) -> None:
    liar, victim = SimulatedNode("a-liar", boot_ts=now_ms() + 60_000), SimulatedNode("a-5", boot_ts=now_ms() + 60_000)
    forged = {b"a-5": encode(liar.heartbeat("GOODBYE")), b"a-liar": encode(victim.heartbeat("GOODBYE"))}
    for key, value in [*forged.items(), (None, forged[b"a-5"])]:
        world.fleet.send_raw(key, value)
    world.fleet.send_raw(b"a-5", forged[b"a-liar"][:-3])
    world.fleet.flush()

    def found() -> set[tuple[str, bytes | None]]:
        return {(one.reason, one.key) for one in letters(world.brokers) if (one.topic, one.detected_by) == _BY_WORKER}

    wanted = {("key-mismatch", key) for key in (b"a-5", b"a-liar", None)} | {("truncated", b"a-5")}
    eventually(lambda: len(found()) >= len(wanted), "dead letters")
    assert found() == wanted
    assert world.worker.get("/api/v1/nodes/a-liar")[0] == 404
    victims = world.node("a-5")
    assert (victims["state"] in ALIVE, victims["restarts"]) == (True, 0), victims
    assert world.worker.metric("fleetbeat_rejected_records_total") == 4


def test_forty_percent_of_a_zone_that_fall_silent_are_one_outage(world: World) -> None:
    silent = IN_B[:8]
    died_s, died_ms = world.fleet.silence(*silent), now_ms()
    fleet = eventually(lambda: f if (f := world.worker.told("/api/v1/fleet")).get("outages") else None, "outage")
    assert ("eu-1", "b") in [(o["region"], o["zone"]) for o in fleet["outages"]]
    eventually(lambda: world.node(silent[0])["state"] == "DOWN", "silent node")
    assert time.monotonic() - died_s < DOWN_WITHIN_S + BESIDE_OTHERS_S
    assert world.node(silent[0])["cause"] == "telemetry-outage"
    eventually(lambda: world.node(IN_B[10])["cause"] is None, "a node that nobody has silenced")
    time.sleep(3)  # nothing more is to come
    new, *changes = world.of("zone:eu-1/b")
    assert (new.previous, new.state, new.reason) == (None, "OK", "new-zone")
    (outage,) = [s for s in changes if s.since >= died_ms]
    assert (outage.previous, outage.state, outage.reason) == ("OK", "OUTAGE", "telemetry-outage")
    assert (outage.kind, outage.nodes_known) == ("ZONE", len(IN_B))
    known = known_from_log(world.brokers)
    stalled = {node_id for node_id in IN_B if known[node_id].longest_pause_ms >= 3_000}
    assert 4 < outage.nodes <= len({*silent} | stalled)
    assert [subject for subject in wrongly_silent(world.brokers) if subject.startswith("zone:")] == []
    assert [s.subject for s in announced(world.brokers) if s.state == "DOWN" and s.zone == "b"] == []
    world.fleet.wake(*silent)
    eventually(lambda: world.worker.told("/api/v1/fleet").get("outages") == [], "end of the outage")
    eventually(lambda: world.of("zone:eu-1/b")[-1].reason == "outage-over", "announced end")
    assert [s.subject for s in announced(world.brokers) if s.state == "DOWN" and s.zone == "b"] == []


def test_the_list_comes_in_pages_each_node_once(world: World) -> None:
    found: list[str] = []
    path = "/api/v1/nodes?limit=7"
    while path:
        status, answer = world.worker.asked(path)
        assert status == 200, answer
        assert 0 <= answer["staleness_ms"] < STALE_MS
        assert set(answer["offsets"]["heartbeats"]) == {"0", "1", "2"}
        found += [node["node_id"] for node in answer["nodes"]]
        path = "" if answer["next"] is None else f"/api/v1/nodes?limit=7&after={quote(answer['next'])}"
    assert found == sorted([*IN_A, *IN_B, *ELSEWHERE])


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("zone=b", IN_B),
        ("zone=b&region=eu-1", IN_B),
        ("zone=b&region=us-1", []),
        ("region=us-1", ELSEWHERE),
        ("zone=nowhere", []),
        ("state=DOWN", []),
        ("state=UP&zone=c", ELSEWHERE),
        ("after=b-8&zone=b", ["b-9"]),
    ],
)
def test_the_list_is_selected_by_state_zone_and_region(world: World, query: str, wanted: list[str]) -> None:
    def listed() -> list[str]:
        status, answer = world.worker.asked(f"/api/v1/nodes?{query}")
        assert status == 200, answer
        assert answer["next"] is None
        return [node["node_id"] for node in answer["nodes"]]

    # Not at once on a machine that stalls: some are LATE.
    eventually(lambda: listed() == sorted(wanted), f"such a list, but {listed()}")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "limit: value '0'"),
        ("limit=1001", "limit: value '1001'"),
        ("limit=-1", "limit: value '-1'"),
        ("limit=1e2", "limit: value '1e2'"),
        ("limit=", "limit: value ''"),
        ("limit=%C2%B2", "limit: value '²'"),
        ("state=down", "state: value 'down'"),
        ("state=", "state: value ''"),
        ("zone=", "zone: value ''"),
        ("after=", "after: value ''"),
        ("region=" + "r" * 256, "region: value"),
        ("zones=a", "zones: not a parameter"),
        ("state=UP&state=DOWN", "each once"),
    ],
)
def test_a_question_that_makes_no_sense_is_400_in_json(world: World, query: str, says: str) -> None:
    status, answer = world.worker.get(f"/api/v1/nodes?{query}")
    assert status == 400
    assert says in answer["error"]
    assert "expected" in answer["error"]


def test_an_unknown_node_is_404_in_json(world: World) -> None:
    status, answer = world.worker.get("/api/v1/nodes/nobody")
    assert status == 404
    assert "'nobody'" in answer["error"]


def test_the_index_lists_the_views_of_nodes(world: World) -> None:
    paths = world.worker.get("/")[1]["paths"]
    assert [path for path in paths if "node" in path or "fleet" in path] == [
        "/api/v1/fleet",
        "/api/v1/nodes?state=&zone=&region=&limit=&after=",
        "/api/v1/nodes/{id}",
    ]


def test_at_the_end_the_fleet_is_what_the_log_says(world: World) -> None:
    world.fleet.end()
    known = known_from_log(world.brokers)
    wanted = {
        "heartbeats": sum(node.heartbeats for node in known.values()),
        "lost": sum(node.lost for node in known.values()),
        "restarts": sum(node.restarts for node in known.values()),
        "refused": 0,
    }
    eventually(lambda: world.worker.told("/api/v1/fleet").get("totals") == wanted, f"{wanted}")
    worker = world.worker
    assert worker.metric("fleetbeat_heartbeats_total") == wanted["heartbeats"] == world.fleet.sent
    assert worker.metric("fleetbeat_lost_heartbeats_total") == wanted["lost"] == 7
    assert worker.metric("fleetbeat_node_restarts_total") == wanted["restarts"] == 2
    eventually(lambda: worker.metric("fleetbeat_nodes") == len(known), "nodes in the metrics")
