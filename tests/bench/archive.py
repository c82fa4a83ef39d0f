"""Rows a second that one archive stores of a backlog, what they take on disk, and how fast it answers meanwhile.

Three parts, each with a real Kafka and an archive process with its embedded store:

- A backlog of a fleet's traffic, in the proportions of 2,000,000 nodes and 20,000 probe results/s: fetch, decode, plan
  and tokened insert. The rate is that between the first and the last tenth of it; what the engine merges meanwhile is
  in it. Afterwards every offset must be there once. The peer reads some of the same heartbeats with aiokafka, decodes
  each with fastavro, and inserts columns with clickhouse-connect, with plans and tokens too.
- What 10,000 simulated nodes said in a quarter of an hour, stored, copied with trace ids, and merged: bytes a row.
- Fifty questions of the drill-down library about a day of 10,000 nodes, 50 million rows that the engine made, while
  more than 100,000 records a second of another fleet come in through Kafka. The fleet and the broker, which run
  elsewhere in earnest, give way to the archive; `ingest_per_s` says that they keep up.

`fleetbeat bench archive --json` prints only the last line. Run as a file it takes `--events` (of the backlog)
and `--rows` (of the day) for a quick look.
"""

import json as json_format
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat, unready
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from tests.bench.archived.drill_down import ask, by_query
from tests.bench.archived.elsewhere import elsewhere
from tests.bench.archived.history import fill as fill_history
from tests.bench.archived.peer import with_fastavro
from tests.bench.archived.sizes import bytes_a_row

PARTITIONS = 12
EVENTS = 6_000_000
NODES, INTERVAL_S, RESULTS_PER_S = 2_000_000, 30, 20_000
SIZED_NODES, SIZED_RESULTS_PER_S, SIZED_EVENTS = 10_000, 3_000, 3_000_000
HISTORY_ROWS = 50_000_000
# The same fleet with a heartbeat a bit more often: 103,333 records a second, so that 100,000 are a floor.
DRILLED_INTERVAL_S = 24
SETTLED_S = 30.0
A_BATCH = 100_000
PATIENCE_S = 600.0
# Kafka's log, the store, and what merges write beside it.
BYTES_AN_EVENT, BYTES_A_ROW, BYTES_MORE = 200, 60, 3_000_000_000
FLOORS = {
    "rows_per_s": 250_000,
    "to_fastavro": 5,
    "probe_results_bytes_a_row": 16,
    "heartbeats_bytes_a_row": 12,
    "ingest_per_s": 100_000,
    "queries_p50_ms": 50,
    "queries_p99_ms": 500,
}
_AT_LEAST = {"rows_per_s", "to_fastavro", "ingest_per_s"}
TABLES = {"heartbeats": "heartbeats", "probe-results": "probe_results"}
_FAULTS = ("missing", "twice")
_STORED = "fleetbeat_archive_rows_total"
_LOCAL = "127.0.0.1"
_say = Console(stderr=True, highlight=False).print


class ArchiveProcess:
    """`fleetbeat archive` on a store of its own."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self._sql, self._metrics = (pick_port(None, None, "the archive") for _ in range(2))
        places = ("--listen", f"{_LOCAL}:{self._sql}", "--metrics", f"{_LOCAL}:{self._metrics}")
        command = fleetbeat("archive", "--brokers", brokers, "--store", folder / "store", *places)
        self.url = f"http://{_LOCAL}:{self._sql}"
        self.child = Child("archive", command, folder / "archive.log", grace_s=60)

    def await_path(self, path: str) -> None:
        """Until it says 200."""
        self.child.await_ready(lambda: unready(f"http://{_LOCAL}:{self._metrics}{path}"), PATIENCE_S)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with urllib.request.urlopen(f"http://{_LOCAL}:{self._metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def stored(self) -> int:
        """Rows since it started."""
        return total(self.metrics(), _STORED)

    def census(self, topic: str) -> tuple[int, int]:
        """Rows of a topic's table, and different offsets; a partition at a time, as all at once need more memory."""
        rows = offsets = 0
        for partition in range(PARTITIONS):
            where = f"FROM {TABLES[topic]} WHERE kafka_partition = {partition}"
            found = self.sql(f"SELECT count(), uniqExact(kafka_offset) {where}").split()
            rows, offsets = rows + int(found[0]), offsets + int(found[1])
        return rows, offsets

    def bytes_a_row(self, topic: str) -> float:
        """Of what is on disk now, merged or not."""
        parts = f"FROM system.parts WHERE active AND table = '{TABLES[topic]}'"
        return round(float(self.sql(f"SELECT sum(bytes_on_disk) / sum(rows) {parts}")), 1)

    def merged_rows(self) -> int:
        """Rows that merges have written since the start, of all tables."""
        return int(self.sql("SELECT sum(value) FROM system.events WHERE event = 'MergedRows'"))

    def sql(self, query: str) -> str:
        """The answer, tabs between columns."""
        with urllib.request.urlopen(f"{self.url}/", query.encode(), timeout=120) as answer:  # noqa: S310 - http on loopback
            return str(answer.read().decode())


