"""What series cost a worker: memory, and bytes to Kafka, at 1,000 and 100,000 series, also when one node sends half.

A real Kafka, a real worker and `fleetbeat simulate` on this machine, at the rate of live traffic. Then the worker is
killed and stays down for a while, as the fleet goes on: it must catch up at three times the live rate at least, and at
the end the objective of all events must count exactly what was sent. What plain series take when all that is kept of
them is there is computed, from one closed chunk of each tier.
`fleetbeat bench memory --json` prints only the last line; run as a file it takes `--rate`.
"""

import json as json_format
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from infra.kafka import LocalKafka
from infra.local.children import fleetbeat
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from streams.core.histogram import NO_BUCKET, buckets_of
from streams.core.packed import Packed
from streams.core.rows import STEP_SCHEMA, Steps
from streams.core.slices import MINUTES, SECONDS, Tier
from tests.bench.liveness import memory_mb, say
from tests.bench.recovery import option
from tests.integration.worker_process import Promise, WorkerProcess, eventually, write_objectives

PARTITIONS = 12
RATE = 20_000
NODES = 2_000
LIVE_S, OUTAGE_S, AFTER_S = 35, 15, 25
WARM_UP_S = 10.0  # of the live time, in which bytes are not counted
PATIENCE_S = 120.0
# services, endpoints of each, regions: the number of series is twice their product, as probes are of two kinds; and
# whether one node sends half.
SHAPES = {
    "1,000": ((25, 5, 4), False),
    "100,000": ((250, 20, 10), False),
    "100,000, one node sends half": ((250, 20, 10), True),
}
SCORED = 100_000
FLOORS = {"memory_mb": 1_500, "page_bytes_per_s": 8_000_000, "partial_bytes_per_s": 4_000_000, "catch_up": 3}


@dataclass(frozen=True, slots=True)
class Run:
    """One shape: rates while it was live, memory at its highest, events counted while it caught up."""

    series: int
    memory_mb: int
    partial_bytes_per_s: float
    page_bytes_per_s: float
    caught_up_per_s: float
    sent: int
    counted: int


def main(*, json: bool = False, rate: int = RATE) -> int:
    """0 unless it could not run; the last line is the result as JSON, and says whether it holds."""
    runs = {name: measure(shape, rate, skewed=skewed) for name, (shape, skewed) in SHAPES.items()}
    kept = {name: kept_mb(SCORED, rate) for name in runs if name.startswith("100,000")}
    if not json:
        for name, run in runs.items():
            print(
                f"{name:<30} {run.series:>7,} named  {run.memory_mb:>5,} MB  "
                f"partials {run.partial_bytes_per_s:>11,.0f} B/s  "
                f"pages {run.page_bytes_per_s:>11,.0f} B/s  catches up at {run.caught_up_per_s:>8,.0f}/s  "
                f"{run.counted - run.sent:+} of {run.sent:,} events"
            )
    figures: dict[str, Any] = {"rate_per_s": rate, "kept_mb_computed": next(iter(kept.values()))}
    for name, run in runs.items():
        figures[name] = {
            "series_named": run.series,
            "memory_mb": run.memory_mb,
            "partial_bytes_per_s": round(run.partial_bytes_per_s),
            "page_bytes_per_s": round(run.page_bytes_per_s),
            "caught_up_per_s": round(run.caught_up_per_s),
            "sent": run.sent,
            "miscounted": run.counted - run.sent,
        }
    ratios = {name: round(run.caught_up_per_s / rate, 2) for name, run in runs.items()}
    holds = all(
        run.memory_mb <= FLOORS["memory_mb"]
        and run.page_bytes_per_s <= FLOORS["page_bytes_per_s"]
        and run.partial_bytes_per_s <= FLOORS["partial_bytes_per_s"]
        and run.caught_up_per_s >= FLOORS["catch_up"] * rate
        and run.counted == run.sent
        for run in runs.values()
    )
    result = {"name": "memory", "figures": figures, "ratios": ratios, "floors": FLOORS, "holds": holds}
    print(json_format.dumps(result))
    return 0


