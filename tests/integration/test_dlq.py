"""Dead letters from end to end: a producer with another registry's ids, a real worker and archive, and the way back."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import ConsumerRecord, TopicPartition

import fleetbeat
from infra.dlq.wire import REPLAY_OF
from infra.kafka import LocalKafka
from infra.local.children import Child, child_environment, unready
from infra.local.children import fleetbeat as command
from schemas.codec import encode, frame, split_frame
from schemas.records import ProbeResult
from schemas.traces import HEADER
from streams.raw import RawBatch
from tests.integration.worker_process import (
    READY_S,
    SOURCE,
    Promise,
    Sender,
    WorkerProcess,
    eventually,
    make_topics,
    now_ms,
    probe_result,
    read_log,
    write_objectives,
)
from tests.ports import free_port
from tests.unit.hostile_batches import as_produced, bomb, with_bytes

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PROCESS = Path(__file__).with_name("dlq_process.py")
PARTITIONS = 2
WRONG_ID = 901
ALL = Promise("all")
TRACE = (HEADER, f"00-{7:032x}-{8:016x}-01".encode())


@dataclass(frozen=True, slots=True)
class Stack:
    """A broker's address, a worker, and the port of the archive's SQL."""

    brokers: str
    worker: WorkerProcess
    sql_port: int
    begun_ms: int

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        client = clickhouse_connect.get_client(host="127.0.0.1", port=self.sql_port)
        try:
            return [tuple(row) for row in client.query(query).result_rows]
        finally:
            client.close()

    def total(self) -> int:
        """Events in the view."""
        slices = self.worker.slices(ALL, self.begun_ms // 1_000 * 1_000, now_ms() + 10_000)
        return -1 if isinstance(slices, str) else sum(row["total"] for row in slices.values())

    def await_counted(self, events: Sequence[ProbeResult]) -> None:
        """All events are in the view, and each is one row."""
        eventually(lambda: self.total() == len(events), f"{len(events)} events in the view")
        query = "SELECT node_id, seq FROM telemetry.probe_results"
        eventually(lambda: len(self.sql(query)) >= len(events), "rows")
        assert sorted(self.sql(query)) == sorted((event.node_id, event.seq) for event in events)
        assert eventually(lambda: t if (t := self.total()) >= 0 else None, "answer of the view") == len(events)


@pytest.fixture(scope="module")
def stack(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    make_topics(kafka.bootstrap, PARTITIONS)
    folder = tmp_path_factory.mktemp("stack")
    sql, metrics = (free_port() for _ in range(2))
    archive = Child(
        "archive",
        command(
            *("archive", "--brokers", kafka.bootstrap, "--store", folder / "store"),
            *("--listen", f"127.0.0.1:{sql}", "--metrics", f"127.0.0.1:{metrics}"),
        ),
        folder / "archive.log",
    )
    try:
        with WorkerProcess(kafka.bootstrap, folder, write_objectives(folder / "slos.yaml", [ALL])) as worker:
            worker.start().await_ready()
            archive.await_ready(lambda: unready(f"http://127.0.0.1:{metrics}/-/ready"), READY_S)
            yield Stack(kafka.bootstrap, worker, sql, now_ms())
    finally:
        archive.stop()


@pytest.fixture(scope="module")
def counted() -> list[ProbeResult]:
    """What the tests of this file have brought into the view so far."""
    return []


def events(count: int, node: str) -> list[ProbeResult]:
    return [probe_result(node_id=f"{node}-{number % 5}", seq=number) for number in range(count)]


def send_with_wrong_ids(stack: Stack, sent: Sequence[ProbeResult]) -> None:
    """What a producer sends that asked another registry for its id; returns when the letters are in SQL."""
    query = "SELECT count() FROM telemetry.dead_letters FINAL WHERE reason = 'unknown-schema'"
    before = stack.sql(query)[0][0]
    sender = Sender(stack.brokers)
    for event in sent:
        value = frame(WRONG_ID, split_frame(encode(event))[1])
        sender.send_corrupt(event.node_id.encode(), value, headers=[("fb-sig", b"of those bytes"), TRACE])
    sender.flush()
    eventually(lambda: stack.sql(query)[0][0] == before + len(sent), "letters in SQL")


def run(capsys: pytest.CaptureFixture[str], stack: Stack, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of `fleetbeat dlq`."""
    capsys.readouterr()
    status = fleetbeat.main(["dlq", *arguments, "--brokers", stack.brokers])
    return status, capsys.readouterr().out.splitlines()