@contextmanager
def archive_process(brokers: str, folder: Path) -> Iterator[ArchiveProcess]:
    """Ends it in good order."""
    archive = ArchiveProcess(brokers, folder)
    try:
        yield archive
    finally:
        archive.child.stop()


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    rows: int
    cpu_s: float
    machine_s: float


def _sample(archive: ArchiveProcess) -> _Sample:
    own, every = psutil.Process(archive.child.pid).cpu_times(), psutil.cpu_times()
    busy_s = sum(every) - every.idle - getattr(every, "iowait", 0.0)
    return _Sample(time.perf_counter(), archive.stored(), own.user + own.system, busy_s)


def _after_a_batch(archive: ArchiveProcess) -> _Sample:
    """Heartbeats come in batches of some seconds: between two such moments there are whole ones only."""
    _until_stored(archive, archive.stored() + A_BATCH)
    return _sample(archive)


def _cores(first: _Sample, last: _Sample) -> dict[str, float]:
    seconds = last.at_s - first.at_s
    return {
        "cores": round((last.cpu_s - first.cpu_s) / seconds, 2),
        "machine_cores": round((last.machine_s - first.machine_s) / seconds, 2),
    }


def main(*, json: bool = False, events: int = EVENTS, rows: int = HISTORY_ROWS) -> int:
    """0 unless it could not run; the last line is the result as JSON, and says whether it holds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _require_disk(folder, max(events * BYTES_AN_EVENT, rows * BYTES_A_ROW) + BYTES_MORE)
        figures: dict[str, Any] = {}
        for part in (_backlog, _sizes, _questions):
            root = folder / part.__name__
            with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark"), heap_mb=1_024) as kafka:
                with redirect_stdout(sys.stderr):
                    run_apply(kafka.bootstrap, PARTITIONS, local=True)
                figures |= part(kafka, root, events, rows)
            shutil.rmtree(root)
    ratios = {"to_fastavro": round(figures["rows_per_s"] / figures["fastavro_rows_per_s"], 1)}
    found = {**figures, **ratios}
    if not json:
        for what, figure in found.items():
            print(f"{what:<28}{figure:>14,}")
    exact = not any(figures[f"{table}_{fault}"] for table in TABLES.values() for fault in _FAULTS)
    kept = [found[what] >= floor if what in _AT_LEAST else found[what] <= floor for what, floor in FLOORS.items()]
    result = {"name": "archive", "figures": figures, "ratios": ratios, "floors": FLOORS, "holds": exact and all(kept)}
    print(json_format.dumps(result))
    return 0


def _require_disk(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RuntimeError(
            f"{folder}: {free >> 20:,} MB free; expected {need >> 20:,} MB: take fewer --events and --rows"
        )


def _backlog(kafka: LocalKafka, root: Path, events: int, _: int) -> dict[str, Any]:
    """How fast a backlog is stored, and the peer with some of it."""
    _say(f"backlog: {events:,} events of {NODES:,} nodes")
    sent = fill(kafka.bootstrap, events, NODES, RESULTS_PER_S)
    figures = drain(kafka.bootstrap, root, sent)
    figures["fastavro_rows_per_s"] = round(elsewhere(with_fastavro, kafka.bootstrap, root / "peer"))
    _say(figures)
    return figures


def _sizes(kafka: LocalKafka, root: Path, events: int, _: int) -> dict[str, Any]:
    """Bytes a row after merging."""
    events = min(events, SIZED_EVENTS)
    _say(f"sizes: {events:,} events of {SIZED_NODES:,} nodes")
    rows = sum(fill(kafka.bootstrap, events, SIZED_NODES, SIZED_RESULTS_PER_S).values())
    with archive_process(kafka.bootstrap, root) as archive:
        archive.await_path("/-/healthy")
        _until_stored(archive, rows)
    figures = {}
    for table, size in elsewhere(bytes_a_row, root / "store").items():
        _say(f"{table}: {size['rows']:,} rows, {size['bytes']} bytes a row: {size['columns']}")
        figures[f"{table}_bytes_a_row"] = size["bytes"]
    return figures


def _questions(kafka: LocalKafka, root: Path, _: int, rows: int) -> dict[str, Any]:
    """How long drill-down takes beside ingest."""
    begun = time.perf_counter()
    made = elsewhere(fill_history, root / "store", rows, round(time.time() * 1_000))
    _say(f"questions: {made} made in {time.perf_counter() - begun:.0f} s")
    traffic = ("--nodes", NODES, "--interval", DRILLED_INTERVAL_S, "--rate", RESULTS_PER_S)
    command = fleetbeat("simulate", "--brokers", kafka.bootstrap, *map(str, traffic))
    with archive_process(kafka.bootstrap, root) as archive:
        archive.await_path("/-/ready")
        fleet = Child("fleet", command, root / "fleet.log")
        for pid in (kafka.pid, fleet.pid):
            _give_way(pid)
        try:
            _until_stored(archive, 1)
            time.sleep(SETTLED_S)
            first = _after_a_batch(archive)
            asked = ask(archive.url, made["nodes"])
            last = _after_a_batch(archive)
        finally:
            fleet.stop()
    for line in by_query(asked):
        _say(line)
    times = sorted(each.ms for each in asked)
    return {
        "history_rows": made["heartbeats"] + made["probe_results"],
        "queries": len(times),
        "queries_p50_ms": round(times[len(times) // 2], 1),
        "queries_p99_ms": round(times[-(-len(times) * 99 // 100) - 1], 1),
        "queries_empty": sum(not each.rows for each in asked),
        "ingest_per_s": round((last.rows - first.rows) / (last.at_s - first.at_s)),
        **{f"queries_{name}": cores for name, cores in _cores(first, last).items()},
    }


def _give_way(pid: int) -> None:
    """Of a process that stands for other machines: it runs when the archive leaves a processor free."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def _until_stored(archive: ArchiveProcess, rows: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (stored := archive.stored()) < rows:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{stored} of {rows} rows after {PATIENCE_S:.0f} s")
        time.sleep(0.2)


