"""`fleetbeat worker` as a process of its own, producers that remember what they sent, and what views must then show."""

import asyncio
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from infra.local.children import Child, fleetbeat
from infra.local.figures import total
from infra.topics import run_apply
from schemas.codec import decode, encode
from schemas.records import DeadLetter, ProbeResult
from tests.conftest import drop_topics
from tests.ports import free_port

SOURCE = "probe-results"
GROUP = "fleetbeat-worker"
# What has to happen happens at once on an idle machine; CI may have a slow one that does much else.
READY_S = 120.0
POLL_S = 0.05
# A worker waits 2 s for another one before it answers.
ANSWER_S = 10.0
LATENESS_MS = 10_000
HOUR_MS = 3_600_000
COUNTS = ("total", "good", "late", "sum_us", "max_us")
T = TypeVar("T")

_OBJECTIVE = """
---
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {id}}}
spec:
  service: test
  indicator:
    spec:
      ratioMetric:
        good: {{metricSource: {{type: fleetbeat, spec: {{source: probe-results, where: {where}{limit}}}}}}}
        total: {{metricSource: {{type: fleetbeat, spec: {{source: probe-results, where: {where}}}}}}}
  timeWindow: [{{duration: 7d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.99}}]
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """One objective of a test."""

    id: str
    where: Mapping[str, str] = field(default_factory=dict)
    latency_us_le: int | None = None

    def selects(self, event: ProbeResult) -> bool:
        return all(getattr(event, name) == value for name, value in self.where.items())

    def judges_good(self, event: ProbeResult) -> bool:
        return event.success and (self.latency_us_le is None or event.latency_us <= self.latency_us_le)


def write_objectives(path: Path, promises: Iterable[Promise]) -> Path:
    limits = {p.id: "" if p.latency_us_le is None else f", latency_us_le: {p.latency_us_le}" for p in promises}
    documents = [_OBJECTIVE.format(id=p.id, where=json.dumps(dict(p.where)), limit=limits[p.id]) for p in promises]
    path.write_text("".join(documents))
    return path


def make_topics(brokers: str, partitions: int) -> None:
    """The contract's topics anew and empty: the fixture `topics` for fixtures that live longer than a test."""
    asyncio.run(drop_topics(brokers))
    assert run_apply(brokers, partitions, local=True) == 0


