"""How fast one worker counts a backlog into its tables, from fetch to acknowledged pages and committed offsets.

The simulator fills `probe-results` at the rate of live traffic first, so that events are as late as they usually are.
Then a worker process starts on it. Beside it, in the same run: a bare aiokafka `getmany` that does nothing with the
same records, the ceiling of the client. `fleetbeat bench slo --json` prints only the last line.
"""

import asyncio
import json as json_format
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat, unready
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply

PARTITIONS = 12
FILL_RATE_PER_S = 150_000
FILL_S = 40
NODES = 2_000
# services, endpoints of each, regions: their product is the number of series.
SHAPES = {20: (5, 2, 2), 1_000: (50, 5, 4)}
SCORED = 1_000
FLOOR_EVENTS_PER_S = 150_000
FLOOR_TO_GETMANY = 0.25
_GROUP = "fleetbeat-worker"
_say = Console(stderr=True).print


@dataclass(frozen=True, slots=True)
class Run:
    """One backlog: `events` counted at `events_per_s` wall, by `cpu_us` of the worker each; RSS at its highest.

    Cores are those that the worker, and everything on the machine together, kept busy meanwhile.
    """

    events: int
    events_per_s: float
    cpu_us: float
    rss_mb: int
    worker_cores: float
    machine_cores: float
    getmany_per_s: float
    partial_bytes: float
    page_bytes: float
    drained_s: float


@dataclass(frozen=True, slots=True)
class _Sample:
    """At one moment: events counted, and processor time used so far."""

    at_s: float
    events: int
    worker_s: float
    machine_s: float


def main(*, json: bool = False) -> int:
    """0 when the floors hold; the last line is the result as JSON."""
    runs = {series: measure(series) for series in SHAPES}
    if not json:
        for series, run in runs.items():
            print(
                f"{series:>6,} series  {run.events_per_s:>10,.0f} events/s  {run.cpu_us:5.2f} µs of CPU an event, "
                f"{run.worker_cores:.1f} of {run.machine_cores:.1f} busy cores  "
                f"{run.rss_mb:,} MB  bare getmany {run.getmany_per_s:,.0f} events/s"
            )
    scored = runs[SCORED]
    ratio = scored.events_per_s / scored.getmany_per_s
    result = {
        "name": "slo",
        "figures": {
            "series": SCORED,
            "events": scored.events,
            "events_per_s": round(scored.events_per_s),
            "cpu_us_per_event": round(scored.cpu_us, 2),
            "rss_mb": scored.rss_mb,
            "worker_cores": round(scored.worker_cores, 2),
            "machine_cores": round(scored.machine_cores, 2),
            "getmany_per_s": round(scored.getmany_per_s),
            "partial_bytes_per_event": round(scored.partial_bytes, 2),
            "page_bytes_per_event": round(scored.page_bytes, 2),
            "start_to_committed_s": round(scored.drained_s, 1),
            "events_per_s_at_20_series": round(runs[20].events_per_s),
        },
        "ratios": {
            "to_bare_getmany": round(ratio, 2),
            "to_bare_getmany_at_20_series": round(runs[20].events_per_s / runs[20].getmany_per_s, 2),
        },
        "floors": {"events_per_s": FLOOR_EVENTS_PER_S, "to_bare_getmany": FLOOR_TO_GETMANY},
        "holds": scored.events_per_s >= FLOOR_EVENTS_PER_S and ratio >= FLOOR_TO_GETMANY,
    }
    print(json_format.dumps(result))
    return 0


def measure(series: int) -> Run:
    """One backlog of `series` series, in a broker of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalKafka(folder, port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            events = _fill(kafka.bootstrap, series)
            getmany_per_s = asyncio.run(_bare_getmany(kafka.bootstrap, events))
            return _drain(kafka.bootstrap, folder, events, getmany_per_s)


def _fill(bootstrap: str, series: int) -> int:
    """Sends live traffic for a while; the probe results sent."""
    services, endpoints, regions = SHAPES[series]
    _say(f"filling: {FILL_S} s of {FILL_RATE_PER_S:,} probe results/s over {series:,} series")
    arguments: dict[str, object] = {
        "--brokers": bootstrap, "--nodes": NODES, "--interval": 3_600, "--rate": FILL_RATE_PER_S, "--duration": FILL_S,
        "--services": services, "--endpoints": endpoints, "--regions": regions, "--seed": 1,
    }  # fmt: skip
    command = fleetbeat("simulate", *_words(arguments))
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return int(json_format.loads(out.splitlines()[-1])["results"])


async def _bare_getmany(bootstrap: str, events: int) -> float:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition("probe-results", p) for p in range(PARTITIONS)])
        seen, started = 0, time.perf_counter()
        while seen < events:
            polled = await consumer.getmany(timeout_ms=500, max_records=20_000)
            seen += sum(map(len, polled.values()))
        return seen / (time.perf_counter() - started)
    finally:
        await consumer.stop()


def _drain(bootstrap: str, folder: Path, events: int, getmany_per_s: float) -> Run:
    """The rate is that between the first and the last tenth of the backlog: start-up and last steps are not in it."""
    samples: list[_Sample] = []
    with _worker(bootstrap, folder) as (url, process):
        begun = time.perf_counter()
        rss, metrics = 0, ""
        while not samples or samples[-1].events < events or _lag(metrics):
            time.sleep(0.2)
            metrics = _metrics(url)
            samples.append(_sample(process, total(metrics, "fleetbeat_rollup_events_total")))
            rss = max(rss, process.memory_info().rss)
            if time.perf_counter() - begun > 600:
                raise RuntimeError(f"{samples[-1].events} of {events} events after 10 minutes")
        times = process.cpu_times()
        drained_s = time.perf_counter() - begun
    inside = [sample for sample in samples if 0.1 * events <= sample.events <= 0.9 * events]
    first, last = inside[0], inside[-1]
    seconds = last.at_s - first.at_s
    return Run(
        events=events,
        events_per_s=(last.events - first.events) / seconds,
        cpu_us=(times.user + times.system) / events * 1e6,
        rss_mb=rss >> 20,
        worker_cores=(last.worker_s - first.worker_s) / seconds,
        machine_cores=(last.machine_s - first.machine_s) / seconds,
        getmany_per_s=getmany_per_s,
        partial_bytes=total(metrics, "fleetbeat_partial_bytes_total") / events,
        page_bytes=total(metrics, "fleetbeat_page_bytes_total") / events,
        drained_s=drained_s,
    )


def _sample(process: psutil.Process, events: int) -> _Sample:
    own, every = process.cpu_times(), psutil.cpu_times()
    return _Sample(
        time.perf_counter(), events, own.user + own.system, sum(every) - every.idle - getattr(every, "iowait", 0.0)
    )


def _lag(metrics: str) -> int:
    return total(metrics, "fleetbeat_consumer_lag_records")


@contextmanager
def _worker(bootstrap: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = pick_port(None, None, "the worker")
    url = f"http://127.0.0.1:{port}"
    objectives = Path(__file__).parents[2] / "infra" / "demo" / "slos.yaml"
    options = {"--brokers": bootstrap, "--objectives": objectives, "--listen": url[7:], "--state": folder / "worker"}
    worker = Child("worker", fleetbeat("worker", *_words(options)), folder / "worker.log")
    try:
        worker.await_ready(lambda: unready(f"{url}/-/healthy"), 60)
        yield url, psutil.Process(worker.pid)
    finally:
        worker.stop()


def _words(options: dict[str, object]) -> list[str]:
    return [str(word) for pair in options.items() for word in pair]


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - http on loopback
        return str(answer.read().decode())


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv))
