"""A new objective has its past from ClickHouse within seconds, equal to what the log says."""

import json
import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat
from tests.integration.worker_process import (
    COUNTS,
    Promise,
    Sender,
    Traffic,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    now_ms,
    probe_result,
    read_log,
    write_objectives,
)
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.long]  # a change of objectives takes 30 s, and late events are waited for

PARTITIONS = 2
HOUR_MS = 3_600_000
ALL = Promise("all")
NEW = Promise("new", {"region": "us-1"}, 60_000)
# From the start of a new objective on; a machine that does much else takes longer than the seconds it takes.
WITHIN_MS = 60_000


def test_the_past_of_an_objective_that_is_added_is_there_and_exact(
    topics: Callable[[int], LocalKafka], rng: random.Random, tmp_path: Path
) -> None:
    brokers = topics(PARTITIONS).bootstrap
    file = write_objectives(tmp_path / "slos.yaml", [ALL])
    sql = f"127.0.0.1:{free_port()}"
    archive = Child(
        "archive",
        fleetbeat("archive", "--brokers", brokers, "--store", tmp_path / "store", "--listen", sql),
        tmp_path / "archive.log",
        grace_s=30,
    )
    worker = WorkerProcess(brokers, tmp_path, file, options=("--history", f"http://{sql}"))
    traffic = Traffic(brokers, rng, rate=100)
    try:
        worker.start().await_ready()
        assert worker.told("/api/v1/slos/all")["history"] is None, "it judges from the beginning of time"
        old = send_hours(brokers, rng)
        traffic.start()
        write_objectives(file, [ALL, NEW])
        start_ms = reload(worker)["start_ms"]
        answer = eventually(lambda: with_past(worker), "past", 60 + WITHIN_MS / 1_000)
        shown_ms = now_ms() - start_ms
        assert answer["history"]["to_ms"] == start_ms == answer["versions"][0]["since_ms"]
        assert answer["history"]["source"] == "clickhouse"
        assert shown_ms < WITHIN_MS
        print(f"shown {shown_ms} ms after the start")
        time.sleep(3)
        traffic.end()
        log = counted(read_log(brokers), old | traffic.sender.events)
        assert len(log) == len(old) + len(traffic.sender.events)
        before = [entry for entry in log if entry.ts < start_ms]
        assert len(old) < len(before) < len(log)
        agrees(worker, log, start_ms)
        worker.kill()
        worker.start().await_ready()
        agrees(worker, log, start_ms)
        assert total_of(expected(NEW, before)) > 300
    finally:
        worker.__exit__()
        if archive.poll() is None:
            archive.stop()


def agrees(worker: WorkerProcess, log: Any, start_ms: int) -> None:  # noqa: ANN401 - as `counted` has it
    """The longest window and every second of the log, also after the last refresh."""
    right, deadline = expected(NEW, log), time.monotonic() + 120
    while found := wrong(worker, right):
        assert time.monotonic() < deadline, found[:5]
        time.sleep(0.5)
    history = worker.told("/api/v1/slos/new")["history"]
    assert history["from_ms"] <= min(right)
    assert start_ms == history["to_ms"] <= history["as_of_ms"]


def wrong(worker: WorkerProcess, right: dict[int, dict[str, int]]) -> list[str]:
    answer = worker.told("/api/v1/slos/new")
    if not answer.get("history"):
        return [f"no past in {answer}"]
    longest = {name: answer["windows"][-1][name] for name in COUNTS}
    sums = {name: sum(row[name] for row in right.values()) for name in COUNTS}
    sums["max_us"] = max(row["max_us"] for row in right.values())
    slices = worker.slices(NEW, min(right), max(right) + 1_000)
    if isinstance(slices, str):
        return [slices]
    return [
        *([] if longest == sums else [f"{longest}, expected {sums}"]),
        *differences(right, slices_of_seconds(right, slices)),
    ]


def slices_of_seconds(right: dict[int, dict[str, int]], slices: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Seconds are kept for the last ten minutes before the start; hours of before are in the windows only."""
    oldest = min(slices, default=0)
    return slices | {at: row for at, row in right.items() if at < oldest}


def with_past(worker: WorkerProcess) -> dict[str, Any] | None:
    answer = worker.told("/api/v1/slos/new")
    return answer if answer.get("history") else None


def total_of(steps: dict[int, dict[str, int]]) -> int:
    return sum(step["total"] for step in steps.values())


def send_hours(brokers: str, rng: random.Random) -> dict[bytes, Any]:
    """Results of the last hours, which come only now."""
    sender, now = Sender(brokers), now_ms()
    for seq in range(1_500):
        sender.send(
            probe_result(
                node_id="old",
                seq=seq,
                ts=now - rng.randrange(3 * HOUR_MS),
                region=rng.choice(["eu-1", "us-1"]),
                success=rng.random() > 0.1,
                latency_us=int(rng.lognormvariate(11, 1)),
            )
        )
    sender.flush()
    return sender.events


def reload(worker: WorkerProcess) -> dict[str, Any]:
    request = urllib.request.Request(f"{worker.url}/-/reload", method="POST")  # noqa: S310 - http on loopback
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        found: dict[str, Any] = json.load(answer)
    return found