def fill(brokers: str, events: int, nodes: int, rate: int) -> dict[str, int]:
    """Sends as fast as it goes; how many of each topic were sent."""
    fleet = ("--nodes", nodes, "--interval", INTERVAL_S, "--rate", rate, "--unpaced", "--events", events)
    command = fleetbeat("simulate", "--brokers", brokers, *map(str, fleet))
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    summary = json_format.loads(out.splitlines()[-1])
    return {"heartbeats": summary["heartbeats"], "probe-results": summary["results"]}


def drain(brokers: str, root: Path, sent: dict[str, int]) -> dict[str, Any]:
    """The rate, what a row costs, and what is missing or there twice."""
    rows, memory_mb, samples = sum(sent.values()), 0, list[_Sample]()
    with archive_process(brokers, root) as archive:
        archive.await_path("/-/healthy")
        process = psutil.Process(archive.child.pid)
        begun_s = time.perf_counter()
        while not samples or samples[-1].rows < rows:
            time.sleep(0.2)
            samples.append(_sample(archive))
            memory_mb = max(memory_mb, process.memory_info().rss >> 20)
            if samples[-1].at_s - begun_s > PATIENCE_S:
                raise RuntimeError(f"{samples[-1].rows} of {rows} rows after {PATIENCE_S:.0f} s")
        first, last = _inside(samples, rows)
        figures: dict[str, Any] = {
            "rows": rows,
            "rows_per_s": round((last.rows - first.rows) / (last.at_s - first.at_s)),
            "cpu_us_a_row": round((last.cpu_s - first.cpu_s) / (last.rows - first.rows) * 1e6, 2),
            **_cores(first, last),
            "memory_mb": memory_mb,
            "start_to_stored_s": round(samples[-1].at_s - begun_s, 1),
        }
        figures["merged_a_row"] = round(archive.merged_rows() / rows, 1)
        for topic, table in TABLES.items():
            there, offsets = archive.census(topic)
            figures |= {f"{table}_missing": sent[topic] - offsets, f"{table}_twice": there - offsets}
            figures[f"{table}_bytes_a_row_of_backlog"] = archive.bytes_a_row(topic)
    return figures


def _inside(samples: list[_Sample], rows: int) -> tuple[_Sample, _Sample]:
    """The first sample with a tenth of the rows, and the last one without more than nine."""
    first = next(sample for sample in samples if sample.rows >= 0.1 * rows)
    last = next(sample for sample in reversed(samples) if sample.rows <= 0.9 * rows)
    if last.rows <= first.rows:
        raise RuntimeError(f"{rows} rows came in too few steps to tell a rate; expected more --events")
    return first, last


if __name__ == "__main__":

    def option(name: str, usual: int) -> int:
        return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else usual

    asked = {"events": option("--events", EVENTS), "rows": option("--rows", HISTORY_ROWS)}
    sys.exit(main(json="--json" in sys.argv, **asked))
