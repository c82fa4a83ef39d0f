"""Rows a second that one archive stores of a backlog, each once, beside the same sink with fastavro and columns.

A real Kafka holds the traffic of a fleet, in the proportions of 2,000,000 nodes and 20,000 probe results/s. Then an
archive process starts on it with its embedded store: fetch, decode, plan and tokened insert. The rate is that between
the first and the last tenth of the backlog; what the engine merges meanwhile is in it. Afterwards every offset must be
there once. The peer reads some of the same heartbeats with aiokafka, decodes each with fastavro, and inserts columns
with clickhouse-connect, with plans and tokens too.
`fleetbeat bench archive --json` prints only the last line.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from infra.kafka import LocalKafka
from infra.local.children import Child, fleetbeat, unready
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from schemas.codec import decode
from schemas.event_time import FUTURE_LIMIT_MS, PAST_LIMIT_MS
from schemas.records import Heartbeat
from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore
from streams.archive.plans import Plan, PlanStore, token

PARTITIONS = 12
EVENTS = 6_000_000
NODES, INTERVAL_S, RESULTS_PER_S = 2_000_000, 30, 20_000
PEER_BATCH, PEER_BATCHES = 50_000, 2
PATIENCE_S = 300.0
FLOORS = {"rows_per_s": 250_000, "to_fastavro": 5}
TABLES = {"heartbeats": "heartbeats", "probe-results": "probe_results"}
_LOCAL = "127.0.0.1"
_say = Console(stderr=True).print


class ArchiveProcess:
    """`fleetbeat archive` on a store of its own."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self._sql, self._metrics = (pick_port(None, None, "the archive") for _ in range(2))
        places = ("--listen", f"{_LOCAL}:{self._sql}", "--metrics", f"{_LOCAL}:{self._metrics}")
        command = fleetbeat("archive", "--brokers", brokers, "--store", folder / "store", *places)
        self.child = Child("archive", command, folder / "archive.log", grace_s=60)

    def await_path(self, path: str) -> None:
        """Until it says 200."""
        self.child.await_ready(lambda: unready(f"http://{_LOCAL}:{self._metrics}{path}"), PATIENCE_S)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with urllib.request.urlopen(f"http://{_LOCAL}:{self._metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

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
        with urllib.request.urlopen(f"http://{_LOCAL}:{self._sql}/", query.encode(), timeout=120) as answer:
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


def main(*, json: bool = False, events: int = EVENTS) -> int:
    """0 unless it could not run; the last line is the result as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark"), heap_mb=1_024) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            sent = fill(kafka.bootstrap, events)
            figures = drain(kafka.bootstrap, root, sent)
            peer = asyncio.run(with_fastavro(kafka.bootstrap, root / "peer"))
    figures["fastavro_rows_per_s"] = round(peer)
    ratios = {"to_fastavro": round(figures["rows_per_s"] / peer, 1)}
    exact = not any(figures[f"{table}_{fault}"] for table in TABLES.values() for fault in ("missing", "twice"))
    found = {**figures, **ratios}
    if not json:
        for name, figure in found.items():
            print(f"{name:<24}{figure:>14,}")
    holds = exact and all(found[name] >= floor for name, floor in FLOORS.items())
    result = {"name": "archive", "figures": figures, "ratios": ratios, "floors": FLOORS, "holds": holds}
    print(json_format.dumps(result))
    return 0


def fill(brokers: str, events: int) -> dict[str, int]:
    """Sends as fast as it goes; how many of each topic were sent."""
    _say(f"filling: {events:,} events of {NODES:,} nodes")
    fleet = ("--nodes", NODES, "--interval", INTERVAL_S, "--rate", RESULTS_PER_S, "--unpaced", "--events", events)
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
            stored, times = total(archive.metrics(), "fleetbeat_archive_rows_total"), process.cpu_times()
            samples.append(_Sample(time.perf_counter(), stored, times.user + times.system))
            memory_mb = max(memory_mb, process.memory_info().rss >> 20)
            if samples[-1].at_s - begun_s > PATIENCE_S:
                raise RuntimeError(f"{stored} of {rows} rows after {PATIENCE_S:.0f} s")
        inside = [sample for sample in samples if 0.1 * rows <= sample.rows <= 0.9 * rows]
        first, last = inside[0], inside[-1]
        figures: dict[str, Any] = {
            "rows": rows,
            "rows_per_s": round((last.rows - first.rows) / (last.at_s - first.at_s)),
            "cpu_us_a_row": round((last.cpu_s - first.cpu_s) / (last.rows - first.rows) * 1e6, 2),
            "cores": round((last.cpu_s - first.cpu_s) / (last.at_s - first.at_s), 2),
            "memory_mb": memory_mb,
            "start_to_stored_s": round(samples[-1].at_s - begun_s, 1),
        }
        figures["merged_a_row"] = round(archive.merged_rows() / rows, 1)
        for topic, table in TABLES.items():
            there, offsets = archive.census(topic)
            figures |= {f"{table}_missing": sent[topic] - offsets, f"{table}_twice": there - offsets}
            figures[f"{table}_bytes_a_row"] = archive.bytes_a_row(topic)
    return figures


async def with_fastavro(brokers: str, folder: Path) -> float:
    """Rows a second of the peer, with one partition of heartbeats."""
    place = TopicPartition("heartbeats", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([place])
        with EmbeddedStore(folder) as store:
            client = store.client()
            ddl.apply(client)
            stored, begun = 0, time.perf_counter()
            while stored < PEER_BATCH * PEER_BATCHES:
                records: list[Any] = []
                while len(records) < PEER_BATCH:
                    polled = await consumer.getmany(place, timeout_ms=500, max_records=PEER_BATCH - len(records))
                    records += polled.get(place, [])
                _store(client, records)
                stored += len(records)
            return stored / (time.perf_counter() - begun)
    finally:
        await consumer.stop()


def _store(client: Any, records: list[Any]) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
    """One batch, record by record."""
    times = [record.timestamp for record in records]
    plan = Plan("heartbeats", 0, records[0].offset, records[-1].offset, len(records), min(times), max(times))
    rows = [_row(record) for record in records]
    PlanStore(client).write([plan])
    client.insert(
        "telemetry.heartbeats",
        [[row[name] for row in rows] for name in rows[0]],
        list(rows[0]),
        column_oriented=True,
        settings={"insert_deduplication_token": token([plan])},
    )


def _row(record: Any) -> dict[str, Any]:  # noqa: ANN401 - aiokafka is not typed
    beat = decode(record.value)
    if not isinstance(beat, Heartbeat) or record.key != beat.node_id.encode():
        raise TypeError(f"{record.value!r} under {record.key!r}; expected a heartbeat of that node")
    row = asdict(beat)
    held = min(max(beat.ts, record.timestamp - PAST_LIMIT_MS), record.timestamp + FUTURE_LIMIT_MS)
    row |= {
        "ts": held,
        "reported_ts_ms": beat.ts if held != beat.ts else None,
        "boot_ts_ms": row.pop("boot_ts"),
        "labels": {label.key: label.value for label in beat.labels},
        "received_at": record.timestamp,
        "kafka_partition": record.partition,
        "kafka_offset": record.offset,
    }
    return row


if __name__ == "__main__":
    wanted = int(sys.argv[sys.argv.index("--events") + 1]) if "--events" in sys.argv else EVENTS
    sys.exit(main(json="--json" in sys.argv, events=wanted))
