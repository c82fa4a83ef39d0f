"""Objectives that change under load: every slice is judged by the set in force, whoever counts it and how often."""

import json
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.kafka import LocalKafka
from infra.local.children import fleetbeat
from schemas.codec import decode
from schemas.records import ObjectiveSet
from tests.integration.worker_process import (
    Counted,
    Promise,
    Traffic,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    now_ms,
    read_log,
    write_objectives,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
LEAD_MS = 30_000
ALL = Promise("all")
FAST = Promise("fast", latency_us_le=60_000)
LEAVING = Promise("leaving", {"region": "us-1"})
COMING = Promise("coming", {"service": "service-2"}, 100_000)
BEFORE = (ALL, FAST, LEAVING)
AFTER = (ALL, replace(FAST, latency_us_le=150_000), COMING)


def reload(worker: WorkerProcess) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{worker.url}/-/reload", method="POST")  # noqa: S310 - http on loopback
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answered(workers: Sequence[WorkerProcess], promise: Promise, from_ms: int) -> dict[int, dict[str, Any]] | None:
    answers = [worker.slices(promise, from_ms // 1_000 * 1_000, now_ms() + 10_000) for worker in workers]
    return answers[0] if isinstance(answers[0], dict) and all(answer == answers[0] for answer in answers) else None


def wanted(log: Sequence[Counted], before: Promise, after: Promise, start_ms: int) -> dict[int, dict[str, int]]:
    return expected(before, [c for c in log if c.ts < start_ms]) | expected(after, [c for c in log if c.ts >= start_ms])


def test_a_set_judges_from_its_announced_start_on_although_workers_die_around_it(
    topics: Callable[[int], LocalKafka], tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    brokers = topics(PARTITIONS).bootstrap
    file = write_objectives(tmp_path / "slos.yaml", BEFORE)
    one, other = (WorkerProcess(brokers, tmp_path, file, name) for name in ("one", "other"))
    traffic = Traffic(brokers, random.Random(seed), rate=300)
    with one, other:
        one.start().await_ready()
        other.start().await_ready()
        traffic.start()
        try:
            write_objectives(file, AFTER)
            asked_ms = now_ms()
            sets = eventually(lambda: sets_of(brokers)[1:], "announcement by who watches the file")
            assert len({each.objectives for each in sets}) == 1
            status, said = reload(one)
            assert (status, said["announced"], said["objectives"]) == (200, False, 3)
            start_ms = said["start_ms"]
            assert asked_ms + LEAD_MS <= start_ms <= now_ms() + LEAD_MS + 1_000
            assert {o["id"] for o in one.get("/api/v1/slos")[1]["slos"]} == {p.id for p in BEFORE}, "not yet in force"
            refuses_a_bad_file(one, file)
            wait_until_ms(start_ms - 1_000)
            one.kill()
            wait_until_ms(start_ms + 1_000)
            one.start().await_ready()
            other.kill()
            wait_until_ms(start_ms + 3_000)
            other.start().await_ready()
        finally:
            traffic.end()
        log = counted(read_log(brokers), traffic.sender.events)
        assert len(log) == len(traffic.sender.events)
        for before, after in zip((ALL, FAST), AFTER[:2], strict=True):
            right = wanted(log, before, after, start_ms)
            judged_by_the_newest = expected(after, log)
            assert (right == judged_by_the_newest) == (before == after), "the change must show"
            agree([one, other], after, right, traffic.from_ms)
        agree([one, other], COMING, expected(COMING, [c for c in log if c.ts >= start_ms]), traffic.from_ms)
        assert one.get("/api/v1/slos/leaving")[0] == 404
        shown = subprocess.run(
            fleetbeat("slo", "fast", "--brokers", brokers), capture_output=True, text=True, check=True
        )
        assert shown.stdout.count("\n") == 4
        assert shown.stdout.startswith(
            "fast: 0.99 over 604800 s, of everything: good when it succeeds within 150000 µs\n"
        )
        status, fast = next(answer for w in (one, other) if (answer := w.get("/api/v1/slos/fast"))[0] == 200)
        assert [each["since_ms"] for each in fast["versions"]] == [0, start_ms]
        assert fast["version"] == fast["versions"][1]["version"] != fast["versions"][0]["version"]
        assert fast["windows"][-1]["total"] == len(log), "the history goes on over the change"


def agree(workers: Sequence[WorkerProcess], promise: Promise, right: dict[int, dict[str, int]], from_ms: int) -> None:
    deadline = time.monotonic() + 90
    while (found := answered(workers, promise, from_ms)) is None or (differs := differences(right, found)):
        assert time.monotonic() < deadline, found is None or (promise.id, len(differs), differs[:3])
        time.sleep(0.2)


def refuses_a_bad_file(worker: WorkerProcess, file: Path) -> None:
    good = file.read_text()
    file.write_text(good.replace("target: 0.99", "target: 99"))
    line = 1 + next(n for n, text in enumerate(file.read_text().splitlines()) if "target: 99" in text)
    status, said = reload(worker)
    assert status == 422
    expected_problem = "spec.objectives.0.target: value 99: expected a number above 0 and below 1"
    place, _, problem = said["problems"][0].partition(": ")
    assert place.startswith(f"{file}:{line}:")
    assert problem == expected_problem
    assert expected_problem in worker.log.read_text()
    assert worker.metric("fleetbeat_objectives_file_used") == 0
    assert worker.metric("fleetbeat_objectives_reloads_total") >= 2
    file.write_text(good)
    assert reload(worker)[0] == 200
    assert worker.metric("fleetbeat_objectives_file_used") == 1


def sets_of(brokers: str) -> list[ObjectiveSet]:
    found = [decode(record.value) for record in read_log(brokers, "objectives")]
    return [each for each in found if isinstance(each, ObjectiveSet)]


def wait_until_ms(until_ms: int) -> None:
    time.sleep(max(0, until_ms - now_ms()) / 1_000)
