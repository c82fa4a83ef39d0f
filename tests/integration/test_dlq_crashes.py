"""Replays of dead letters that are killed or frozen, on a real broker: each letter is in the log once, none is lost."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Consumer, Message, Producer, TopicPartition

import fleetbeat
from infra.dlq import wire
from infra.dlq.log import REPLAYS, read_notes
from infra.dlq.replay import Replayer
from infra.local.children import child_environment
from schemas.codec import encode, frame, split_frame
from schemas.dead_letters import TOPIC as LETTERS
from schemas.dead_letters import Origin, dead_letter
from tests.integration.worker_process import SOURCE, eventually, now_ms, probe_result

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PROCESS = Path(__file__).with_name("dlq_process.py")
PARTITIONS = 3
WRONG_ID = 901
REPLAY = ("dlq", "replay", "--schema-id", f"{WRONG_ID}=2", "--json")


def values(count: int, node: str = "node") -> list[tuple[bytes, bytes]]:
    """Keys and good values of records, each of a kind."""
    results = [probe_result(node_id=f"{node}-{number % 7}", seq=number) for number in range(count)]
    return [(result.node_id.encode(), encode(result)) for result in results]


def write_letters(brokers: str, good: Sequence[tuple[bytes, bytes]], copies: int = 1, first_offset: int = 0) -> None:
    """Letters about records that carried a schema id of another registry."""
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random"})
    for offset, (key, value) in enumerate(good, first_offset):
        wrong = frame(WRONG_ID, split_frame(value)[1])
        letter = dead_letter(Origin(SOURCE, 0, offset, now_ms(), key, wrong), "unknown-schema", "a test", "worker")
        for _ in range(copies):
            producer.produce(LETTERS, key=key, value=encode(letter))
        producer.poll(0)
    assert producer.flush(90) == 0


def in_log(brokers: str, topic: str = SOURCE) -> list[Message]:
    """All records of a topic, also those of transactions that were given up: the worker counts them all."""
    settings = {"bootstrap.servers": brokers, "group.id": "x", "isolation.level": "read_uncommitted"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
    found = []
    ended: set[int] = set()
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    deadline = time.monotonic() + 90
    while len(ended) < PARTITIONS:
        assert time.monotonic() < deadline, f"{topic} was not read to its end"
        for message in consumer.consume(10_000, 0.2):
            if message.error() is None:
                found.append(message)
            else:
                ended.add(message.partition() or 0)
    consumer.close()
    return found


def assert_each_once(brokers: str, good: Sequence[tuple[bytes, bytes]]) -> None:
    found = in_log(brokers)
    assert Counter((record.key(), record.value()) for record in found) == Counter(good)
    for record in found:
        assert record.partition() == (murmur2(record.key()) & 0x7FFFFFFF) % PARTITIONS


def replay(brokers: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    """What `fleetbeat dlq replay --json` counts."""
    capsys.readouterr()
    status = fleetbeat.main([*REPLAY, *more, "--brokers", brokers])
    counts: dict[str, object] = json.loads(capsys.readouterr().out)
    assert status == (1 if counts["left"] else 0)
    return counts


def test_a_letter_goes_back_once_with_a_header_that_names_its_origin(
    brokers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = values(40)
    write_letters(brokers, good, copies=2)
    assert replay(brokers, capsys) == {"sent": 0, "ready": 40, "before": 0, "settled": 0, "left": {}}
    assert in_log(brokers) == [], "without --yes nothing is sent"
    assert replay(brokers, capsys, "--yes", "--limit", "10")["sent"] == 10
    assert replay(brokers, capsys, "--yes") == {"sent": 30, "ready": 0, "before": 10, "settled": 0, "left": {}}
    assert replay(brokers, capsys, "--yes") == {"sent": 0, "ready": 0, "before": 40, "settled": 0, "left": {}}
    assert_each_once(brokers, good)
    origins = {good[offset][1]: f"{SOURCE}/0/{offset}".encode() for offset in range(40)}
    for record in in_log(brokers):
        assert record.headers() == [("fleetbeat-replay-of", origins[record.value() or b""])]


@pytest.mark.parametrize(
    ("point", "in_the_log"), [("after-intent", 0), ("half-sent", 20), ("after-send", 40), ("before-commit", 40)]
)
def test_a_replay_that_was_killed_is_finished_by_the_next_one(
    brokers: str, capsys: pytest.CaptureFixture[str], point: str, in_the_log: int
) -> None:
    good = values(40, point)
    write_letters(brokers, good)
    process = subprocess.run(
        [sys.executable, PROCESS, brokers, point], env=child_environment(), timeout=120, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert len(in_log(brokers)) == in_the_log
    notes = asyncio.run(read_notes(brokers, lambda _: None))
    assert (len(notes.begun), len(notes.done)) == (40, 0)

    counts = replay(brokers, capsys, "--yes")

    left = 40 - in_the_log
    assert counts == {"sent": left, "ready": 0, "before": in_the_log, "settled": in_the_log, "left": {}}
    assert_each_once(brokers, good)
    assert replay(brokers, capsys, "--yes")["before"] == 40
    assert_each_once(brokers, good)


@pytest.mark.parametrize("point", ["frozen-after-intent", "frozen-half-sent", "frozen-after-send"])
def test_a_replay_that_was_frozen_sends_nothing_after_another_took_over(
    brokers: str, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    good = values(40, point)
    write_letters(brokers, good)
    process = subprocess.Popen(
        [sys.executable, PROCESS, brokers, point], env=child_environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: stopped(process.pid), "stop")
        replay(brokers, capsys, "--yes")
        assert_each_once(brokers, good)
        process.send_signal(signal.SIGCONT)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, told.count("another replay has begun")) == (1, 1), told
    assert_each_once(brokers, good)


def test_replays_killed_at_any_moment_send_each_letter_once(brokers: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    good = values(6_000)
    write_letters(brokers, good)
    command = [sys.executable, "-P", "-m", "fleetbeat", *REPLAY, "--yes", "--brokers", brokers]
    for _ in range(4):
        before = len(in_log(brokers, REPLAYS))
        process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL)
        eventually(lambda: len(in_log(brokers, REPLAYS)) > before or process.poll() is not None, "first batch")  # noqa: B023
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.wait()
    counts = replay(brokers, capsys, "--yes")
    assert counts["left"] == {}
    assert_each_once(brokers, good)


def test_the_tests_above_fail_for_a_replay_that_does_not_look_for_what_was_sent(
    brokers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind(_: Replayer) -> int:
        return 0

    monkeypatch.setattr(Replayer, "settle", blind)
    write_letters(brokers, values(40))
    subprocess.run([sys.executable, PROCESS, brokers, "half-sent"], env=child_environment(), timeout=120, check=False)
    replay(brokers, capsys, "--yes")
    assert len(in_log(brokers)) == 60


def test_the_tests_above_fail_for_a_replay_that_does_not_fence_others(
    brokers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_letters(brokers, values(40))
    process = subprocess.Popen([sys.executable, PROCESS, brokers, "frozen-after-intent"], env=child_environment())
    try:
        eventually(lambda: stopped(process.pid), "stop")
        monkeypatch.setattr(wire, "TRANSACTIONAL_ID", "someone-else")
        replay(brokers, capsys, "--yes")
        process.send_signal(signal.SIGCONT)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    assert len(in_log(brokers)) == 80


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
