"""The simulated fleet on real Kafka: what arrives is the ledger, exactly, whatever happens to broker or simulator."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from agents.simulate.ledger import Ledger, read_ledger
from agents.simulate.rows import STATES
from infra.kafka import LocalKafka
from infra.topics import run_apply
from schemas.codec import decode
from schemas.records import Heartbeat, ProbeResult

pytestmark = pytest.mark.kafka

DEADLINE_S = 120.0
PARTITIONS = 5
TOPICS = ("heartbeats", "probe-results")
SCRIPT = """
incidents: [{from_s: 1, to_s: 2, service: search, latency_factor: 5, failure_rate: 0.5}]
faults:
  - {at_s: 0.5, do: die, count: 5, back_after_s: 1}
  - {at_s: 1, do: restart, share: 0.2}
  - {at_s: 1.5, do: goodbye, count: 4}
  - {at_s: 1.2, do: cut-off, share: 0.2, back_after_s: 1}
  - {at_s: 2.5, do: cut-off, count: 3, back_after_s: 60}
late: {share: 0.05, by_s: [0.1, 2]}
"""

# (node_id, boot_id, seq) and all else that the ledger has of an event.
Event = tuple[object, ...]


async def consume(bootstrap: str, topic: str) -> list[tuple[int, Any]]:
    """(partition, record) of all that is in the topic now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        found = []
        deadline = time.monotonic() + DEADLINE_S
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            assert time.monotonic() < deadline
            for part, records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).items():
                found += [(part.partition, record) for record in records]
        return found
    finally:
        await consumer.stop()


def arrived(bootstrap: str) -> dict[str, list[tuple[int, Any]]]:
    return {topic: asyncio.run(consume(bootstrap, topic)) for topic in TOPICS}


def events_in_kafka(found: dict[str, list[tuple[int, Any]]]) -> Counter[Event]:
    return Counter(_event(decode(record.value)) for records in found.values() for _, record in records)


def _event(record: object) -> Event:
    match record:
        case Heartbeat():
            about = record.ts, record.state, record.boot_ts, record.region, record.zone
            return record.node_id, record.boot_id, record.seq, record.heartbeat_seq, *about
        case ProbeResult():
            series = record.service, record.endpoint, record.region, record.kind
            return record.node_id, record.boot_id, record.seq, record.ts, series, record.success, record.latency_us
    raise AssertionError(record)


def events_in_ledger(ledger: Ledger) -> Counter[Event]:
    boot_ids = [boot.decode() for boot in ledger.boots["boot_id"].tolist()]
    boot_times = ledger.boots["boot_ts"].tolist()
    series = [(one.service, one.endpoint, one.region, one.kind) for one in ledger.series]
    events: Counter[Event] = Counter()
    node_ids = [name.decode() for name in ledger.nodes["node_id"].tolist()]
    zones = [ledger.manifest.zones[zone] for zone in ledger.nodes["zone"].tolist()]
    names = ["node", "boot", "seq", "heartbeat_seq", "ts_ms", "state"]
    for node, boot, seq, heartbeat_seq, ts, state in ledger.heartbeats[names].tolist():
        about = ts, STATES[state], boot_times[boot], *zones[node]
        events[(node_ids[node], boot_ids[boot], seq, heartbeat_seq, *about)] += 1
    names = ["node", "boot", "seq", "ts_ms", "series", "success", "latency_us"]
    for node, boot, seq, ts, one, success, latency_us in ledger.results[names].tolist():
        events[(node_ids[node], boot_ids[boot], seq, ts, series[one], success, latency_us)] += 1
    return events


