"""The Java example, built by Maven as its page says: what it sends is read, lies where it belongs and is counted."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.kafka import LocalKafka
from schemas.codec import decode
from schemas.records import Heartbeat, ProbeResult
from streams.engine.partitioning import partition_of
from tests.integration.worker_process import Logged, WorkerProcess, eventually, letters, make_topics, read_log
from tests.programs import need, run

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PARTITIONS = 5
RESULTS = 250
NODES = ("java-1", "java-zürich", "主机-3")
BUILD = ("mvn", "--batch-mode", "--strict-checksums", "compile", "dependency:copy-dependencies")
BUILD_S = 200
RUN = ("java", "-cp", "target/classes:target/jars/*", "NodeProducer")


@dataclass(frozen=True, slots=True)
class Sent:
    """What is on the topics after one boot of each node."""

    results: tuple[Logged, ...]
    heartbeats: tuple[Logged, ...]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example and the schemas that it takes in, copied: a build in the checkout would leave its output there."""
    need("mvn", "java", "javac")
    folder = tmp_path_factory.mktemp("checkout")
    java = Path("examples/producers/java")
    for part in (java, Path("schemas/avro")):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("target"))
    done = run(*BUILD, folder=folder / java, timeout_s=BUILD_S)
    assert done.returncode == 0, done.stdout[-4_000:]
    return folder / java


@pytest.fixture(scope="module")
def sent(kafka: LocalKafka, project: Path) -> Sent:
    make_topics(kafka.bootstrap, PARTITIONS)
    for node in NODES:
        assert send(project, kafka.bootstrap, node) == f"{node}: {RESULTS} probe results and 2 heartbeats are stored\n"
    return Sent(*(tuple(read_log(kafka.bootstrap, topic)) for topic in ("probe-results", "heartbeats")))


@pytest.fixture(scope="module")
def worker(kafka: LocalKafka, sent: Sent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that has read everything."""
    folder = tmp_path_factory.mktemp("worker")
    with WorkerProcess(kafka.bootstrap, folder, ROOT / "examples" / "slos.yaml") as worker:
        worker.start().await_ready()
        read = len(sent.results)
        eventually(lambda: worker.metric("fleetbeat_rollup_events_total") >= read, "counted records")
        yield worker


def send(project: Path, brokers: str, node: str) -> str:
    done = run(*RUN, brokers, node, str(RESULTS), folder=project, LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_codec_reads_every_record(sent: Sent) -> None:
    results = [decode(record.value) for record in sent.results]
    beats = [decode(record.value) for record in sent.heartbeats]
    assert len(results) == RESULTS * len(NODES)
    for node in NODES:
        own = sorted((r for r in results if isinstance(r, ProbeResult) and r.node_id == node), key=lambda r: r.seq)
        assert [r.latency_us for r in own] == [40_000 + number for number in range(1, RESULTS + 1)]
        assert [r.error for r in own] == ["timeout" if n % 10 == 0 else None for n in range(1, RESULTS + 1)]
        first, last = sorted(
            (b for b in beats if isinstance(b, Heartbeat) and b.node_id == node), key=lambda b: b.heartbeat_seq or 0
        )
        assert [(b.state, b.heartbeat_seq) for b in (first, last)] == [("UP", 0), ("GOODBYE", 1)]
        assert {r.boot_id for r in own} | {last.boot_id} == {first.boot_id}
        assert first.boot_ts == last.boot_ts <= first.ts <= last.ts
        assert [first.seq, *(r.seq for r in own), last.seq] == list(range(RESULTS + 2))


def test_a_nodes_records_are_in_the_partition_of_its_key(sent: Sent) -> None:
    keys = {node.encode() for node in NODES}
    for records in (sent.results, sent.heartbeats):
        assert {record.key for record in records} == keys
        for record in records:
            assert record.key is not None
            assert record.partition == partition_of(record.key, PARTITIONS)
    assert len({record.partition for record in sent.results}) > 1, "nodes that show where each belongs"


def test_a_worker_counts_each_once(kafka: LocalKafka, worker: WorkerProcess) -> None:
    def counted() -> tuple[int, int, int] | None:
        status, answer = worker.get("/api/v1/slos/checkout-answers")
        window = answer["windows"][-1] if status == 200 else {"total": 0}
        return (window["total"], window["good"], window["max_us"]) if window["total"] else None

    total = RESULTS * len(NODES)
    eventually(lambda: (counted() or (0,))[0] >= total, "all records in the view")
    assert counted() == (total, total - total // 10, 40_000 + RESULTS)
    assert letters(kafka.bootstrap) == []
