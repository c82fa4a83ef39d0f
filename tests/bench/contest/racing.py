"""How fast somebody counts a backlog: the same arithmetic for all of them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.children import Child

SOURCE = "probe-results"
PATIENCE_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """At a moment: how many events are counted, and what processor time (s) the process has used."""

    at_s: float
    events: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Race:
    """Between the first and the last tenth of `events`: start-up, warm-up and last steps are in neither figure."""

    events: int
    events_per_s: float
    cpu_us: float
    samples: tuple[Sample, ...] = field(repr=False, default=())


def judge(samples: Sequence[Sample], events: int) -> Race:
    """Raises ValueError when it went by too fast for the samples."""
    inside = [sample for sample in samples if 0.1 * events <= sample.events <= 0.9 * events]
    if len(inside) < 2 or inside[0].events == inside[-1].events:
        raise ValueError(f"{len(inside)} samples of {events} events; expected several between a tenth and nine tenths")
    first, last = inside[0], inside[-1]
    counted = last.events - first.events
    return Race(events, counted / (last.at_s - first.at_s), (last.cpu_s - first.cpu_s) / counted * 1e6, tuple(samples))


def watch(child: Child, events: int, counted: Callable[[], tuple[float, int]]) -> Race:
    """Until the child has counted them all; `counted` gives the moment and the count. Raises ChildFailedError."""
    process = psutil.Process(child.pid)
    samples: list[Sample] = []
    deadline = time.monotonic() + PATIENCE_S
    while not samples or samples[-1].events < events:
        time.sleep(_POLL_S)
        if child.poll() is not None:
            raise child.ended()
        if time.monotonic() > deadline:
            seen = samples[-1].events if samples else 0
            raise RuntimeError(f"{child.name}: {seen} of {events} events after {PATIENCE_S:.0f} s")
        at_s, seen = counted()
        times = process.cpu_times()
        samples.append(Sample(at_s, seen, times.user + times.system))
    return judge(samples, events)


def told_by(progress: Path) -> tuple[float, int]:
    """The last whole line of a peer's progress file, `monotonic-ns count`."""
    lines = progress.read_text().splitlines(keepends=True) if progress.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if not whole:
        return time.monotonic(), 0
    at_ns, events = whole[-1].split()
    return int(at_ns) / 1e9, int(events)


async def bare_getmany(brokers: str, partitions: int, events: int) -> Race:
    """The client alone: fetched, and nothing done with it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(SOURCE, p) for p in range(partitions)])
        samples = [Sample(time.monotonic(), 0, time.process_time())]
        while samples[-1].events < events:
            polled = await consumer.getmany(timeout_ms=500, max_records=20_000)
            seen = samples[-1].events + sum(map(len, polled.values()))
            samples.append(Sample(time.monotonic(), seen, time.process_time()))
        return judge(samples, events)
    finally:
        await consumer.stop()


def ceiling(brokers: str, partitions: int, events: int) -> Race:
    """`bare_getmany` in this process."""
    return asyncio.run(bare_getmany(brokers, partitions, events))
