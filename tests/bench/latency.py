"""How soon an event is in the view, and how soon a view answers, while 50,000 events/s come in.

A real broker, worker and simulated fleet on this machine. A prober sends one event at a time, of an objective of its
own, and asks the view of that objective again and again until its total includes it; its questions are part of the
load. What is measured ends with the answer that shows the event, so the time of that answer is in it. Afterwards other
objectives are asked at random moments while the same load goes on.
`fleetbeat bench latency --json` prints only the last line.
"""

import asyncio
import http.client
import json as json_format
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from rich.console import Console

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat
from infra.state import pick_port
from infra.topics import run_apply
from schemas.codec import encode
from tests.integration.worker_process import Promise, WorkerProcess, eventually, now_ms, probe_result, write_objectives

PARTITIONS = 12
RATE_PER_S = 50_000
NODES = 2_000
SERVICES, ENDPOINTS, REGIONS = 50, 5, 2
WARM_S = 12
CANARIES_S = 45.0
READS = 300
# Longer than a step of the worker, so that canaries meet it at any moment of a step.
PAUSE_S = (0.02, 0.3)
POLL_S = 0.02
LOST_S = 20.0
LOAD_S = 120
FLOORS = {"visible_p99_ms": 1_000, "read_p99_ms": 25}
_CANARY = "canary"
_say = Console(stderr=True).print


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON."""
    figures = measure()
    holds = all(figures[name] <= floor for name, floor in FLOORS.items())
    if not json:
        for name, figure in figures.items():
            print(f"{name:<24}{figure:>12,}")
    print(json_format.dumps({"name": "latency", "figures": figures, "ratios": {}, "floors": FLOORS, "holds": holds}))
    return 0


def measure() -> dict[str, Any]:
    """All figures, of one worker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        promises = [Promise(_CANARY, {"service": _CANARY}), *(Promise(f"load-{n}", where) for n, where in _selected())]
        objectives = write_objectives(folder / "slos.yaml", promises)
        with (
            LocalKafka(folder, port=pick_port(None, None, "the benchmark")) as kafka,
            WorkerProcess(kafka.bootstrap, folder, objectives) as worker,
        ):
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            worker.start().await_ready()
            load = Child("simulate", _fleet(kafka.bootstrap), folder / "simulate.log")
            try:
                eventually(lambda: worker.metric("fleetbeat_rollup_events_total") > WARM_S * RATE_PER_S, "load", 60)
                before = _counted(worker)
                visible, questions = asyncio.run(_canaries(kafka.bootstrap, worker.port))
                _say(f"{len(visible)} canaries seen with {questions} questions")
                reads = _reads(worker.port)
                after = _counted(worker)
                lag = worker.metric("fleetbeat_consumer_lag_records")
                if load.poll() is not None:
                    raise RuntimeError("the fleet ended before the measurement; expected it to go on")
            finally:
                load.stop()
    return {
        "canaries": len(visible),
        **_times("visible", visible),
        "questions": questions,
        "reads": len(reads),
        **_times("read", reads),
        "background_per_s": round((after[1] - before[1]) / (after[0] - before[0])),
        "lag_records": lag,
    }


def _selected() -> Sequence[tuple[int, dict[str, str]]]:
    """One objective for each of the services that the fleet calls by number."""
    return [(n, {"service": f"service-{n:03d}"}) for n in range(10, 20)]


def _fleet(brokers: str) -> list[str | Path]:
    sizes = {"nodes": NODES, "services": SERVICES, "endpoints": ENDPOINTS, "regions": REGIONS, "seed": 1}
    pace = {"interval": 10, "rate": RATE_PER_S, "duration": LOAD_S}
    words = [word for name, value in {**sizes, **pace}.items() for word in (f"--{name}", str(value))]
    return fleetbeat("simulate", "--brokers", brokers, *words)


def _counted(worker: WorkerProcess) -> tuple[float, int]:
    return time.perf_counter(), worker.metric("fleetbeat_rollup_events_total")


class _View:
    """Questions to the worker over one connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def total(self, objective: str) -> int:
        """Of the objective's own window. Raises RuntimeError for any answer but 200."""
        self._connection.request("GET", f"/api/v1/slos/{objective}")
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"/api/v1/slos/{objective}: {answer.status} {body[:200]!r}; expected 200")
        return int(json_format.loads(body)["windows"][-1]["total"])


async def _canaries(brokers: str, port: int) -> tuple[list[float], int]:
    """Seconds from before the send of each until an answer includes it, and how often was asked."""
    seen: list[float] = []
    questions = 0
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True) as producer:
        with _View(port) as view:
            ending = time.perf_counter() + CANARIES_S
            while time.perf_counter() < ending:
                number = len(seen)
                await asyncio.sleep(random.uniform(*PAUSE_S))
                event = probe_result(
                    node_id=f"prober-{number % PARTITIONS}", service=_CANARY, ts=now_ms(), seq=number // PARTITIONS
                )
                sent = time.perf_counter()
                await producer.send_and_wait("probe-results", encode(event), key=event.node_id.encode())
                while await asyncio.to_thread(view.total, _CANARY) <= number:
                    questions += 1
                    if time.perf_counter() - sent > LOST_S:
                        raise RuntimeError(f"canary {number} is not in the view after {LOST_S:.0f} s")
                    await asyncio.sleep(POLL_S)
                seen.append(time.perf_counter() - sent)
                questions += 1
    return seen, questions


def _reads(port: int) -> list[float]:
    """Seconds of single answers, at random moments."""
    times = []
    with _View(port) as view:
        for number in range(READS):
            time.sleep(random.uniform(0.005, 0.06))
            begun = time.perf_counter()
            view.total(f"load-{10 + number % 10}")
            times.append(time.perf_counter() - begun)
    return times


def _times(what: str, seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    shown = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return {f"{what}_{name}_ms": round(value * 1_000, 1) for name, value in shown.items()}


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv))
