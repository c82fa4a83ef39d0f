"""Whether lag grows in ten minutes of 2,000,000 nodes and 20,000 probe results/s through broker, worker and archive.

A real Kafka, `fleetbeat worker`, `fleetbeat archive` with its embedded store and `fleetbeat simulate`, all on this
machine; each node sends a heartbeat every 30 s, 66,667 a second. Once the whole fleet is known and nobody is behind,
the time begins; every two seconds all are asked how far they are and how much memory and processor time they have used.
At the end the worker must have counted each record once, and ClickHouse hold each offset once.

Lag is in seconds of traffic: of the two topics the one that is further behind, in records, over what arrives in a
second. It grows when it was more than a second longer in the last third of the time than in the first, on average.
`fleetbeat bench soak --json` prints only the last line. Run as a file it takes `--minutes`, `--nodes`, `--rate`, and
`--plot FILE` for an SVG.
"""

import json as json_format
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from infra.kafka import LocalKafka
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from tests.bench.archive import ArchiveProcess, archive_process
from tests.bench.liveness import memory_mb, say, up
from tests.bench.plots.lines import Panel, draw
from tests.bench.recovery import (
    INTERVAL_S,
    NODES,
    PARTITIONS,
    PATIENCE_S,
    RESULTS_PER_S,
    TOPICS,
    caught_up,
    lags,
    option,
    settled,
    simulate,
)
from tests.integration.worker_process import Promise, WorkerProcess, eventually, write_objectives

MINUTES = 10
SAMPLE_S = 2.0
LAGS = {"worker": "fleetbeat_consumer_lag_records", "archive": "fleetbeat_archive_lag_records"}
COUNTED = ("fleetbeat_heartbeats_total", "fleetbeat_rollup_events_total")
# In the topics and, while parts are merged, twice in the store.
DISK_BYTES_A_RECORD = 150
FLOORS = {"worker_lag_growth_s": 1.0, "archive_lag_growth_s": 1.0, "worker_memory_mb": 1_500, "sent_share": 0.99}
_AT_LEAST = {"sent_share"}


def main(
    *, json: bool = False, minutes: float = MINUTES, nodes: int = NODES, rate: int = RESULTS_PER_S, plot: str = ""
) -> int:
    """0 unless it could not run; the last line is the result as JSON, and says whether it holds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _require_disk(root, minutes, nodes, rate)
        with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark"), heap_mb=1_024) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            figures, samples = measure(kafka, root, minutes, nodes, rate)
    if plot:
        Path(plot).write_text(picture(samples, nodes, rate), encoding="utf-8")
    exact = not any(figures[f"{what}_{fault}"] for what in ("heartbeats", "results") for fault in _FAULTS)
    kept = [figures[name] >= floor if name in _AT_LEAST else figures[name] <= floor for name, floor in FLOORS.items()]
    if not json:
        for name, figure in figures.items():
            print(f"{name:<28}{figure:>14,}")
    result = {"name": "soak", "figures": figures, "ratios": {}, "floors": FLOORS, "holds": exact and all(kept)}
    print(json_format.dumps(result))
    return 0


_FAULTS = ("miscounted", "not_stored", "stored_twice")


def measure(
    kafka: LocalKafka, root: Path, minutes: float, nodes: int, rate: int
) -> tuple[dict[str, Any], pl.DataFrame]:
    """All figures, and the samples that they come from."""
    objectives = write_objectives(root / "slos.yaml", [Promise("all"), Promise("fast", latency_us_le=60_000)])
    limits = ("--nodes-max", str(2 * nodes), "--nodes-new-per-minute", str(2 * nodes))
    arriving = dict(zip(TOPICS, (nodes / INTERVAL_S, rate), strict=True))
    with (
        WorkerProcess(kafka.bootstrap, root, objectives, options=limits) as worker,
        archive_process(kafka.bootstrap, root) as archive,
    ):
        worker.start().await_ready()
        archive.await_path("/-/ready")
        fleet = simulate(kafka.bootstrap, nodes, rate)
        try:
            eventually(lambda: up(worker) > 0.99 * nodes, "fleet that is up", PATIENCE_S)
            few = {topic: int(count) for topic, count in arriving.items()}
            eventually(lambda: caught_up(worker, few), "worker without lag", PATIENCE_S)
            eventually(
                lambda: _behind_s(_lags(archive.metrics(), LAGS["archive"]), arriving) < 2 * SAMPLE_S,
                "archive without lag",
                PATIENCE_S,
            )
            pids = {"worker": worker.child.pid, "archive": archive.child.pid, "broker": kafka.pid, "fleet": fleet.pid}
            samples = pl.DataFrame(list(_watch(worker, archive, pids, arriving, 60 * minutes)))
        finally:
            fleet.terminate()
            out, _ = fleet.communicate()
        if fleet.returncode:
            raise RuntimeError(f"fleetbeat simulate ended with {fleet.returncode}; expected 0")
        sent = json_format.loads(out.splitlines()[-1])
        figures = {"nodes": nodes, "minutes": minutes, **summary(samples, sent, sum(arriving.values()))}
        figures |= {"worker_memory_mb": memory_mb(worker)}
        say(figures)
        eventually(lambda: not sum(lags(worker).values()), "end of the log in the worker", PATIENCE_S)
        eventually(
            lambda: not sum(_lags(archive.metrics(), LAGS["archive"]).values()),
            "end of the log in the archive",
            PATIENCE_S,
        )
        figures["archive_merged_a_row"] = round(archive.merged_rows() / (sent["heartbeats"] + sent["results"]), 1)
        counted = settled(worker, sent)
        for topic, what in zip(TOPICS, ("heartbeats", "results"), strict=True):
            rows, offsets = archive.census(topic)
            faults = (counted[what] - sent[what], sent[what] - offsets, rows - offsets)
            figures |= {what: sent[what]}
            figures |= {f"{what}_{fault}": count for fault, count in zip(_FAULTS, faults, strict=True)}
            figures[f"{what}_bytes_a_row"] = archive.bytes_a_row(topic)
    return figures, samples


def _watch(
    worker: WorkerProcess,
    archive: ArchiveProcess,
    pids: Mapping[str, int],
    arriving: Mapping[str, float],
    seconds: float,
) -> Iterator[dict[str, float]]:
    """A row every SAMPLE_S: seconds of lag, records so far, MB and seconds of processor time of each process."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    begun = time.monotonic()
    wanted_s = 0.0
    while wanted_s <= seconds:
        time.sleep(max(0.0, begun + wanted_s - time.monotonic()))
        wanted_s += SAMPLE_S
        at_s = time.monotonic() - begun
        worker_text, archive_text = worker.get("/metrics")[1], archive.metrics()
        if not worker_text:
            continue  # it did not answer in time
        row: dict[str, float] = {
            "at_s": at_s,
            "counted": sum(total(worker_text, name) for name in COUNTED),
            "stored": total(archive_text, "fleetbeat_archive_rows_total"),
        }
        for name, text in (("worker", worker_text), ("archive", archive_text)):
            row[f"{name}_lag_s"] = _behind_s(_lags(text, LAGS[name]), arriving)
        for name, process in processes.items():
            times = process.cpu_times()
            row |= {f"{name}_mb": process.memory_info().rss / (1 << 20), f"{name}_cpu_s": times.user + times.system}
        every = psutil.cpu_times()
        row["machine_cpu_s"] = sum(every) - every.idle - getattr(every, "iowait", 0.0)
        yield row