class WorkerProcess:
    """One worker on a free port; `start` may be called again after `kill` or `stop`. It ends with the test itself."""

    def __init__(
        self,
        brokers: str,
        folder: Path,
        objectives: Path,
        name: str = "worker",
        listen: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._name = name
        self._command = fleetbeat(
            *("worker", "--brokers", brokers, "--objectives", objectives),
            *("--listen", listen or f"127.0.0.1:{self.port}", "--state", folder / name),
            *options,
        )
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self.resume()
            self.kill()

    @property
    def child(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def start(self) -> Self:
        self._child = Child(self._name, self._command, self.log, grace_s=30)
        return self

    def await_ready(self, timeout_s: float = READY_S) -> Self:
        self.child.await_ready(lambda: None if self.get("/-/ready")[0] == 200 else "not ready", timeout_s)
        return self

    def get(self, path: str, *, alone: bool = False) -> tuple[int, Any]:
        """Status and JSON (or text) of an answer; status 0 when there is none. `alone`: no other worker is asked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers={"Fleetbeat-Hop": "1"} if alone else {})
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if "json" in (
                answer.headers["Content-Type"] or ""
            ) else body.decode()
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def asked(self, path: str) -> tuple[int, Any]:
        """The first answer that is one: on a busy machine a worker may be slow, or wait in vain for another one."""
        return eventually(lambda: found if (found := self.get(path))[0] not in {0, 503} else None, f"answer to {path}")

    def told(self, path: str) -> dict[str, Any]:
        """The JSON of an answer; empty while it is none of status 200."""
        status, answer = self.get(path)
        return answer if status == 200 else {}

    def metric(self, name: str) -> int:
        """The sum of a metric over its labels."""
        return total(self.asked("/metrics")[1], name)

    def stop(self) -> int:
        return self.child.stop()

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        self.child.kill()
        eventually(lambda: self.child.poll() is not None, "death")

    def pause(self) -> None:
        os.kill(self.child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)

    def slices(self, promise: Promise, from_ms: int, to_ms: int) -> dict[int, dict[str, Any]] | str:
        """Slices by start, or why there are none now."""
        found: dict[int, dict[str, Any]] = {}
        for begin in range(from_ms, to_ms, HOUR_MS):
            end = min(begin + HOUR_MS, to_ms)
            status, answer = self.get(f"/api/v1/slos/{promise.id}/slices?from_ms={begin}&to_ms={end}")
            if status != 200:
                return f"{status}: {answer}"
            found |= {row["start_ms"]: row for row in answer["slices"]}
        return found


def eventually(what: Callable[[], T | None], name: str, timeout_s: float = READY_S) -> T:
    """What `what` returns once it is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := what():
            return found
        assert time.monotonic() < deadline, f"no {name} within {timeout_s:.0f} s"
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as the broker has it."""

    partition: int
    offset: int
    append_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def read_log(brokers: str, topic: str = SOURCE) -> list[Logged]:
    """All records of a topic, each partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,  # a log may end with marks of transactions, which are no messages
        }
    )
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions}
    waiting = {p for p, end in ends.items() if end}
    consumer.assign([TopicPartition(topic, p, 0) for p in waiting])
    found: list[Logged] = []
    deadline = time.monotonic() + 90
    while waiting:
        assert time.monotonic() < deadline, f"{topic} was not read to its end: {waiting}"
        for message in consumer.consume(10_000, 0.2):
            partition, offset = message.partition() or 0, message.offset() or 0
            if (problem := message.error()) is not None:
                assert problem.code() == KafkaError._PARTITION_EOF, problem
                waiting.discard(partition)
                continue
            headers: Any = tuple(message.headers() or ())
            found.append(Logged(partition, offset, message.timestamp()[1], message.key(), message.value(), headers))
            if offset + 1 >= ends[partition]:
                waiting.discard(partition)
    consumer.close()
    return found


def letters(brokers: str) -> list[DeadLetter]:
    """Everything in `dead-letters`."""
    found = [decode(record.value) for record in read_log(brokers, "dead-letters")]
    return [letter for letter in found if isinstance(letter, DeadLetter)]


