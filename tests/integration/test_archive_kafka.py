"""The archive between a real broker and a real engine: every offset once, whenever it is killed."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.kafka import LocalKafka
from schemas.codec import encode
from schemas.records import DeadLetter, Heartbeat, NodeState, ProbeResult, SloStatus, SloWindow
from tests.integration.test_recreated_topics import recreate

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PROCESS = Path(__file__).with_name("archive_process.py")
PARTITIONS = 3
DEADLINE_S = 120.0
T = TypeVar("T")
NOW = time.time_ns() // 1_000_000
BEAT = Heartbeat("n", NOW, "b", NOW, 0, 10_000, "UP", "eu", "a", "1")
DOWN = NodeState(
    *("n", "NODE", "DOWN", "SUSPECT", "missed-heartbeats", NOW, NOW - 4_000), "eu", "a", *(NOW, 1_000, 1, 1, 0, 2)
)
RESULT = ProbeResult("n", NOW, "b", 0, "p", "http", "checkout", "/pay", "eu-1", success=True, latency_us=1_000)
WINDOW = SloWindow(60, NOW // 60_000 * 60_000, NOW // 60_000 * 60_000 + 60_000, *(True, 10, 9, 0, 9, 5, 1, 2, 3))


class Archive:
    """One archive process; `sql` and `ready` ask it over HTTP."""

    def __init__(
        self, brokers: str, folder: Path, point: str = "never", nth: int = 0, table: str = "probe_results"
    ) -> None:
        self.log = folder / "archive.log"
        self._stderr = self.log.open("ab")
        self._told_from = self.log.stat().st_size
        command = [sys.executable, str(PROCESS), brokers, str(folder / "store"), point, str(nth), table]
        self.process = subprocess.Popen(
            command, stderr=self._stderr, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )

    def address(self, event: str) -> str:
        """Where it said that it listens."""

        def told() -> str | None:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            lines = self.log.read_bytes()[self._told_from :].decode().splitlines()
            found = [json.loads(line) for line in lines if f'"{event}"' in line]
            return found[0]["address"] if found else None

        return wait_for(told, event)

    def sql(self, query: str) -> list[tuple[str, ...]]:
        request = Request(f"http://{self.address('sql-served')}/", query.encode())
        with urlopen(request, timeout=60) as response:  # noqa: S310 - as above
            return [tuple(line.split("\t")) for line in response.read().decode().splitlines()]

    def status(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://{self.address('status-served')}{path}", timeout=60) as response:
                return response.status, response.read().decode()
        except HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def await_ready(self) -> None:
        """Every last plan is verified, and nearly nothing waits."""

        def ready() -> bool:
            return self.status("/-/ready")[0] == 200

        wait_for(ready, "readiness")

    def await_death(self, status: int = -signal.SIGKILL) -> None:
        assert self.process.wait(DEADLINE_S) == status
        self._stderr.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DEADLINE_S)
        self._stderr.close()
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stderr.close()


def wait_for(what: Callable[[], T | None], name: str) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"no {name} within {DEADLINE_S} s")


class Traffic(threading.Thread):
    """Results and heartbeats at some thousand a second until it is told to end; counts what was acknowledged."""

    def __init__(self, brokers: str) -> None:
        super().__init__()
        self._brokers = brokers
        self._ending = threading.Event()
        self.sent = {"probe-results": 0, "heartbeats": 0}

    def run(self) -> None:
        asyncio.run(self._produce())

    def end(self) -> None:
        self._ending.set()
        self.join()

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._brokers, linger_ms=5)
        await producer.start()
        number = 0
        while not self._ending.is_set():
            values = {
                "probe-results": [encode(replace(RESULT, seq=number + n)) for n in range(100)],
                "heartbeats": [encode(replace(BEAT, seq=number + n)) for n in range(20)],
            }
            for topic, records in values.items():
                acks = [
                    await producer.send(topic, value, b"n", partition=n % PARTITIONS) for n, value in enumerate(records)
                ]
                await asyncio.gather(*acks)
                self.sent[topic] += len(records)
            number += 100
            await asyncio.sleep(0.1)
        await producer.stop()


@pytest.fixture
def broker(topics: Callable[[int], LocalKafka]) -> LocalKafka:
    return topics(PARTITIONS)


@pytest.fixture
def traffic(broker: LocalKafka) -> Iterator[Traffic]:
    traffic = Traffic(broker.bootstrap)
    traffic.start()
    yield traffic
    traffic.end()


@pytest.fixture
def archive(broker: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., Archive]]:
    """`archive(point, nth, table)` starts one on the test's broker and store."""
    started: list[Archive] = []

    def start(point: str = "never", nth: int = 0, table: str = "probe_results") -> Archive:
        started.append(Archive(broker.bootstrap, tmp_path, point, nth, table))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.kill()


