"""Records of other people's producers, through real Kafka, to the SLO view, to SQL and to other people's consumers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from confluent_kafka import DeserializingConsumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat, unready
from tests.integration.worker_process import READY_S, SOURCE, Sender, WorkerProcess, eventually, make_topics
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
COUNTS = "request-counts"
PARTITIONS = 2
CORRUPT = b"\x00\x00\x00\x00\x02\x0cno-one"
NODES = ("example-avro", "example-plain")
OBJECTIVES = ("slos.yaml", "slos-request-counts.yaml")


@dataclass(frozen=True, slots=True)
class Stack:
    """A broker's address, a worker, and the port of the archive's SQL."""

    brokers: str
    worker: WorkerProcess
    sql_port: int

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        client = clickhouse_connect.get_client(host="127.0.0.1", port=self.sql_port)
        try:
            return [tuple(row) for row in client.query(query).result_rows]
        finally:
            client.close()


@pytest.fixture(scope="module")
def stack(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything runs, and each example of a producer has sent its record, with an unreadable one between them."""
    make_topics(kafka.bootstrap, PARTITIONS)
    folder = tmp_path_factory.mktemp("stack")
    sql, metrics = (free_port() for _ in range(2))
    command = fleetbeat(
        *("archive", "--brokers", kafka.bootstrap, "--store", folder / "store"),
        *("--listen", f"127.0.0.1:{sql}", "--metrics", f"127.0.0.1:{metrics}"),
    )
    archive = Child("archive", command, folder / "archive.log")
    try:
        objectives = folder / "slos.yaml"
        texts = [(ROOT / "examples" / name).read_text(encoding="utf-8") for name in OBJECTIVES]
        objectives.write_text("---\n".join(texts), encoding="utf-8")
        with WorkerProcess(kafka.bootstrap, folder, objectives) as worker:
            worker.start().await_ready()
            archive.await_ready(lambda: unready(f"http://127.0.0.1:{metrics}/-/ready"), READY_S)
            run_example("python_avro_serializer.py", kafka.bootstrap, worker.url)
            sender = Sender(kafka.bootstrap)
            sender.send_corrupt(b"no-one", CORRUPT)
            sender.flush()
            run_example("python_plain_bytes.py", kafka.bootstrap)
            run_example("python_request_counts.py", kafka.bootstrap, topic=COUNTS)
            yield Stack(kafka.bootstrap, worker, sql)
    finally:
        archive.stop()


def run_example(name: str, *arguments: str, topic: str = SOURCE) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "producers" / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{topic} partition ")


@pytest.mark.parametrize("objective", ["checkout-answers", "payment-in-europe-is-fast"])
def test_both_records_are_in_the_slo_view(stack: Stack, objective: str) -> None:
    def counted() -> dict[str, Any] | None:
        status, answer = stack.worker.get(f"/api/v1/slos/{objective}")
        return answer if status == 200 and answer["windows"][-1]["total"] >= len(NODES) else None

    answer = eventually(counted, "both records")
    recent = next(window for window in answer["windows"] if window["window_s"] == 300)
    for window in (recent, answer["windows"][-1]):
        assert (window["total"], window["good"], window["late"]) == (2, 2, 0)
        assert (window["sum_us"], window["max_us"]) == (2 * 48_211, 48_211)
        assert window["p99_us"] == pytest.approx(48_211, rel=0.01)
    assert answer["attainment"] == 1


@pytest.mark.parametrize(("objective", "good"), [("checkout-requests-succeed", 90), ("checkout-requests-are-fast", 72)])
def test_the_counted_requests_are_in_the_slo_view_and_probes_are_not(stack: Stack, objective: str, good: int) -> None:
    """100 requests of 20 to 119 ms, every tenth failed."""

    def counted() -> dict[str, Any] | None:
        status, answer = stack.worker.get(f"/api/v1/slos/{objective}")
        return answer if status == 200 and answer["windows"][-1]["total"] >= 100 else None

    answer = eventually(counted, "the requests")
    longest = answer["windows"][-1]
    assert (longest["total"], longest["good"], longest["late"]) == (100, good, 0)
    assert (longest["sum_us"], longest["max_us"]) == (6_950_000, 119_000)
    assert longest["p50_us"] == pytest.approx(69_000, rel=0.01)
    assert longest["p99_us"] == pytest.approx(118_000, rel=0.01)


def test_the_counted_requests_are_in_sql_once(stack: Stack) -> None:
    query = """
        SELECT node_id, total, good, sum_us, arraySum(histogram_total), arraySum(histogram_good), window_ms,
               toUnixTimestamp64Milli(ts) - began_ms
        FROM telemetry.request_counts
    """
    eventually(lambda: stack.sql(query), "a row")
    assert stack.sql(query) == [("example-counts", 100, 90, 6_950_000, 100, 90, 1_000, 999)]


def test_both_records_are_in_sql_once(stack: Stack) -> None:
    query = """
        SELECT node_id, service, endpoint, region, success, latency_us, status_code
        FROM telemetry.probe_results ORDER BY node_id
    """
    eventually(lambda: len(stack.sql(query)) >= len(NODES), "rows")
    assert stack.sql(query) == [(node, "checkout", "/pay", "eu-1", True, 48_211, 200) for node in NODES]


def test_the_unreadable_record_is_in_dead_letters(stack: Stack) -> None:
    query = "SELECT reason, topic, key, value, detected_by FROM telemetry.dead_letters"
    eventually(lambda: stack.sql(query), "a dead letter")
    ((reason, topic, key, value, detected_by),) = stack.sql(query)
    assert (reason, topic, detected_by) == ("truncated", SOURCE, "worker")
    assert (as_bytes(key), as_bytes(value)) == (b"no-one", CORRUPT)


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def test_confluents_consumer_reads_through_the_workers_registry_paths(stack: Stack) -> None:
    with SchemaRegistryClient({"url": stack.worker.url}) as registry:
        read = AvroDeserializer(registry)
        consumer = DeserializingConsumer(
            {
                "bootstrap.servers": stack.brokers,
                "group.id": "someone-else",
                "auto.offset.reset": "earliest",
                "value.deserializer": lambda value, context: value if value == CORRUPT else read(value, context),
            }
        )
        consumer.subscribe([SOURCE])
        found: dict[bytes | None, Any] = {}

        def all_read() -> bool:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None
                found[message.key()] = message.value()
            return len(found) == 3

        try:
            eventually(all_read, "three records")
        finally:
            consumer.close()
    assert found.pop(b"no-one") == CORRUPT
    assert {key: record["node_id"] for key, record in found.items()} == {node.encode(): node for node in NODES}
    assert {record["latency_us"] for record in found.values()} == {48_211}


def test_kcat_prints_records_through_the_workers_registry_paths(stack: Stack) -> None:
    kcat = shutil.which("kcat")
    features = subprocess.run([kcat, "-V"], capture_output=True, text=True, check=True).stdout if kcat else ""
    if kcat is None or "Avro" not in features:
        pytest.skip("no kcat with Avro on PATH (Debian's has none)")
    registry = f"http://127.0.0.1:{stack.worker.port}"
    command = [kcat, "-C", "-b", stack.brokers, "-s", "value=avro", "-r", registry, "-t", SOURCE, "-e", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {record["node_id"] for record in records} >= {NODES[0]}, done.stderr