class Sender:
    """An idempotent producer and its ledger: what was sent, by value; each value is sent once."""

    def __init__(self, brokers: str) -> None:
        self.events: dict[bytes, ProbeResult] = {}
        self.corrupt: list[tuple[bytes | None, bytes | None]] = []
        self._producer = Producer(
            {"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5, "partitioner": "murmur2_random"}
        )

    def send(self, event: ProbeResult, partition: int = -1) -> None:
        value = encode(event)
        assert value not in self.events, f"twice: {event}"
        self.events[value] = event
        self._produce(event.node_id.encode(), value, partition)

    def send_corrupt(
        self, key: bytes | None, value: bytes | None, partition: int = -1, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.corrupt.append((key, value))
        self._produce(key, value, partition, headers)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def _produce(
        self, key: bytes | None, value: bytes | None, partition: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self._producer.produce(SOURCE, key=key, value=value, partition=partition, headers=list(headers))
        self._producer.poll(0)


class Traffic(threading.Thread):
    """About `rate` events a second until `end`: one in 30 comes 1 to 15 s late, one in 500 before a corrupt one."""

    def __init__(self, brokers: str, rng: random.Random, rate: int = 2_000, nodes: int = 60) -> None:
        super().__init__()
        self.sender = Sender(brokers)
        self.from_ms = now_ms()
        self._rng = rng
        self._rate = rate
        self._nodes = nodes
        self._ending = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as failure:  # noqa: BLE001 - `end` raises it in the test's thread
            self._failure = failure

    def end(self) -> None:
        self._ending.set()
        self.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        begun = time.monotonic()
        for seq in itertools.count():
            while (ahead_s := seq / self._rate - (time.monotonic() - begun)) > 0 and not self._ending.is_set():
                self._ending.wait(min(ahead_s, 0.02))
            if self._ending.is_set():  # also when it is behind
                self.sender.flush()
                return
            self.sender.send(self._event(seq))
            if self._rng.random() < 0.002:
                self.sender.send_corrupt(b"node-1", b"\x00\x00\x00\x00\x02not avro %d" % seq)

    def _event(self, seq: int) -> ProbeResult:
        delay_ms = self._rng.randrange(1_000, 15_000) if self._rng.random() < 0.03 else 0
        service = f"service-{self._rng.randrange(6)}" if self._rng.random() > 0.002 else "rare"
        return probe_result(
            node_id=f"node-{self._rng.randrange(self._nodes)}",
            seq=seq,
            ts=max(now_ms() - delay_ms, self.from_ms),
            service=service,
            region=self._rng.choice(["eu-1", "us-1"]),
            success=self._rng.random() > 0.05,
            latency_us=int(self._rng.lognormvariate(11, 1)),
        )


def probe_result(**fields: Any) -> ProbeResult:  # noqa: ANN401 - any of its fields
    """A result of one good probe, changed by `fields`."""
    good: dict[str, Any] = {
        "node_id": "node-0",
        "boot_id": "boot",
        "probe": "p",
        "kind": "http",
        "service": "service-0",
        "endpoint": "/",
        "region": "eu-1",
        "success": True,
        "latency_us": 1_000,
        "ts": now_ms(),
        "seq": 0,
    }
    return ProbeResult(**{**good, **fields})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Counted:
    """One selected event as the log has it: the time that counts, and whether its slice was sealed at its record."""

    event: ProbeResult
    ts: int
    late: bool


def counted(log: Sequence[Logged], events: Mapping[bytes, ProbeResult]) -> list[Counted]:
    """The sent events in the order of the log: recomputed from append times, the rules written out once more."""
    frontiers: dict[int, int] = defaultdict(int)
    found: list[Counted] = []
    for record in log:
        frontier = frontiers[record.partition] = max(frontiers[record.partition], record.append_ms)
        event = events.get(record.value or b"")
        if event is not None:
            ts = min(max(event.ts, record.append_ms - 35 * 86_400_000), record.append_ms + 5_000)
            found.append(Counted(event, ts, ts // 1_000 * 1_000 + 1_000 + LATENESS_MS <= frontier))
    return found


def expected(promise: Promise, log: Iterable[Counted], step_ms: int = 1_000) -> dict[int, dict[str, int]]:
    """COUNTS of each step that has events, by its start."""
    steps: dict[int, dict[str, int]] = {}
    for entry in log:
        if promise.selects(entry.event):
            step = steps.setdefault(entry.ts // step_ms * step_ms, dict.fromkeys(COUNTS, 0))
            step["total"] += 1
            step["good"] += promise.judges_good(entry.event)
            step["late"] += entry.late
            step["sum_us"] += entry.event.latency_us
            step["max_us"] = max(step["max_us"], entry.event.latency_us)
    return steps


def differences(wanted: Mapping[int, Mapping[str, int]], found: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """What differs between slices, as sentences."""
    return [
        f"slice {start}: {shown}, expected {want}"
        for start in sorted({*wanted, *found})
        if (want := wanted.get(start)) != (shown := _counts(found.get(start)))
    ]


def _counts(row: Mapping[str, Any] | None) -> dict[str, int] | None:
    return None if row is None else {name: row[name] for name in COUNTS}