def summary(samples: pl.DataFrame, sent: Mapping[str, Any], asked_per_s: float) -> dict[str, Any]:
    """What the samples say, without exactness."""
    first, last = samples.row(0, named=True), samples.row(-1, named=True)
    seconds = last["at_s"] - first["at_s"]
    figures: dict[str, Any] = {"samples": samples.height, "sent_per_s": sent["events_per_s"]}
    figures["sent_share"] = round(sent["events_per_s"] / asked_per_s, 3)
    for what in ("counted", "stored"):
        figures[f"{what}_per_s"] = round((last[what] - first[what]) / seconds)
    third = samples.height // 3
    for name in ("worker", "archive"):
        lag = samples[f"{name}_lag_s"]
        early, late = lag.head(third).mean(), lag.tail(third).mean()
        figures |= {f"{name}_lag_first_third_s": round(early, 2), f"{name}_lag_last_third_s": round(late, 2)}  # type: ignore[arg-type]
        figures |= {f"{name}_lag_growth_s": round(late - early, 2), f"{name}_lag_max_s": round(lag.max(), 2)}  # type: ignore[operator, arg-type]
    for name in ("archive", "broker", "fleet"):
        figures[f"{name}_memory_mb"] = round(samples[f"{name}_mb"].max())  # type: ignore[arg-type]
    for name in ("worker", "archive", "broker", "fleet", "machine"):
        figures[f"{name}_cores"] = round((last[f"{name}_cpu_s"] - first[f"{name}_cpu_s"]) / seconds, 2)
    return figures


def picture(samples: pl.DataFrame, nodes: int, rate: int) -> str:
    """The samples over time, as an SVG."""

    def rate_of(column: str, over: int) -> pl.Expr:
        return (pl.col(column).diff(over) / pl.col("at_s").diff(over)).fill_null(strategy="backward")

    used = [f"{name}_cpu_s" for name in ("worker", "archive", "broker", "fleet")]
    # Both count and store in steps, so over ten seconds.
    wide = samples.with_columns(rate_of(column, 5) for column in ("counted", "stored", *used))

    def lines(what: str, *names: str) -> dict[str, list[float]]:
        return {name: wide[f"{name}_{what}"].to_list() for name in names}

    records = {"counted by the worker": wide["counted"].to_list(), "stored by the archive": wide["stored"].to_list()}
    names = ("worker", "archive", "broker")
    panels = (
        Panel("records/s", records),
        Panel("lag, seconds of traffic", lines("lag_s", *names[:2])),
        Panel("memory, MB", lines("mb", *names), floor=FLOORS["worker_memory_mb"]),
        Panel("cores", lines("cpu_s", *names, "fleet")),
    )
    title = f"{nodes:,} nodes every {INTERVAL_S} s and {rate:,} probe results/s on one machine"
    return draw(title, (wide["at_s"] / 60).to_list(), panels)


def _behind_s(lags: Mapping[str, int], arriving: Mapping[str, float]) -> float:
    return max(lags[topic] / arriving[topic] for topic in TOPICS)


def _lags(text: str, metric: str) -> dict[str, int]:
    return {topic: total(text, f'{metric}{{topic="{topic}"}}') for topic in TOPICS}


def _require_disk(root: Path, minutes: float, nodes: int, rate: int) -> None:
    records = (60 * minutes + 120) * (nodes / INTERVAL_S + rate)
    wanted, free = int(records * DISK_BYTES_A_RECORD), shutil.disk_usage(root).free
    if free < wanted:
        raise RuntimeError(f"{root}: {free >> 20:,} MB free; expected {wanted >> 20:,} MB for {records:,.0f} records")


def _words(name: str, usual: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else usual


if __name__ == "__main__":
    sys.exit(
        main(
            json="--json" in sys.argv,
            minutes=float(_words("--minutes", str(MINUTES))),
            nodes=option("--nodes", NODES),
            rate=option("--rate", RESULTS_PER_S),
            plot=_words("--plot", ""),
        )
    )