def measure(shape: tuple[int, int, int], rate: int, *, skewed: bool) -> Run:
    """One shape, in a broker of its own."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with LocalKafka(root, port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            return _live(kafka.bootstrap, root, shape, rate, skewed=skewed)


def _live(brokers: str, root: Path, shape: tuple[int, int, int], rate: int, *, skewed: bool) -> Run:
    objectives = write_objectives(root / "slos.yaml", [Promise("all"), Promise("fast", latency_us_le=60_000)])
    with WorkerProcess(brokers, root, objectives) as worker:
        worker.start().await_ready()
        fleets = [_simulate(brokers, shape, nodes, share) for nodes, share in _shares(rate, skewed=skewed)]
        try:
            time.sleep(WARM_UP_S)
            before, begun_s = _metrics(worker), time.monotonic()
            time.sleep(LIVE_S - WARM_UP_S)
            after, seconds = _metrics(worker), time.monotonic() - begun_s
            highest = memory_mb(worker)
            worker.kill()
            time.sleep(OUTAGE_S)
            worker.start()
            caught_up_per_s = _catch_up(worker, rate)
            sent = sum(_results(fleet) for fleet in fleets)
        finally:
            for fleet in fleets:
                fleet.kill()
        counted = _settled(worker, sent)
        text = _metrics(worker)
        run = Run(
            series=total(text, "fleetbeat_series"),
            memory_mb=max(highest, memory_mb(worker)),
            partial_bytes_per_s=_rate("fleetbeat_partial_bytes_total", before, after, seconds),
            page_bytes_per_s=_rate("fleetbeat_page_bytes_total", before, after, seconds),
            caught_up_per_s=caught_up_per_s,
            sent=sent,
            counted=counted,
        )
    say({"shape": shape, "skewed": skewed, "run": str(run)})
    return run


def _shares(rate: int, *, skewed: bool) -> list[tuple[int, int]]:
    """Fleets as (nodes, events a second)."""
    return [(NODES, rate // 2), (1, rate // 2)] if skewed else [(NODES, rate)]


def _simulate(brokers: str, shape: tuple[int, int, int], nodes: int, rate: int) -> "subprocess.Popen[str]":
    services, endpoints, regions = shape
    arguments: dict[str, object] = {
        "--brokers": brokers, "--nodes": nodes, "--interval": 3_600, "--rate": rate, "--seed": 1 + nodes,
        "--duration": LIVE_S + OUTAGE_S + AFTER_S, "--services": services, "--endpoints": endpoints,
        "--regions": regions,
    }  # fmt: skip
    command = fleetbeat("simulate", *[str(word) for pair in arguments.items() for word in pair])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _results(fleet: "subprocess.Popen[str]") -> int:
    out, _ = fleet.communicate(timeout=PATIENCE_S + LIVE_S)
    if fleet.returncode:
        raise RuntimeError(f"fleetbeat simulate ended with {fleet.returncode}; expected 0")
    return int(json_format.loads(out.splitlines()[-1])["results"])


def _catch_up(worker: WorkerProcess, rate: int) -> float:
    """Events counted a second, from the first that are counted again until less waits than comes in a second."""
    first: tuple[float, int] | None = None
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(0.1)
        status, text = worker.get("/metrics")
        counted = total(text, "fleetbeat_rollup_events_total") if status == 200 else 0
        if not counted:
            continue
        now_s = time.monotonic()
        if first is None:
            first = (now_s, counted)
        elif worker.get("/-/ready")[0] == 200 and _lag(text) < rate:
            return (counted - first[1]) / (now_s - first[0])
    raise RuntimeError(f"the worker had not caught up after {PATIENCE_S:.0f} s")


def _settled(worker: WorkerProcess, sent: int) -> int:
    """What the objective of all events counts when all is there, or after a while."""
    until = time.monotonic() + 30
    while True:
        counted = eventually(lambda: _counted(worker), "the view", PATIENCE_S)
        if counted >= sent or time.monotonic() > until:
            return counted
        time.sleep(0.5)


def _counted(worker: WorkerProcess) -> int:
    status, slo = worker.get("/api/v1/slos/all")
    return int(slo["windows"][-1]["total"]) if status == 200 else 0


def _metrics(worker: WorkerProcess) -> str:
    status, text = worker.get("/metrics")
    if status != 200:
        raise RuntimeError(f"/metrics: status {status}; expected 200")
    return str(text)


def _lag(text: str) -> int:
    return total(text, 'fleetbeat_consumer_lag_records{topic="probe-results"}')


def _rate(name: str, before: str, after: str, seconds: float) -> float:
    return (total(after, name) - total(before, name)) / seconds


def kept_mb(series: int, rate: int) -> int:
    """Of plain series when every second and minute that is kept is there: of one chunk each, times their number."""
    rng = np.random.default_rng(1)

    def packed(tier: Tier, seconds: int, *, histograms: bool) -> int:
        n = rate * seconds
        latency = rng.lognormal(11, 1, n).astype(np.int64)
        rows = {
            "start": rng.integers(0, seconds, n) // tier.step_s * tier.step_s,
            "series": rng.integers(0, series, n),
            "bucket": buckets_of(latency) if histograms else np.full(n, NO_BUCKET),
            "good": rng.random(n) < 0.99,
            "n": np.ones(n, np.int64),
            "late_n": np.zeros(n, np.int64),
            "sum_us": latency,
            "max_us": latency,
        }
        steps = Steps.from_frame(pl.DataFrame(rows).cast(STEP_SCHEMA))
        return len(Packed.of(steps).data)

    seconds = packed(SECONDS, SECONDS.chunk_s, histograms=True) / SECONDS.chunk_s
    minutes = packed(MINUTES, MINUTES.step_s, histograms=False) / MINUTES.step_s
    return round((seconds * (SECONDS.keep_s + SECONDS.chunk_s) + minutes * (MINUTES.keep_s + MINUTES.chunk_s)) / 1e6)


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv, rate=option("--rate", RATE)))
