"""What one worker answers about a log with on-time, late, wild and unreadable records, before and after a restart."""

import contextlib
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from infra.kafka import LocalKafka
from schemas.codec import encode
from schemas.records import Heartbeat
from tests.integration.worker_process import (
    COUNTS,
    GROUP,
    SOURCE,
    Counted,
    Logged,
    Promise,
    Sender,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    letters,
    make_topics,
    now_ms,
    probe_result,
    read_log,
    write_objectives,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 3
DAY_MS = 86_400_000
EVENTS = 6_000
PROMISES = (
    Promise("all"),
    Promise("checkout-fast", {"service": "checkout"}, 90_000),
    Promise("checkout-in-europe", {"service": "checkout", "region": "eu-1"}),
    Promise("pay-over-tcp", {"endpoint": "/pay", "kind": "tcp"}, 250_000),
    Promise("nobody-asks", {"service": "none"}),
)
GOOD = encode(probe_result())
BEAT = Heartbeat("node-0", now_ms(), "b", now_ms(), 0, 10_000, "UP", "eu", "a", "1")
# (key, value, reason) of records that cannot be used.
CORRUPT = (
    (b"node-0", GOOD[:-4], "truncated"),
    (b"node-0", b"\x00\x00\x00\x03\xe7" + GOOD[5:], "unknown-schema"),
    (b"node-1", encode(probe_result(seq=1)), "key-mismatch"),
    (None, encode(probe_result(seq=2)), "key-mismatch"),
    (b"node-0", GOOD + b"\x00", "trailing-bytes"),
    (b"node-0", GOOD + GOOD[5:], "trailing-bytes"),
    (b"node-0", b"", "bad-frame"),
    (b"node-0", b'{"node_id": "node-0"}', "bad-frame"),
    (b"node-0", None, "empty"),
    (b"node-0", encode(probe_result(latency_us=-1)), "invalid-value"),
    (b"node-0", encode(probe_result(service="")), "invalid-value"),
    (b"node-0", encode(probe_result(region="r" * 300)), "invalid-value"),
    (b"node-0", encode(BEAT), "unknown-schema"),
)
REASONS = {(key, value): reason for key, value, reason in CORRUPT}


@dataclass(frozen=True, slots=True)
class Served:
    """A worker, what was sent before it was asked, and the log of it."""

    worker: WorkerProcess
    brokers: str
    log: list[Logged]
    events: list[Counted]
    from_ms: int
    first_answers: list[tuple[int, Any]]

    def wanted(self, promise: Promise) -> dict[int, dict[str, int]]:
        """The slices that still exist as such; older events are only in coarser tiers."""
        return {start: step for start, step in expected(promise, self.events).items() if start >= self.from_ms}

    def mismatches(self) -> list[str]:
        until_ms = now_ms() + 60_000
        return [
            f"{promise.id}: {sentence}"
            for promise in PROMISES
            for sentence in compare(self.wanted(promise), self.worker.slices(promise, self.from_ms, until_ms))
        ]

    def await_agreement(self) -> None:
        """Or until it takes too long: whoever asks then says what differs."""
        with suppress(AssertionError):
            eventually(lambda: not self.mismatches(), "agreement")


def compare(wanted: Mapping[int, Mapping[str, int]], found: Mapping[int, Mapping[str, Any]] | str) -> list[str]:
    return [found] if isinstance(found, str) else differences(wanted, found)


@pytest.fixture(scope="module")
def served(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    make_topics(kafka.bootstrap, PARTITIONS)
    folder = tmp_path_factory.mktemp("worker")
    with WorkerProcess(kafka.bootstrap, folder, write_objectives(folder / "slos.yaml", PROMISES)) as worker:
        from_ms = now_ms() // 1_000 * 1_000 - 400_000
        sender = Sender(kafka.bootstrap)
        send(sender)
        worker.start()  # now, to be seen while it recovers
        answers = [(0, None)]
        while answers[-1][0] != 200:
            answers.append(worker.get("/-/ready"))
            answers.append(worker.get("/api/v1/slos/all") if answers[-1][0] == 503 else answers[-1])
            time.sleep(0.02)
        send(sender, seq=EVENTS)  # a second batch, which meets state of the first
        log = read_log(kafka.bootstrap)
        assert len(log) == len(sender.events) + len(sender.corrupt)
        found = Served(worker, kafka.bootstrap, log, counted(log, sender.events), from_ms, answers)
        found.await_agreement()
        yield found


def send(sender: Sender, seq: int = 0) -> None:
    """Events of a few services: two in three on time, the others late; now and then a record that is not one."""
    rng = random.Random(seq)
    corrupt = itertools.cycle(CORRUPT)
    now = now_ms()
    for number in range(EVENTS):
        delay_ms = rng.choice([rng.randrange(9_000), rng.randrange(9_000), rng.randrange(9_000, 300_000)])
        event = probe_result(
            node_id=f"node-{rng.randrange(20)}",
            seq=seq + number,
            ts=now - delay_ms,
            service=rng.choice(["checkout", "search", "login"]),
            endpoint=rng.choice(["/pay", "/cart"]),
            region=rng.choice(["eu-1", "us-1"]),
            kind=rng.choice(["http", "tcp"]),
            success=rng.random() > 0.1,
            latency_us=rng.choice([0, 90_000, 90_001, int(rng.lognormvariate(11, 1.5))]),
        )
        sender.send(event)
        if number % 150 == 0:
            key, value, _ = next(corrupt)
            sender.send_corrupt(key, value, rng.randrange(PARTITIONS))
    for number, ts in enumerate((now + DAY_MS, now - 2 * 3_600_000, now - 300 * DAY_MS, 0, -(1 << 62), 1 << 62)):
        sender.send(probe_result(seq=seq + EVENTS + number, ts=ts, node_id="node-3", service="checkout"))
    sender.flush()


def test_nothing_is_answered_before_recovery(served: Served) -> None:
    early = [(status, body) for status, body in served.first_answers if status == 503]
    assert early, "the worker was never seen while it recovered"
    assert all(body.get("reason") or body.get("error") for _, body in early), early
    assert {status for status, _ in served.first_answers} == {0, 503, 200}


def test_slices_equal_the_log_exactly(served: Served) -> None:
    assert served.mismatches() == []


def test_percentiles_are_within_one_percent(served: Served) -> None:
    answer = served.worker.slices(PROMISES[1], served.from_ms, now_ms() + 60_000)
    assert isinstance(answer, dict)
    latencies: dict[int, list[int]] = {}
    for entry in served.events:
        if PROMISES[1].selects(entry.event):
            latencies.setdefault(entry.ts // 1_000 * 1_000, []).append(entry.event.latency_us)
    for start, row in answer.items():
        ordered = sorted(latencies[start])
        for name, share in (("p50_us", 0.5), ("p99_us", 0.99)):
            exact = ordered[ceil(share * len(ordered)) - 1]
            assert row[name] == pytest.approx(exact, rel=0.01, abs=0.06), (start, name)


def test_sealed_means_older_than_the_lateness_of_every_partition(served: Served) -> None:
    answer = served.worker.slices(PROMISES[0], served.from_ms, now_ms() + 60_000)
    assert isinstance(answer, dict)
    frontier = min(max(r.append_ms for r in served.log if r.partition == p) for p in range(PARTITIONS))
    assert {start for start, row in answer.items() if row["sealed"]} == {
        start for start in answer if start + 1_000 + 10_000 <= frontier
    }


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.id)
def test_windows_equal_the_log_exactly(served: Served, promise: Promise) -> None:
    status, answer = served.worker.asked(f"/api/v1/slos/{promise.id}")
    assert status == 200
    assert [window["window_s"] for window in answer["windows"]] == [10, 60, 300, 3_600, 21_600, 86_400, 7 * 86_400]
    for window in answer["windows"]:
        within = [entry for entry in served.events if window["from_ms"] <= entry.ts < window["to_ms"]]
        all_of_it = expected(promise, within, step_ms=1 << 62).get(0, dict.fromkeys(COUNTS, 0))
        assert {name: window[name] for name in COUNTS} == all_of_it, window
        share = all_of_it["good"] / all_of_it["total"] if all_of_it["total"] else None
        assert window["attainment"] == share
        if share is not None:
            assert window["burn_rate"] == pytest.approx((1 - share) / 0.01)
            assert window["budget_left"] == pytest.approx(1 - window["burn_rate"])


def test_the_list_has_every_objective_with_its_figures(served: Served) -> None:
    status, answer = served.worker.asked("/api/v1/slos")
    assert status == 200
    assert [entry["id"] for entry in answer["slos"]] == [promise.id for promise in PROMISES]
    assert answer["slos"][0]["windows"][-1]["total"] > EVENTS
    assert answer["slos"][-1]["attainment"] is None


def test_unusable_records_are_in_dead_letters_as_they_came(served: Served) -> None:
    wanted = {
        (SOURCE, r.partition, r.offset): (REASONS[r.key, r.value], r.key, r.value, r.append_ms)
        for r in served.log
        if (r.key, r.value) in REASONS
    }
    assert len(wanted) == len(served.log) - len(served.events)

    def found() -> dict[tuple[str, int, int], tuple[Any, ...]]:
        return {
            (letter.topic, letter.partition, letter.offset): (letter.reason, letter.key, letter.value, letter.append_ts)
            for letter in letters(served.brokers)
        }

    eventually(lambda: len(found()) >= len(wanted), "dead letters")
    assert found() == wanted
    assert {reason for reason, *_ in wanted.values()} == {reason for *_, reason in CORRUPT}


def test_metrics_count_what_was_read(served: Served) -> None:
    worker = served.worker
    wanted = {
        "fleetbeat_rollup_events_total": len(served.events),
        "fleetbeat_rollup_late_events_total": sum(entry.late for entry in served.events),
        "fleetbeat_rollup_clamped_events_total": sum(entry.ts != entry.event.ts for entry in served.events),
        "fleetbeat_rejected_records_total": len(served.log) - len(served.events),
    }
    found = {name: worker.metric(name) for name in wanted}
    if worker.log.read_text(encoding="utf-8").count("tables recovered") == 1:
        assert found == wanted
    else:  # a machine that stalls for a session costs it its partitions, and it reads some records twice
        assert {name: max(count, wanted[name]) for name, count in found.items()} == found
    assert worker.metric("fleetbeat_missing_offsets_total") == 0
    eventually(lambda: worker.metric("fleetbeat_consumer_lag_records") == 0, "lag of 0")
    eventually(lambda: worker.metric("fleetbeat_worker_ready") == 1, "ready in the metrics")


@pytest.mark.parametrize("path", ["/api/v1/slos/unknown", "/api/v1/slos/unknown/slices?from_ms=0&to_ms=1"])
def test_an_unknown_objective_is_404_in_json(served: Served, path: str) -> None:
    status, answer = served.worker.get(path)
    assert status == 404
    assert "'unknown'" in answer["error"]
    assert "checkout-fast" in answer["error"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "from_ms: value ''"),
        ("?from_ms=abc&to_ms=1000", "from_ms: value 'abc'"),
        ("?from_ms=-1&to_ms=1000", "from_ms: value '-1'"),
        ("?from_ms=1e3&to_ms=2000", "from_ms: value '1e3'"),
        ("?from_ms=1000", "to_ms: value ''"),
        ("?from_ms=1000&to_ms=1000", "to_ms - from_ms: value 0"),
        ("?from_ms=0&to_ms=3600001", "to_ms - from_ms: value 3600001"),
        ("?from_ms=9999999999999999&to_ms=10000000000000000", "from_ms: value"),
    ],
)
def test_a_bad_range_is_400_in_json(served: Served, query: str, says: str) -> None:
    status, answer = served.worker.get(f"/api/v1/slos/all/slices{query}")
    assert status == 400
    assert says in answer["error"]
    assert "expected" in answer["error"]


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/slos/", "/table/pages", "/router", "/graph", "/stats"])
def test_what_is_not_there_is_404(served: Served, path: str) -> None:
    assert served.worker.get(path)[0] == 404