@contextmanager
def simulate(kafka: LocalKafka, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fleetbeat", "simulate", "--brokers", kafka.bootstrap, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The summary of a run that ended well."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert f"seed {summary['seed']} " in err
    return summary


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def written(folder: Path) -> int:
    return len(read_ledger(folder).results) if (folder / "acknowledged.rows").exists() else 0


def test_kafka_holds_the_ledger_after_a_run_with_every_kind_of_fault(
    topics: Callable[[int], LocalKafka], tmp_path: Path
) -> None:
    kafka = topics(PARTITIONS)
    (tmp_path / "script.yaml").write_text(SCRIPT)
    arguments = ["--unpaced", "--nodes", "50", "--rate", "6000", "--interval", "0.5", "--duration", "4", "--seed", "11"]
    before_ms = time.time_ns() // 1_000_000
    with simulate(kafka, *arguments, "--script", tmp_path / "script.yaml", "--ledger", tmp_path / "sent") as process:
        summary = finish(process)
    found, ledger = arrived(kafka.bootstrap), read_ledger(tmp_path / "sent")
    sent = events_in_ledger(ledger)
    assert events_in_kafka(found) == sent
    assert set(sent.values()) == {1}
    assert ledger.finished
    assert ledger.results_acknowledged.all()
    assert ledger.heartbeats_acknowledged.all()
    assert (summary["heartbeats"], summary["results"]) == (len(ledger.heartbeats), len(ledger.results))
    assert summary["events"] == sent.total() > 20_000
    assert (summary["seed"], ledger.manifest.seed) == (11, 11)
    times = np.concatenate([ledger.results["ts_ms"], ledger.heartbeats["ts_ms"]])
    assert times.min() >= before_ms - 4_000
    assert times.max() <= time.time_ns() // 1_000_000
    assert len(ledger.boots) > 50
    partitioner = DefaultPartitioner()
    for records in found.values():
        for partition, record in records:
            assert record.key == decode(record.value).node_id.encode()  # type: ignore[union-attr]
            assert partition == partitioner(record.key, list(range(PARTITIONS)), list(range(PARTITIONS)))


def test_the_same_seed_and_start_send_the_same_bytes(topics: Callable[[int], LocalKafka], tmp_path: Path) -> None:
    start_ms = time.time_ns() // 1_000_000 - 60_000
    arguments = ["--unpaced", "--events", "3000", "--nodes", "20", "--seed", "5", "--start-ms", str(start_ms)]
    sent = []
    for attempt in ("first", "second"):
        kafka = topics(PARTITIONS)
        with simulate(kafka, *arguments, "--ledger", tmp_path / attempt) as process:
            assert finish(process)["events"] == 3_000
        sent.append({(key, record.value) for key, pairs in arrived(kafka.bootstrap).items() for _, record in pairs})
    assert sent[0] == sent[1]
    for name in ("boots", "heartbeats", "results"):
        assert (tmp_path / "first" / f"{name}.rows").read_bytes() == (tmp_path / "second" / f"{name}.rows").read_bytes()


def test_a_paced_run_follows_the_clock_and_ends_cleanly_on_sigterm(
    topics: Callable[[int], LocalKafka], tmp_path: Path
) -> None:
    kafka = topics(PARTITIONS)
    with simulate(kafka, "--nodes", "30", "--rate", "3000", "--ledger", tmp_path / "sent") as process:
        until(lambda: written(tmp_path / "sent") > 3_000, process)
        process.send_signal(signal.SIGTERM)
        summary = finish(process)
    found, ledger = arrived(kafka.bootstrap), read_ledger(tmp_path / "sent")
    assert ledger.finished
    assert events_in_kafka(found) == events_in_ledger(ledger)
    assert 300 < summary["results"] / summary["seconds"] < 1.5 * 3_000, "never faster; slower where others run"
    lags = [record.timestamp - decode(record.value).ts for _, record in found["probe-results"]]  # type: ignore[union-attr]
    assert min(lags) > -200  # a signal does not wait for the end of a step of 100 ms
    assert np.median(lags) < 10_000


def test_after_kill_9_the_ledger_has_all_that_kafka_has(topics: Callable[[int], LocalKafka], tmp_path: Path) -> None:
    kafka = topics(PARTITIONS)
    arguments = ["--unpaced", "--rate", "20000", "--duration", "100000"]
    with simulate(kafka, *arguments, "--ledger", tmp_path / "sent") as process:
        until(lambda: written(tmp_path / "sent") > 30_000, process)
        process.kill()
        process.wait()
    ledger = read_ledger(tmp_path / "sent")
    assert not ledger.finished
    ids = ledger.results[["node", "boot", "seq"]]
    in_ledger = set(ids.tolist())
    assert len(in_ledger) == len(ids)
    nodes = {name.decode(): number for number, name in enumerate(ledger.nodes["node_id"].tolist())}
    in_kafka: Counter[tuple[int, int, int]] = Counter()
    for _, record in asyncio.run(consume(kafka.bootstrap, "probe-results")):
        one = decode(record.value)
        assert isinstance(one, ProbeResult)
        in_kafka[nodes[one.node_id], nodes[one.node_id], one.seq] += 1  # before any restart boot n is of node n
    assert set(in_kafka.values()) == {1}
    assert set(in_kafka) <= in_ledger
    assert set(ids[ledger.results_acknowledged].tolist()) <= set(in_kafka)


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    fresh_kafka: LocalKafka, tmp_path: Path
) -> None:
    assert run_apply(fresh_kafka.bootstrap, PARTITIONS, local=True) == 0
    with simulate(
        fresh_kafka, "--unpaced", "--events", "500000", "--nodes", "40", "--ledger", tmp_path / "sent"
    ) as process:
        until(lambda: written(tmp_path / "sent") > 100_000, process)
        fresh_kafka.kill()
        fresh_kafka.start()
        assert finish(process)["events"] == 500_000
    assert read_ledger(tmp_path / "sent").finished
    assert sum(_count(fresh_kafka.bootstrap)) == 500_000


def _count(bootstrap: str) -> list[int]:
    """Records of each partition of both topics, by their offsets: one each, since each is written once."""

    async def count() -> list[int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        await consumer.start()
        try:
            parts = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
            return list((await consumer.end_offsets(parts)).values())
        finally:
            await consumer.stop()

    return asyncio.run(count())


def test_without_topics_it_says_what_to_do_and_leaves_no_ledger(kafka: LocalKafka, tmp_path: Path) -> None:
    from tests.conftest import drop_topics

    asyncio.run(drop_topics(kafka.bootstrap))
    with simulate(kafka, "--ledger", tmp_path / "sent") as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "no topic heartbeats and no topic probe-results; create them with `fleetbeat topics apply`" in err
    assert not (tmp_path / "sent").exists()


def test_without_a_broker_it_says_so() -> None:
    command = [sys.executable, "-m", "fleetbeat", "simulate", "--brokers", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert "Kafka at 127.0.0.1:1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