def test_letters_are_listed_shown_and_replayed_and_then_counted_once(
    stack: Stack, counted: list[ProbeResult], capsys: pytest.CaptureFixture[str]
) -> None:
    good, wrong = events(5, "good"), events(40, "wrong")
    sender = Sender(stack.brokers)
    for event in good:
        sender.send(event)
    sender.send_corrupt(b"good-0", encode(good[0])[:-3])
    sender.flush()
    send_with_wrong_ids(stack, wrong)
    counted += good
    stack.await_counted(counted)

    status, lines = run(capsys, stack, "list", "--reason", "unknown-schema", "--limit", "7", "--json")
    listed = [json.loads(line) for line in lines]
    assert (status, len(listed)) == (0, 7)
    assert {(row["reason"], row["by"], row["replayed"]) for row in listed} == {("unknown-schema", "worker", "no")}
    status, lines = run(capsys, stack, "list", "--by-reason", "--json")
    assert [(row["topic"], row["reason"], row["letters"]) for row in map(json.loads, lines)] == [
        (SOURCE, "unknown-schema", 40),
        (SOURCE, "truncated", 1),
    ]
    status, lines = run(capsys, stack, "show", listed[0]["origin"])
    assert status == 0
    assert f"  to replay it: fleetbeat dlq replay {listed[0]['origin']} --schema-id 901=2" in lines

    status, lines = run(capsys, stack, "replay", "--schema-id", "901=2")
    assert (status, lines[0], lines[-1]) == (
        1,
        f"40 can go to {SOURCE}, schema id 901 to 2",
        "nothing was sent: --yes sends",
    )
    status, lines = run(capsys, stack, "replay", "--schema-id", "901=2", "--yes")
    assert (status, lines[0]) == (1, f"40 sent to {SOURCE}, schema id 901 to 2")
    assert lines[1].startswith(f"1 of {SOURCE} left: truncated; {SOURCE}/")

    counted += wrong
    stack.await_counted(counted)
    headers = [record.headers for record in read_log(stack.brokers) if REPLAY_OF in dict(record.headers)]
    assert [tuple(name for name, _ in each) for each in headers] == [(REPLAY_OF, HEADER)] * len(wrong)
    assert {each[1] for each in headers} == {TRACE}, "and no signature of what was changed"
    again = ("replay", "--reason", "unknown-schema", "--schema-id", "901=2", "--yes")
    assert run(capsys, stack, *again) == (0, ["40 went back before"])
    stack.await_counted(counted)


@pytest.mark.parametrize("point", ["after-intent", "half-sent", "before-commit"])
def test_a_replay_that_was_killed_and_run_again_is_counted_once(
    stack: Stack, counted: list[ProbeResult], capsys: pytest.CaptureFixture[str], point: str
) -> None:
    wrong = events(40, point)
    send_with_wrong_ids(stack, wrong)
    killed = subprocess.run(
        [sys.executable, PROCESS, stack.brokers, point], env=child_environment(), timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    status, _ = run(capsys, stack, "replay", "--reason", "unknown-schema", "--schema-id", "901=2", "--yes")
    assert status == 0
    counted += wrong
    stack.await_counted(counted)


async def _append(brokers: str, batches: Sequence[RawBatch]) -> None:
    """As they are, which no client of ours could."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    try:
        for batch in batches:
            await producer.partitions_for(batch.tp.topic)
            leader = producer.client.cluster.leader_for_partition(batch.tp)
            topics = [(batch.tp.topic, [(batch.tp.partition, as_produced(batch))])]
            request = ProduceRequest(None, required_acks=-1, timeout=10_000, topics=topics)
            answer = await producer.client.send(leader, request)
            assert answer.topics[0][1][0][1] == 0
    finally:
        await producer.stop()


def test_batches_that_would_end_whoever_unpacks_them_are_letters(
    stack: Stack, counted: list[ProbeResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """300 MB in each topic, from 30 KB, and a header whose name is no UTF-8, amid good results."""
    odd, others = events(1, "odd")[0], events(20, "beside")
    value = encode(odd)
    key = odd.node_id.encode()
    record = ConsumerRecord(SOURCE, 0, 0, now_ms(), 1, key, value, None, len(key), len(value), (("abc", b"x"),))
    bombs = [bomb(TopicPartition(topic, 0), 0, now_ms()) for topic in (SOURCE, "heartbeats") for _ in range(9)]
    assert sum(len(each.data) for each in bombs) < 60_000
    sender = Sender(stack.brokers)
    for event in others[:10]:
        sender.send(event, 0)
    sender.flush()
    asyncio.run(_append(stack.brokers, [*bombs, with_bytes(record, b"abc", b"a\xffc")]))
    for event in others[10:]:
        sender.send(event, 0)
    sender.flush()
    counted += [odd, *others]
    stack.await_counted(counted)
    query = "SELECT topic, count() FROM telemetry.dead_letters FINAL WHERE reason = 'unreadable-batch' GROUP BY topic"
    eventually(lambda: sorted(stack.sql(query)) == [("heartbeats", 9), (SOURCE, 9)], "letters in SQL")
    status, lines = run(capsys, stack, "replay", "--reason", "unreadable-batch", "--yes")
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith("9 of heartbeats left: unreadable-batch; heartbeats/0/")
    assert lines[0].endswith(": its records are in Kafka only, until its retention ends")