def outcomes(archive: Archive) -> dict[str, float]:
    """How many last plans of probe-results were found how at the start."""
    pattern = r'fleetbeat_archive_plans_verified_total\{outcome="(\w+)",topic="probe-results"\} (\S+)'
    return {outcome: float(count) for outcome, count in re.findall(pattern, archive.status("/metrics")[1])}


def census(archive: Archive, table: str) -> tuple[int, int]:
    """Rows, and different (partition, offset)."""
    query = f"SELECT count(), uniqExact(kafka_partition, kafka_offset) FROM {table}"  # noqa: S608 - our own names
    ((rows, offsets),) = archive.sql(query)
    return int(rows), int(offsets)


def await_each_once(archive: Archive, table: str, sent: int) -> None:
    """All of `sent` records, and none twice."""
    wait_for(lambda: census(archive, table)[1] >= sent, f"{sent} different rows in {table}")
    assert census(archive, table) == (sent, sent)


@pytest.mark.parametrize(
    ("point", "found", "at_least"),
    [
        ("before-insert", "completed", PARTITIONS),
        ("half-insert", "completed", 1),
        ("after-insert", "complete", PARTITIONS),
    ],
)
def test_killed_at_an_insert(
    traffic: Traffic, archive: Callable[..., Archive], point: str, found: str, at_least: int
) -> None:
    archive(point, 3).await_death()
    again = archive()
    again.await_ready()
    assert outcomes(again).get(found, 0) >= at_least
    traffic.end()
    for topic, table in (("probe-results", "probe_results"), ("heartbeats", "heartbeats")):
        sent = traffic.sent[topic]
        await_each_once(again, table, sent)
    assert again.stop() == 0


def test_killed_at_random(traffic: Traffic, archive: Callable[..., Archive]) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(3):
        doomed = archive()
        doomed.address("sql-served")
        time.sleep(draw.uniform(0.0, 2.0))
        doomed.kill()
    last = archive()
    last.await_ready()
    traffic.end()
    sent = traffic.sent["probe-results"]
    await_each_once(last, "probe_results", sent)
    assert last.stop() == 0


def test_without_verification_a_kill_loses_records(traffic: Traffic, archive: Callable[..., Archive]) -> None:
    """The control: these tests see the fault that the rule prevents."""
    archive("before-insert", 3).await_death()
    again = archive("unverified")
    again.await_ready()  # so that there are records behind the lost ones
    traffic.end()
    sent = traffic.sent["probe-results"]
    ends = "SELECT sum(end) FROM (SELECT max(kafka_offset) + 1 AS end FROM probe_results GROUP BY kafka_partition)"
    wait_for(lambda: again.sql(ends) == [(str(sent),)], "last records")
    rows, offsets = census(again, "probe_results")
    assert rows == offsets < sent


def test_a_clean_stop_and_start_goes_on(broker: LocalKafka, traffic: Traffic, archive: Callable[..., Archive]) -> None:
    first = archive()
    first.await_ready()
    assert first.stop() == 0
    traffic.end()
    second = archive()
    second.await_ready()
    sent = traffic.sent["probe-results"]
    await_each_once(second, "probe_results", sent)
    assert second.stop() == 0
    assert sum(asyncio.run(committed(broker.bootstrap, "probe-results"))) == sent


