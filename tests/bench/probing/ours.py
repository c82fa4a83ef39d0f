"""The real `fleetbeat agent` at work: with a spool, real Kafka and a page of metrics, on a core of its own.

What it did is counted by what is in Kafka afterwards: results of probes that were up, by their time of day.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.codec import decode
from schemas.records import ProbeResult
from tests.bench.probing.cores import ONE_CORE, Spent, pinned
from tests.bench.probing.measure import Flat, Paced, Plan
from tests.bench.probing.targets import ROOT, Targets

# More than a core can do, so that it is never idle; each target still has its own probe and its own line of results.
FLAT_TARGETS, FLAT_EVERY_S = 600, 0.1
START_S, STOP_S = 60, 30


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where results go: one partition, so that one offset says what is new."""

    brokers: str

    def end(self) -> int:
        """Behind the last result."""
        return asyncio.run(self._end())

    def since(self, offset: int, node_id: str) -> list[ProbeResult]:
        """A node's results from there on, in order."""
        records = (decode(value) for value in asyncio.run(self._values(offset)))
        return [record for record in records if isinstance(record, ProbeResult) and record.node_id == node_id]

    async def _end(self) -> int:
        async with _consumer(self.brokers) as consumer:
            return await _last(consumer)

    async def _values(self, offset: int) -> list[bytes]:
        async with _consumer(self.brokers) as consumer:
            end = await _last(consumer)
            consumer.seek(_RESULTS, offset)
            values: list[bytes] = []
            while await consumer.position(_RESULTS) < end:
                batches = await consumer.getmany(timeout_ms=1_000)
                values += [record.value for records in batches.values() for record in records]
            return values


@dataclass(frozen=True, slots=True)
class Ours:
    """An agent of ours: the name of its event loop, and Kafka."""

    loop: str
    kafka: Kafka
    folder: Path

    def flat_out(self, targets: Targets, plan: Plan) -> Flat:
        """As many probes as one core makes."""
        probes = [
            probe(f"target-{number}", targets.url(number, 0), FLAT_EVERY_S, timeout_s=FLAT_EVERY_S)
            for number in range(FLAT_TARGETS)
        ]
        before = self.kafka.end()
        with self._agent(probes, {"workers": plan.at_once, "queue": FLAT_TARGETS}) as process:
            time.sleep(plan.warm_s)
            began_ms, began = time.time_ns() // 1_000_000, Spent.by(process.pid)
            time.sleep(plan.flat_s)
            ended_ms, ended = time.time_ns() // 1_000_000, Spent.by(process.pid)
        results = [result for result in self.kafka.since(before, self._node) if began_ms <= result.ts < ended_ms]
        up = sum(result.success for result in results)
        return Flat(up, len(results) - up, (ended_ms - began_ms) / 1_000, ended.cpu_s - began.cpu_s, ended.rss_mb)

    def paced(self, targets: Targets, plan: Plan) -> Paced:
        """So many probes a second; the targets' own times come when they are told to end."""
        probes = [
            probe(f"{number}", targets.url(number, plan.delay_ms), 1.0, timeout_s=1.0)
            for number in range(plan.rate_per_s)
        ]
        before = self.kafka.end()
        with self._agent(probes, {}) as process:
            time.sleep(plan.warm_s)
            began = Spent.by(process.pid)
            time.sleep(plan.paced_s)
            ended = Spent.by(process.pid)
        latencies_us: defaultdict[int, list[int]] = defaultdict(list)
        for result in self.kafka.since(before, self._node):
            latencies_us[int(result.probe)].append(result.latency_us)
        return Paced.of(latencies_us, targets.tell(), (ended.cpu_s - began.cpu_s) / plan.paced_s)

    @property
    def _node(self) -> str:
        return f"bench-{self.loop}"

    @contextmanager
    def _agent(self, probes: list[dict[str, object]], more: dict[str, object]) -> Iterator["subprocess.Popen[bytes]"]:
        """It has sent everything when the context ends. Raises RuntimeError when not."""
        config, said = self.folder / f"{self.loop}.json", self.folder / f"{self.loop}.log"  # JSON is YAML
        config.write_text(json.dumps(document(self._node, self.kafka.brokers, self.folder / "spool", probes) | more))
        with pinned(ONE_CORE), said.open("wb") as log:
            process = start(config, self.loop, log.fileno())
        try:
            _await_start(process, said)
            yield process
            process.terminate()
            status = process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()
        if status:
            raise RuntimeError(f"fleetbeat agent ended with {status}: {said.read_text()[-2_000:]}")


def _await_start(process: "subprocess.Popen[bytes]", said: Path) -> None:
    """Until its log says that it has started. Raises RuntimeError."""
    deadline_s = time.monotonic() + START_S
    while b'"started"' not in said.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"fleetbeat agent has not started within {START_S} s: {said.read_text()[-2_000:]}")
        time.sleep(0.05)


def document(node: str, brokers: str, spool: Path, probes: list[dict[str, object]]) -> dict[str, object]:
    """The agent's file."""
    return {
        "node": {"id": node, "region": "bench"},
        "kafka": {"brokers": brokers},
        "spool": {"dir": str(spool)},
        "metrics": {"listen": None},
        "probes": probes,
    }


def probe(name: str, url: str, every_s: float, timeout_s: float = 5.0) -> dict[str, object]:
    """One of its probes."""
    return {"name": name, "service": "bench", "every_s": every_s, "timeout_s": timeout_s, "http": {"url": url}}


def start(config: Path, loop: str, log: int) -> "subprocess.Popen[bytes]":
    """The agent as a process; the caller ends it."""
    command = [sys.executable, "-P", "-m", "fleetbeat", "agent", "--config", str(config)]
    return subprocess.Popen(command, env=environment(loop), stdout=log, stderr=log)


def environment(loop: str) -> dict[str, str]:
    """What tells an agent which event loop to use."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "FLEETBEAT_LOOP": loop}


_RESULTS = TopicPartition("probe-results", 0)


@asynccontextmanager
async def _consumer(brokers: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([_RESULTS])
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _last(consumer: AIOKafkaConsumer) -> int:
    return int((await consumer.end_offsets([_RESULTS]))[_RESULTS])
