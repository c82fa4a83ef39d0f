"""A worker that requires signatures, an agent that signs, and somebody who writes to the same topics: real Kafka."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from infra.local.children import fleetbeat
from schemas.codec import decode, encode
from schemas.records import Heartbeat, ProbeResult
from schemas.signatures import HEADER, SigningKey, head, sign
from schemas.signing_files import read_node_key
from tests.integration.agent_process import NODE, AgentProcess
from tests.integration.conftest import ALL
from tests.integration.worker_process import (
    WorkerProcess,
    counted,
    differences,
    eventually,
    expected,
    letters,
    now_ms,
    read_log,
)

pytestmark = [pytest.mark.kafka]

PARTITIONS = 2
THIEF = "thief"
SOURCES = ("probe-results", "heartbeats")
Place = tuple[str, int, int]
Headers = list[tuple[str, bytes]]


class Attacker:
    """Writes what it likes, and remembers where it came to and why that must be refused."""

    def __init__(self, brokers: str) -> None:
        self.places: dict[Place, str] = {}
        self._producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random"})

    def send(self, reason: str, topic: str, value: bytes, headers: Headers, key: str = NODE) -> None:
        def written(error: object, message: KafkaMessage) -> None:
            assert error is None
            self.places[topic, message.partition() or 0, message.offset() or 0] = reason

        self._producer.produce(topic, value, key.encode(), headers=[*headers], on_delivery=written)
        assert self._producer.flush(60) == 0


def signed_log(brokers: str, topic: str) -> list[tuple[bytes, Headers]]:
    """(value, headers) of the node's records so far."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "thief", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    found: list[tuple[bytes, Headers]] = []
    while len(found) < 4:
        for message in consumer.consume(100, 1.0):
            assert message.key() == NODE.encode()
            found.append((message.value() or b"", cast("Headers", message.headers() or [])))
    consumer.close()
    return found


def key_of_node(keys: Path) -> Path:
    (found,) = (path for path in keys.iterdir() if path.name != f"{THIEF}.key")
    return found


def write_attack(attacker: Attacker, brokers: str, keys: Path) -> None:
    own, stolen = read_node_key(key_of_node(keys), "", NODE), read_node_key(keys / f"{THIEF}.key", "", THIEF)
    at_ms = time.time_ns() // 1_000_000

    def headers(topic: str, value: bytes, key: bytes, signed_ms: int = at_ms) -> Headers:
        return [(HEADER, sign(SigningKey(key), head(1, signed_ms), topic, value))]

    for topic in SOURCES:
        log = signed_log(brokers, topic)
        for said, its_headers in log[:3]:
            attacker.send("replayed", topic, said, its_headers)
        record = decode(log[-1][0])
        assert isinstance(record, ProbeResult | Heartbeat)
        new = encode(replace(record, seq=record.seq + 1_000))
        attacker.send("unsigned", topic, new, [])
        attacker.send("bad-signature", topic, new, log[1][1])
        attacker.send("bad-signature", topic, new, headers(topic, new, stolen.key))
        attacker.send("bad-signature", topic, encode(replace(record, region="elsewhere")), log[-1][1])
        attacker.send("stale-signature", topic, new, headers(topic, new, own.key, at_ms - 600_000))
        mine = encode(replace(record, node_id=THIEF))
        attacker.send("key-mismatch", topic, mine, headers(topic, mine, stolen.key))
    goodbye = decode(signed_log(brokers, "heartbeats")[-1][0])
    assert isinstance(goodbye, Heartbeat)
    attacker.send("unsigned", "heartbeats", encode(replace(goodbye, seq=1 << 40, state="GOODBYE")), [])


def test_a_node_that_speaks_for_another_one_or_says_again_what_was_said_is_refused_and_counted(
    brokers: str, start: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    master, keys = tmp_path / "master", tmp_path / "keys"
    enroll = fleetbeat("enroll", NODE, THIEF, "--new-master", "--master-file", master, "--out", keys)
    subprocess.run(enroll, check=True, capture_output=True, timeout=100)
    (tmp_path / "signing.yaml").write_text("keys: [{id: 1, file: master}]\n")
    worker = start("worker", "--signatures", "require", "--signing-keys", str(tmp_path / "signing.yaml"))
    with AgentProcess(tmp_path, brokers) as agent:
        own = next(path for path in keys.iterdir() if path.name != f"{THIEF}.key")
        agent.config.write_text(
            agent.config.read_text("utf-8").replace("node: {", f"node: {{key_file: {own}, "), "utf-8"
        )
        agent.start().await_ready()
        for topic in SOURCES:
            agent.await_metric("fleetbeat_agent_records_acknowledged_total", 4, topic=topic)
        attacker = Attacker(brokers)
        write_attack(attacker, brokers, keys)
        worker.await_ready()
        eventually(lambda: len(letters(brokers)) >= len(attacker.places), "letters")
        node = worker.asked(f"/api/v1/nodes/{quote(NODE)}")[1]
        assert (node["state"], node["restarts"]) == ("UP", 0)
        assert agent.stop() == 0
    found = {(letter.topic, letter.partition, letter.offset): letter.reason for letter in letters(brokers)}
    assert found == attacker.places
    assert worker.metric("fleetbeat_rejected_records_total") == len(found)
    by_reason = Counter(found.values())
    assert by_reason == {
        "replayed": 6,
        "unsigned": 3,
        "bad-signature": 6,
        "stale-signature": 2,
        "key-mismatch": 2,
    }
    doubtful = len(found) - by_reason["key-mismatch"]
    assert worker.metric("fleetbeat_doubtful_signatures_total") == doubtful

    refused = {place[1:] for place in found if place[0] == "probe-results"}
    log = [
        replace(record, value=b"") if (record.partition, record.offset) in refused else record
        for record in read_log(brokers)
    ]
    events = {record.value: decode(record.value) for record in log if record.value}
    said = counted(log, {value: event for value, event in events.items() if isinstance(event, ProbeResult)})
    wanted = expected(ALL[0], said)

    def agrees() -> bool:
        slices = worker.slices(ALL[0], min(wanted), now_ms() + 60_000)
        return not isinstance(slices, str) and not differences(wanted, slices)

    assert len(said) >= 8
    eventually(agrees, "agreement")
    assert eventually(lambda: worker.told(f"/api/v1/nodes/{quote(NODE)}").get("state") == "GONE", "goodbye")