def test_nothing_but_the_views_listens_and_only_on_loopback(served: Served) -> None:
    assert listening(served.worker.child.pid) == {("0100007F", served.worker.port)}


def listening(pid: int) -> set[tuple[str, int]]:
    """(hexadecimal address, port) of each TCP socket that a process listens on."""
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            targets.append(str(link.readlink()))
    inodes = {t.removeprefix("socket:[").removesuffix("]") for t in targets if t.startswith("socket:[")}
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
    ]
    found = {row[1].split(":")[0]: int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    return set(found.items())


def test_a_clean_stop_is_quick_and_a_second_start_has_the_same_numbers(served: Served) -> None:
    status, before = served.worker.asked("/api/v1/slos/checkout-fast")
    assert status == 200
    begun = time.monotonic()
    assert served.worker.stop() == 0
    assert time.monotonic() - begun < 20, "it waits for something, and is killed after 30 s"
    assert members(served.brokers) == 0
    served.worker.start().await_ready()
    served.await_agreement()
    assert served.mismatches() == []
    _, after = served.worker.asked("/api/v1/slos/checkout-fast")
    moved = {name: after["windows"][-1][name] for name in ("from_ms", "to_ms")}
    assert after["windows"][-1] == {**before["windows"][-1], **moved}
    assert served.worker.metric("fleetbeat_unreadable_pages_total") == 0


def members(brokers: str) -> int:
    admin = AdminClient({"bootstrap.servers": brokers})  # it must outlive the answer
    return len(admin.describe_consumer_groups([GROUP])[GROUP].result(10).members)
