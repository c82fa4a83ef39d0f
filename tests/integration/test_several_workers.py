"""Two workers answer as one: the same from either, also when one stands still or is killed, and never a part as all."""

import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.kafka import LocalKafka
from schemas.codec import encode
from tests.integration.node_fleet import Known, NodeFleet, SimulatedNode, known_from_log
from tests.integration.worker_process import (
    COUNTS,
    READY_S,
    Counted,
    Promise,
    Traffic,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    make_topics,
    now_ms,
    probe_result,
    read_log,
    write_objectives,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
# Of the nodes that send probe results; some partitions of the log never have a record.
SENDERS = 2
NODES = 50
PAGE = 7
PROMISES = tuple(Promise(f"service-{n}", {"service": f"service-{n}"}) for n in range(6))
# More than a second between asking, hearing and telling would be noticed by nobody; so much is for this machine.
PROMPT_MS = 5_000
# Who stands still for less is still in the group: a session is 6 s, since a heartbeat of up to 1.5 s before.
UNNOTICED_S = 4.0
FREEZES = 4
# What differs between two answers of the same content.
_CLOCKS = {"staleness_ms", "complete_to_ms", "judged_to_ms", "windows", "burns", "attainment", "budget_left"}
_CLOCKS |= {"burn_rate", "burning", "exhausted_in_s", "sealed_to_ms", "sealed"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two workers that share the partitions, and what is in the log."""

    brokers: str
    first: WorkerProcess
    second: WorkerProcess
    log: list[Counted]
    known: dict[str, Known]
    from_ms: int

    @property
    def both(self) -> tuple[WorkerProcess, WorkerProcess]:
        return self.first, self.second


def whole(worker: WorkerProcess, path: str) -> tuple[int, Any]:
    """The first answer that rests on both: on a busy machine the other one may be slower than is waited for."""

    def found() -> tuple[int, Any] | None:
        status, answer = worker.asked(path)
        return None if any("unavailable" in entry for entry in answer.get("slos", ())) else (status, answer)

    return eventually(found, f"whole answer to {path}")


def kept(worker: WorkerProcess) -> set[str]:
    return {p.id for p in PROMISES if worker.get(f"/api/v1/slos/{p.id}", alone=True)[0] == 200}


@pytest.fixture(scope="module")
def pair(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Nobody sends any more."""
    make_topics(kafka.bootstrap, PARTITIONS)
    brokers, folder = kafka.bootstrap, tmp_path_factory.mktemp("workers")
    objectives = write_objectives(folder / "slos.yaml", PROMISES)
    fleet = NodeFleet(
        brokers, [SimulatedNode(f"node-{n}", zone="abc"[n % 3], interval_ms=600_000) for n in range(NODES)]
    )
    traffic = Traffic(brokers, random.Random(1), rate=1_000, nodes=SENDERS)
    with (
        WorkerProcess(brokers, folder, objectives, "first") as first,
        WorkerProcess(brokers, folder, objectives, "second") as second,
    ):
        first.start()
        second.start()
        fleet.start()
        traffic.start()
        eventually(lambda: all(map(kept, (first, second))), "sharing")
        time.sleep(2)
        traffic.end()
        fleet.end()
        log = counted(read_log(brokers), traffic.sender.events)
        yield Pair(brokers, first, second, log, known_from_log(brokers), traffic.from_ms)


def slices_differ(pair: Pair, worker: WorkerProcess) -> list[str]:
    found = []
    for promise in PROMISES:
        answer = worker.slices(promise, pair.from_ms // 1_000 * 1_000, now_ms() + 60_000)
        wrong = [answer] if isinstance(answer, str) else differences(expected(promise, pair.log), answer)
        found += [f"{promise.id}: {sentence}" for sentence in wrong]
    return found


def without_clocks(answer: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(answer, list):
        return [without_clocks(each) for each in answer]
    if isinstance(answer, dict):
        return {key: without_clocks(value) for key, value in answer.items() if key not in _CLOCKS}
    return answer


def all_nodes(worker: WorkerProcess) -> list[dict[str, Any]]:
    """In pages; each page says that it rests on every partition."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        status, page = whole(worker, f"/api/v1/nodes?limit={PAGE}{after}")
        assert status == 200, page
        assert sorted(page["offsets"]["heartbeats"]) == [str(partition) for partition in range(PARTITIONS)]
        found += page["nodes"]
        if page["next"] is None:
            return found
        assert page["next"] == page["nodes"][-1]["node_id"]
        after = f"&after={page['next']}"


def the_log_is_answered_by(pair: Pair, worker: WorkerProcess) -> None:
    """Every view, of every key."""
    eventually(lambda: not slices_differ(pair, worker), f"{slices_differ(pair, worker)[:3]}")
    known = pair.known
    eventually(lambda: worker.told("/api/v1/fleet").get("known") == NODES, "all nodes")
    assert [node["node_id"] for node in all_nodes(worker)] == sorted(known)
    for node_id, node in known.items():
        status, answer = whole(worker, f"/api/v1/nodes/{node_id}")
        assert (status, answer.get("heartbeats")) == (200, node.heartbeats), answer
    status, answer = whole(worker, "/api/v1/fleet")
    assert status == 200
    assert answer["known"] == sum(answer["nodes"].values()) == NODES
    assert answer["totals"]["heartbeats"] == sum(node.heartbeats for node in known.values())
    assert [zone["known"] for zone in answer["zones"]] == [len(range(n, NODES, 3)) for n in range(3)]
    status, answer = whole(worker, "/api/v1/slos")
    assert [entry["id"] for entry in answer["slos"]] == [promise.id for promise in PROMISES]
    for promise, entry in zip(PROMISES, answer["slos"], strict=True):
        all_of_it = expected(promise, pair.log, step_ms=1 << 62)[0]
        assert {name: entry["windows"][-1][name] for name in COUNTS} == all_of_it, entry


def test_either_answers_about_everything(pair: Pair) -> None:
    for worker in pair.both:
        assert 0 < len(kept(worker)) < len(PROMISES)
        the_log_is_answered_by(pair, worker)
        assert worker.metric("fleetbeat_view_forwards_total") > 0


def test_either_answers_the_same(pair: Pair) -> None:
    begin = pair.from_ms // 1_000 * 1_000
    paths = ["/api/v1/slos", "/api/v1/fleet", "/api/v1/nodes?limit=9", "/api/v1/nodes?zone=b&after=node-2"]
    paths += [f"/api/v1/slos/{p.id}/slices?from_ms={begin}&to_ms={begin + 60_000}" for p in PROMISES]
    paths += [f"/api/v1/slos/{p.id}" for p in PROMISES]
    paths += [f"/api/v1/nodes/{node}" for node in ("node-0", "node-1", "node-7", "nobody", "no/body%3F")]
    paths += ["/api/v1/slos/unknown", "/api/v1/nodes?limit=0"]
    for path in paths:
        (one, own), (other, from_another) = (whole(worker, path) for worker in pair.both)
        assert one == other
        assert without_clocks(own) == without_clocks(from_another), path
    assert [whole(worker, "/api/v1/nodes/nobody")[0] for worker in pair.both] == [404, 404]


def test_a_question_is_passed_on_once(pair: Pair) -> None:
    elsewhere = next(promise.id for promise in PROMISES if promise.id not in kept(pair.first))
    status, answer = pair.first.get(f"/api/v1/slos/{elsewhere}", alone=True)
    assert status == 503
    assert "kept by another worker; the question was passed on once" in answer["error"]


def test_answers_are_complete_up_to_now_though_nobody_writes(pair: Pair) -> None:
    """Also where partitions that only the other worker reads have not had a record for long, or never."""
    time.sleep(PROMPT_MS / 1_000)

    def prompt(worker: WorkerProcess, promise: Promise) -> bool:
        answer = worker.told(f"/api/v1/slos/{promise.id}")
        stale_ms, judged_to_ms = answer.get("staleness_ms", -1), answer.get("judged_to_ms") or 0
        return 0 <= stale_ms < PROMPT_MS and judged_to_ms > now_ms() - 2 * PROMPT_MS

    for worker in pair.both:
        for promise in PROMISES:
            eventually(partial(prompt, worker, promise), f"prompt answer: {worker.told(f'/api/v1/slos/{promise.id}')}")


def test_marks_of_transactions_are_nothing_to_wait_for(pair: Pair) -> None:
    producer = Producer({"bootstrap.servers": pair.brokers, "transactional.id": "test"})
    producer.init_transactions(READY_S)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        value = encode(probe_result(node_id="marked", seq=partition, service="other"))
        producer.produce("probe-results", key=b"marked", value=value, partition=partition)
        producer.produce("heartbeats", key=b"marked", value=b"not a heartbeat", partition=partition)
    producer.commit_transaction(READY_S)
    begun_ms = now_ms()

    def caught_up() -> bool:
        paths = [*(f"/api/v1/slos/{promise.id}" for promise in PROMISES), "/api/v1/fleet"]
        answers = [worker.told(path) for worker in pair.both for path in paths]
        return all(answer.get("complete_to_ms", 0) > begun_ms + 3_000 for answer in answers)

    eventually(caught_up, "completeness beyond the marks")
    eventually(lambda: all(w.metric("fleetbeat_consumer_lag_records") == 0 for w in pair.both), "no lag")


def asked_while_frozen(pair: Pair, paths: Iterable[str]) -> list[tuple[int, Any]] | None:
    """What the first worker answers while the second stands still, all asked at once: each answer waits for it.

    None when that took so long that the group no longer counts on the second.
    """
    begun_s = time.monotonic()
    pair.second.pause()
    try:
        with ThreadPoolExecutor() as askers:
            answers = list(askers.map(pair.first.get, paths))
        return answers if time.monotonic() - begun_s < UNNOTICED_S else None
    finally:
        pair.second.resume()


def test_who_does_not_answer_is_named(pair: Pair) -> None:
    ids = {promise.id for promise in PROMISES}
    for _ in range(FREEZES):
        own = eventually(
            lambda: own if (own := kept(pair.first)) and kept(pair.second) == ids - own else None, "sharing"
        )
        elsewhere = min(ids - own)
        paths = f"/api/v1/slos/{elsewhere}", "/api/v1/slos", "/api/v1/fleet"
        if found := asked_while_frozen(pair, paths):
            break
    else:
        pytest.fail(f"no answers within {UNNOTICED_S:.0f} s, {FREEZES} times: nothing was proved")
    (status, answer), (of_all, answers), (of_fleet, _) = found
    assert status == 503
    assert f"worker 127.0.0.1:{pair.second.port}" in answer["error"]
    assert of_all == 200
    assert {entry["id"] for entry in answers["slos"] if "unavailable" not in entry} == own
    assert of_fleet == 503


def test_who_is_left_answers_about_everything(pair: Pair) -> None:
    eventually(lambda: all(map(kept, pair.both)), "sharing")
    pair.second.kill()
    statuses: set[int] = set()

    def all_kept() -> bool:
        statuses.update(pair.first.get(path)[0] for path in ("/api/v1/fleet", f"/api/v1/slos/{PROMISES[0].id}"))
        return len(kept(pair.first)) == len(PROMISES)

    eventually(all_kept, "takeover")
    assert statuses <= {0, 200, 503}, "0 is none in time"
    the_log_is_answered_by(pair, pair.first)