def test_unreadable_records_are_reported_and_their_neighbours_stored(
    broker: LocalKafka, archive: Callable[..., Archive]
) -> None:
    letter = encode(DeadLetter("truncated", "d", "probe-results", 1, 5, NOW, "worker", None, b"x", 1))
    status = SloStatus("pay", "checkout", "v1", 0.99, NOW, NOW, 7, (WINDOW,))
    minute = f"pay@{WINDOW.start}".encode()
    asyncio.run(
        send(
            broker.bootstrap,
            [
                ("heartbeats", b"n", encode(BEAT)),
                ("heartbeats", b"other", encode(BEAT)),
                ("heartbeats", b"n", encode(BEAT)),
                ("node-states", b"n", encode(DOWN)),
                ("node-states", b"n", encode(DOWN)[:-3]),
                ("node-states", b"n", encode(DOWN)),
                ("node-states", b"n", None),
                ("probe-results", b"n", b"rubbish"),
                ("probe-results", b"n", encode(RESULT)),
                ("dead-letters", None, letter),
                ("dead-letters", None, letter),
                ("dead-letters", None, b"rubbish"),
                ("slo-status", b"pay", encode(status)),
                ("slo-status", minute, encode(status)),
                ("slo-status", minute, encode(replace(status, applied_offset=9, windows=(replace(WINDOW, total=11),)))),
                ("slo-status", minute, b"rubbish"),
            ],
        )
    )
    running = archive()
    running.await_ready()

    def reported() -> bool:
        return running.sql("SELECT count() FROM dead_letters FINAL") == [("2",)]

    wait_for(reported, "dead letters")
    assert census(running, "heartbeats") == (2, 2)
    assert census(running, "probe_results") == (1, 1)
    assert running.sql("SELECT topic, partition, offset, reason, detected_by FROM dead_letters FINAL ORDER BY ALL") == [
        ("node-states", "0", "1", "truncated", "archive"),
        ("probe-results", "1", "5", "truncated", "worker"),
    ]
    found = running.sql("SELECT subject, kind, state, previous, since - last_seen FROM node_states FINAL")
    assert found == [("n", "NODE", "DOWN", "SUSPECT", "4")]
    assert running.sql("SELECT slo, total, revision, final FROM slo_windows FINAL") == [("pay", "11", "9", "true")]
    figures = running.status("/metrics")[1]
    assert 'fleetbeat_archive_rejected_rows_total{reason="key-mismatch",topic="heartbeats"} 1.0' in figures
    for topic in ("probe-results", "dead-letters", "slo-status"):
        assert f'fleetbeat_archive_rejected_rows_total{{reason="bad-frame",topic="{topic}"}} 1.0' in figures
    wait_for(lambda: re.search(r"\nfleetbeat_archive_parts [1-9]", running.status("/metrics")[1]), "the engine's parts")
    assert running.stop() == 0


def test_a_topic_created_anew_ends_the_archive_and_keeps_it_from_starting_however_far_its_log_goes(
    broker: LocalKafka, archive: Callable[..., Archive]
) -> None:
    few, more = ([("heartbeats", b"n", encode(replace(BEAT, seq=seq))) for seq in range(count)] for count in (5, 50))
    asyncio.run(send(broker.bootstrap, few))
    running = archive()
    running.await_ready()
    wait_for(lambda: census(running, "heartbeats") == (5, 5), "rows")
    recreate(broker.bootstrap, "heartbeats", partitions=PARTITIONS)
    asyncio.run(send(broker.bootstrap, more))
    running.await_death(1)
    archive().await_death(1)
    said = running.log.read_text()
    assert re.search(r'"error": "heartbeats: the topic was created anew, its id is [\w-]{22}; expected [\w-]{22}', said)


def test_a_new_store_holds_all_that_kafka_does_whatever_was_committed(
    broker: LocalKafka, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    asyncio.run(send(broker.bootstrap, [("heartbeats", b"n", encode(replace(BEAT, seq=seq))) for seq in range(9)]))
    first = archive()
    first.await_ready()
    wait_for(lambda: census(first, "heartbeats") == (9, 9), "rows")
    assert first.stop() == 0
    assert sum(asyncio.run(committed(broker.bootstrap, "heartbeats"))) == 9
    shutil.rmtree(tmp_path / "store")
    again = archive()
    again.await_ready()
    wait_for(lambda: census(again, "heartbeats") == (9, 9), "rows of the new store")
    assert again.stop() == 0


async def send(brokers: str, records: Sequence[tuple[str, bytes | None, bytes | None]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    for topic, key, value in records:
        await producer.send_and_wait(topic, value, key, partition=0)
    await producer.stop()


async def committed(brokers: str, topic: str) -> list[int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id="fleetbeat-archive", enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        return [await consumer.committed(place) or 0 for place in places]
    finally:
        await consumer.stop()
