"""Workers that are killed, join, leave, freeze and wake up under load: no event is lost, and none is counted twice."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import pytest

from tests.integration.worker_process import (
    SOURCE,
    Counted,
    Promise,
    Traffic,
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    letters,
    now_ms,
    read_log,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
KILLS = 5
SESSION_S = 6
PROMISES = (
    Promise("all"),
    Promise("fast", latency_us_le=60_000),
    Promise("service-1", {"service": "service-1"}),
    Promise("service-2", {"service": "service-2", "region": "us-1"}, 100_000),
    Promise("rare", {"service": "rare"}),
    Promise("rarely-slow", {"service": "rare"}, 20_000),
)

Start = Callable[[str], WorkerProcess]
Slices = dict[int, dict[str, int]]


@pytest.fixture
def traffic(brokers: str, rng: random.Random) -> Iterator[Traffic]:
    traffic = Traffic(brokers, rng)
    traffic.start()
    yield traffic
    traffic.end()


def log_of(brokers: str, traffic: Traffic) -> list[Counted]:
    """The log, of which the ledger is certain to be the sum."""
    log = read_log(brokers)
    assert sorted(r.value or b"" for r in log) == sorted([
        *traffic.sender.events, *(value or b"" for _, value in traffic.sender.corrupt)
    ])  # fmt: skip
    return counted(log, traffic.sender.events)


def mismatches(wanted: Mapping[str, Slices], workers: Sequence[WorkerProcess], from_ms: int) -> list[str]:
    """How what any of them answers differs from what is wanted, and who does not answer."""
    found = []
    for promise in PROMISES:
        for worker in workers:
            answer = worker.slices(promise, from_ms // 1_000 * 1_000, now_ms() + 60_000)
            wrong = [answer] if isinstance(answer, str) else differences(wanted[promise.id], answer)
            found += [f"{promise.id}: {sentence}" for sentence in wrong]
    return found


def agree(log: Sequence[Counted], workers: Sequence[WorkerProcess], from_ms: int) -> None:
    wanted = {promise.id: expected(promise, log) for promise in PROMISES}
    with suppress(AssertionError):  # the line below says what differs
        eventually(lambda: not mismatches(wanted, workers, from_ms), "agreement")
    assert mismatches(wanted, workers, from_ms) == []
    for worker in workers:
        assert worker.metric("fleetbeat_missing_offsets_total") == 0
        assert worker.metric("fleetbeat_unreadable_pages_total") == 0


def owners(workers: Sequence[WorkerProcess]) -> list[set[str]]:
    """The objectives that each worker keeps itself."""
    return [{p.id for p in PROMISES if worker.get(f"/api/v1/slos/{p.id}", alone=True)[0] == 200} for worker in workers]


def shared(workers: Sequence[WorkerProcess]) -> bool:
    """Each worker keeps some, and each objective is kept by one."""
    kept = owners(workers)
    return all(kept) and sum(map(len, kept)) == len(set().union(*kept)) == len(PROMISES)


def await_all_kept_by(worker: WorkerProcess, timeout_s: float = 40) -> None:
    eventually(lambda: len(owners([worker])[0]) == len(PROMISES), "owner of everything", timeout_s)


def wake(frozen: WorkerProcess) -> None:
    """Until it has its tables anew, it must not answer from those of before."""
    recoveries = frozen.log.read_text().count("tables recovered")
    frozen.resume()
    answered = owners([frozen])[0]
    if frozen.log.read_text().count("tables recovered") == recoveries:
        assert not answered


def alive(worker: WorkerProcess) -> bool:
    """Who was frozen for longer than its producer waits ends itself; then it is started, as a service manager would."""
    if worker.child.poll() is not None:
        worker.start()
    return True


def dead_letters_cover(brokers: str, traffic: Traffic) -> bool:
    """Each corrupt record is in dead-letters, once or more, and nothing else is."""
    corrupt = {value for _, value in traffic.sender.corrupt}
    wanted = {(SOURCE, r.partition, r.offset, r.value) for r in read_log(brokers) if r.value in corrupt}
    return {(letter.topic, letter.partition, letter.offset, letter.value) for letter in letters(brokers)} == wanted


@pytest.mark.long  # tests/faults/test_rows.py kills and freezes more in less time
def test_kill_minus_nine_at_random_moments(brokers: str, traffic: Traffic, start: Start, rng: random.Random) -> None:
    worker = start("worker")
    worked = 0
    for kill in range(KILLS):
        if kill % 2 == 0:
            worker.await_ready()
            time.sleep(rng.uniform(0, 2))
        else:
            time.sleep(rng.uniform(1, 7))
        worked += worker.metric("fleetbeat_rollup_events_total") if worker.get("/metrics")[0] else 0
        worker.kill()
        worker.start()
    worker.await_ready()
    time.sleep(1)
    traffic.end()
    log = log_of(brokers, traffic)
    agree(log, [worker], traffic.from_ms)
    worked += worker.metric("fleetbeat_rollup_events_total")
    print(f"{KILLS} kills, {len(log)} events, {worked / len(log) - 1:.1%} counted again")
    assert sum(entry.late for entry in log) > 100
    assert dead_letters_cover(brokers, traffic)


@pytest.mark.long  # as above
def test_two_workers_of_which_one_freezes_and_the_other_is_killed(
    brokers: str, traffic: Traffic, start: Start, rng: random.Random
) -> None:
    first, second = start("first").await_ready(), start("second")
    eventually(lambda: shared([first, second]), "sharing")
    time.sleep(rng.uniform(0, 2))
    second.pause()
    time.sleep(SESSION_S)
    await_all_kept_by(first)
    time.sleep(rng.uniform(0, 2))
    wake(second)
    eventually(lambda: alive(second) and shared([first, second]), "sharing after the freeze")
    time.sleep(rng.uniform(0, 2))
    first.kill()
    await_all_kept_by(second)
    time.sleep(1)
    traffic.end()
    log = log_of(brokers, traffic)
    agree(log, [second], traffic.from_ms)
    assert dead_letters_cover(brokers, traffic)
