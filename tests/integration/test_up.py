"""`fleetbeat up` with everything real, and its check: it agrees with its ledger, and sees what is wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.local.check import SHORTEST_S
from infra.local.children import child_environment, fleetbeat
from infra.local.options import UpOptions
from infra.local.stack import Stack
from infra.oracle.agreement import await_agreement
from infra.oracle.judge import Verdict, judge, judge_slices
from infra.oracle.ledger import Ledger, Names, read_beats, read_ledger
from infra.oracle.liveness import judge_liveness
from infra.oracle.objectives import Promise, read_promises
from infra.oracle.sources import Sql, Views
from infra.oracle.watch import Watch, Watched
from infra.progress import Board
from tests.integration.up_process import cmdline, free_ports, port_flags, processes_with, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

AGREE_TIMEOUT_S = 90.0
# With looks that are fresher than this each silence of the script is long enough to be seen.
FRESH_LOOK_MS = 5_000


@dataclass(frozen=True, slots=True)
class Run:
    """A stack whose fleet has sent all of its ledger."""

    stack: Stack
    ledger: Ledger
    promises: tuple[Promise, ...]
    watched: Watched

    def judge(self, ledger: Ledger | None = None) -> Verdict:
        where = self.stack.addresses
        views, sql = Views(where.views), Sql(where.sql)
        verdict = judge(ledger or self.ledger, self.promises, views, sql, where.node_id)
        judge_liveness(verdict, self.watched, views, sql)
        return verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("stack")
    kafka, worker, sql = free_ports().values()
    options = UpOptions(check=True, nodes=300, rate=600, kafka_port=kafka, worker_port=worker, sql_port=sql)
    stack = Stack(options, folder, Board(sys.stderr))
    try:
        stack.start()
        with Watch(stack.addresses.views) as watch:
            fleet = stack.start_fleet(duration_s=SHORTEST_S, ledger=folder / "ledger")
            fleet.await_end(150)
            stack.release(fleet)
        stack.stop_agent()
        watched = Watched(read_beats(folder / "ledger"), watch.looks, stack.addresses.node_id)
        yield Run(stack, read_ledger(folder / "ledger"), read_promises(options.objectives_file), watched)
    finally:
        stack.stop()


def test_views_and_sql_agree_with_the_ledger(run: Run) -> None:
    verdict = await_agreement(run.judge, run.stack.raise_failure, AGREE_TIMEOUT_S)
    assert verdict.agree, verdict.mismatches
    assert verdict.slices_compared >= 30 * len(run.promises)
    assert verdict.late > 0  # the script holds records back for longer than the lateness
    assert verdict.nodes_compared == 300
    assert len(run.ledger.requests.ts) > len(run.ledger.count_ids) > 0
    fresh = verdict.stalest_look_ms < FRESH_LOOK_MS
    assert verdict.nodes_down_seen > (10 if fresh else 3)
    assert verdict.nodes_gone_seen == 3 or not fresh
    assert verdict.outages + verdict.zones_unclear >= 1  # on a machine that stalls nobody can say from outside
    assert verdict.ignored > 0  # what this host's agent has sent


def test_a_record_that_never_arrived_is_found(run: Run) -> None:
    sent = run.ledger.results
    first = np.flatnonzero(sent.service.equal("checkout"))[:1]

    def one_more(column: Names) -> Names:
        return Names(np.append(column.codes, column.codes[first]), column.values)

    results = replace(
        sent,
        ts=np.append(sent.ts, sent.ts[first]),
        latency_us=np.append(sent.latency_us, sent.latency_us[first]),
        success=np.append(sent.success, sent.success[first]),
        service=one_more(sent.service),
        endpoint=one_more(sent.endpoint),
        region=one_more(sent.region),
        kind=one_more(sent.kind),
    )
    ledger = replace(run.ledger, results=results, result_ids=run.ledger.result_ids | {b"node-x\tboot-x\t0"})
    verdict = run.judge(ledger)
    assert not verdict.agree
    assert verdict.missing == 1
    assert {"slices", "ids of probe_results"} <= verdict.failed_checks
    assert any("missing node-x boot-x 0" in sentence for sentence in verdict.mismatches)


def test_a_record_doubled_in_kafka_is_found(run: Run) -> None:
    asyncio.run(double_one_record(run.stack.addresses.kafka, "probe-results", run.promises))
    verdict = until(run.judge, lambda verdict: {"slices", "ids of probe_results"} <= verdict.failed_checks)
    assert (verdict.missing, verdict.doubled, verdict.foreign) == (0, 1, 0)
    assert any(" doubled node-" in sentence for sentence in verdict.mismatches)


def test_a_count_doubled_in_kafka_is_found(run: Run) -> None:
    counted = tuple(promise for promise in run.promises if promise.source == "request-counts")

    def seconds() -> Verdict:
        verdict = Verdict()
        judge_slices(verdict, run.ledger.requests, counted, Views(run.stack.addresses.views))
        return verdict

    assert seconds().agree  # the probe result that was doubled is no request
    asyncio.run(double_one_record(run.stack.addresses.kafka, "request-counts", counted))
    found = until(seconds, lambda verdict: not verdict.agree)
    assert any("-requests at " in sentence and "total is" in sentence for sentence in found.mismatches)


def test_a_process_that_dies_is_named(run: Run) -> None:
    commands = {pid: cmdline(pid) for pid in processes_with(str(run.stack.folder))}
    (archive,) = [pid for pid, words in commands.items() if b"\0archive\0" in words and b"leash.py" not in words]
    os.kill(archive, signal.SIGKILL)
    failure = until(run.stack.failure, lambda found: found is not None)
    assert str(failure).startswith("archive was ended by signal 9; the end of ")


def test_a_check_agrees_and_says_so_in_one_line(tmp_path: Path) -> None:
    options = ["--nodes=100", "--rate=1000", "--duration=5", "--seed=7", *port_flags(free_ports())]
    command = fleetbeat("up", "--check", *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    figures = json.loads(line)
    assert figures["agree"] is True
    assert (figures["name"], figures["seed"], figures["results"]) == ("up-check", 7, 5_000)
    assert (figures["missing"], figures["doubled"], figures["mismatches"]) == (0, 0, [])
    assert figures["slices_compared"] > 0


def test_a_check_refuses_a_folder_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    command = fleetbeat("up", "--check", "--state", tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert done.returncode == 2
    assert f"--state {tmp_path}: not empty; expected an empty or new folder" in done.stderr


async def double_one_record(brokers: str, topic: str, promises: tuple[Promise, ...]) -> None:
    """Sends again, byte for byte, a record that every value of some SLO's selection occurs in."""
    wanted = [[value.encode() for _, value in promise.where] for promise in promises]
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await consumer.start()
    await producer.start()
    try:
        parts = [TopicPartition(topic, part) for part in range(12)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        async for record in consumer:
            if any(all(value in record.value for value in values) for values in wanted):
                await producer.send_and_wait(topic, record.value, key=record.key, partition=record.partition)
                return
    finally:
        await producer.stop()
        await consumer.stop()
