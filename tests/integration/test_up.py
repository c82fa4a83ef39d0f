"""`fleetbeat up` with everything real: it agrees with its ledger, sees what is wrong, and leaves nothing behind."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.local.check import SHORTEST_S
from infra.local.children import child_environment, fleetbeat
from infra.local.options import UpOptions
from infra.local.stack import Stack
from infra.oracle.agreement import await_agreement
from infra.oracle.judge import Verdict, judge
from infra.oracle.ledger import Ledger, Names, read_beats, read_ledger
from infra.oracle.liveness import judge_liveness
from infra.oracle.objectives import Promise, read_promises
from infra.oracle.sources import Sql, Views
from infra.oracle.watch import Watch, Watched
from infra.progress import Board
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

AGREE_TIMEOUT_S = 90.0
# More than is promised for a node that dies: other tests run beside this one.
BESIDE_OTHERS_S = 5
Found = TypeVar("Found")


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


def free_ports() -> tuple[int, ...]:
    return tuple(free_port() for _ in ("Kafka", "views", "SQL"))


def port_flags(ports: tuple[int, ...]) -> list[str]:
    return [f"--{name}-port={port}" for name, port in zip(("kafka", "worker", "sql"), ports, strict=True)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("stack")
    kafka, views, sql = free_ports()
    options = UpOptions(check=True, nodes=300, rate=1_500, kafka_port=kafka, worker_port=views, sql_port=sql)
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
    assert verdict.nodes_down_seen > 10
    assert verdict.nodes_gone_seen == 3
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
        **{name: one_more(sent.name(name)) for name in ("service", "endpoint", "region", "kind")},
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


def test_a_process_that_dies_is_named(run: Run) -> None:
    commands = {pid: cmdline(pid) for pid in processes_with(str(run.stack.folder))}
    (archive,) = [pid for pid, words in commands.items() if b"\0archive\0" in words and b"leash.py" not in words]
    os.kill(archive, signal.SIGKILL)
    failure = until(run.stack.failure, lambda found: found is not None)
    assert str(failure).startswith("archive was ended by signal 9; the end of ")


def test_a_user_sees_addresses_tries_them_and_stops(tmp_path: Path) -> None:
    log, state = tmp_path / "up.log", tmp_path / "state"
    ports = free_ports()
    with log.open("wb") as out:
        up = subprocess.Popen(
            [*fleetbeat("up", "--nodes", "100", "--state", state), *port_flags(ports)],
            stdout=out,
            stderr=out,
            env=child_environment(),
            cwd=tmp_path,
        )
    try:
        said = until(
            lambda: log.read_text(encoding="utf-8"),
            lambda text: "Ctrl-C stops everything." in text or up.poll() is not None,
            timeout_s=200,
        )
        assert re.search(r"ready in \d+ s", said), said
        second = subprocess.run(
            fleetbeat("up", "--state", state), capture_output=True, text=True, check=False, env=child_environment()
        )
        assert second.returncode == 1
        assert f"another fleetbeat (pid {up.pid}) runs in {state}" in second.stderr
        see_this_host_die(said)
        assert up.poll() is None, "up goes on without the agent"
        commands = re.findall(r"^  ((?:curl|kcat) .*)$", said, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert "checkout" in done.stdout or "ProbeResult" in done.stdout or "node-" in done.stdout, command
    finally:
        up.send_signal(signal.SIGINT)
        code = up.wait(100)
    assert code == 0, log.read_text(encoding="utf-8")
    assert processes_with(str(state)) == []
    assert [port for port in ports if listens(port)] == []


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


def see_this_host_die(said: str) -> None:
    """Kills the agent whose page and pid `up` shows: it is DOWN within three intervals of 5 s and 2 s."""
    found = re.search(r"^  host    (http\S+) .*pid (\d+)", said, re.MULTILINE)
    assert found is not None, said
    page, pid = found[1], int(found[2])

    def state() -> str:
        with urllib.request.urlopen(page, timeout=20) as answer:  # noqa: S310 - http, from our own stack
            return str(json.loads(answer.read())["state"])

    until(state, lambda now: now == "UP")
    os.kill(pid, signal.SIGKILL)
    until(state, lambda now: now == "DOWN", timeout_s=3 * 5 + 2 + BESIDE_OTHERS_S)


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


def until(look: Callable[[], Found], is_it: Callable[[Found], bool], timeout_s: float = AGREE_TIMEOUT_S) -> Found:
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if is_it(found) or time.monotonic() > deadline:
            assert is_it(found), found
            return found
        time.sleep(0.25)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def processes_with(word: str) -> list[int]:
    """Processes with the word in their command line."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if word.encode() in cmdline(pid)]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
