"""What a row costs on disk, by family of columns, and how long the library's queries take, on a simulated fleet's rows.

`fleetbeat simulate` sends half an hour of event time of 2,000 nodes at once, one archive stores it, every table is
merged, and then nothing else runs. Bytes are those of compressed columns, and of indexes and marks beside them.
"""

import json as json_format
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.kafka import LocalKafka
from infra.local.children import fleetbeat
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from streams.archive.embedded import EmbeddedStore
from streams.sql.library import library
from tests.bench.archive import PARTITIONS, archive_process

EVENTS, NODES, RATE = 4_000_000, 2_000, 2_000
REPEATS = 5
PATIENCE_S = 600.0
FLOORS = {"probe_results": 16, "heartbeats": 12}
FAMILIES = {
    "times": ("ts", "received_at", "reported_ts_ms", "boot_ts_ms", "interval_ms", "began_ms", "window_ms"),
    "identity": ("node_id", "boot_id", "seq", "heartbeat_seq"),
    "series": ("probe", "kind", "service", "endpoint", "region", "zone", "agent_version", "state"),
    "latency": ("latency_us", "resolve_us", "connect_us", "tls_us", "first_byte_us", "transfer_us"),
    "outcome": ("success", "status_code", "error", "impact", "trace_id"),
    "health": ("health", "cpu_permille", "memory_permille", "disk_permille", "spooled", "dropped"),
    "labels": ("labels",),
    "place": ("kafka_partition", "kafka_offset"),
}
_say = Console(stderr=True).print


def main(*, json: bool = False, events: int = EVENTS) -> int:
    """0 unless it could not run; the last line is the result as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _store(root, events)
        _say("merging and asking")
        with EmbeddedStore(root / "store") as store:
            client = store.client()
            for (table,) in client.query(
                "SELECT name FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree'"
            ).result_rows:
                client.command(f"OPTIMIZE TABLE telemetry.{table} FINAL")
            sizes = {table: size_of(client, table) for table in ("probe_results", "heartbeats")}
            rollups = {
                table: size_of(client, table)["bytes_a_row"] for table in ("probe_1m", "probe_1h", "heartbeat_1m")
            }
            queries = ask(client)
            client.close()
    if not json:
        for table, size in sizes.items():
            for family, size_a_row in size["families"].items():
                print(f"{table:<16}{family:<12}{size_a_row:>10.2f} bytes a row")
            print(f"{table:<16}{'all':<12}{size['bytes_a_row']:>10.2f} bytes a row, {size['rows']:,} rows")
        for name, ms in queries.items():
            print(f"{name:<28}{ms['median_ms']:>10.1f} ms, at most {ms['most_ms']:.1f} ms, {ms['rows']} rows")
    figures = {"tables": sizes, "rollups_bytes_a_row": rollups, "queries": queries}
    holds = all(sizes[table]["bytes_a_row"] <= most for table, most in FLOORS.items())
    print(json_format.dumps({"name": "store", "figures": figures, "at_most_bytes_a_row": FLOORS, "holds": holds}))
    return 0


def _store(root: Path, events: int) -> None:
    """Sends and archives; the archive has ended when this returns."""
    with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark"), heap_mb=512) as kafka:
        with redirect_stdout(sys.stderr):
            run_apply(kafka.bootstrap, PARTITIONS, local=True)
        _say(f"sending {events:,} events of {NODES:,} nodes")
        fleet = ("--nodes", NODES, "--interval", 10, "--rate", RATE, "--unpaced", "--events", events, "--seed", 7)
        command = fleetbeat("simulate", "--brokers", kafka.bootstrap, *map(str, fleet))
        subprocess.run(command, stdout=sys.stderr, check=True)
        with archive_process(kafka.bootstrap, root) as archive:
            archive.await_path("/-/healthy")
            begun_s = time.monotonic()
            while (stored := total(archive.metrics(), "fleetbeat_archive_rows_total")) < events:
                if time.monotonic() - begun_s > PATIENCE_S:
                    raise RuntimeError(f"{stored} of {events} rows after {PATIENCE_S:.0f} s")
                time.sleep(0.5)


def size_of(client: Any, table: str) -> dict[str, Any]:  # noqa: ANN401 - clickhouse-connect is not typed
    """Rows, bytes a row of all files, and by family of columns."""
    where = f"WHERE database = 'telemetry' AND table = '{table}' AND active"
    rows, on_disk, indexes = client.query(
        "SELECT sum(rows), sum(bytes_on_disk), sum(secondary_indices_compressed_bytes) "  # noqa: S608
        f"FROM system.parts {where}"
    ).result_rows[0]
    found = client.query(
        f"SELECT column, sum(column_data_compressed_bytes) FROM system.parts_columns {where} GROUP BY column"  # noqa: S608
    ).result_rows
    columns = dict(found)
    families = {family: sum(columns.get(name, 0) for name in names) for family, names in FAMILIES.items()}
    families = {family: size for family, size in families.items() if size}
    families["indexes"] = indexes
    families["marks and else"] = on_disk - sum(families.values())
    return {
        "rows": rows,
        "bytes_a_row": round(on_disk / rows, 2),
        "families": {family: round(size / rows, 2) for family, size in families.items()},
    }


def ask(client: Any) -> dict[str, dict[str, float]]:  # noqa: ANN401
    """Times of every query of the library over the hour before the last event; the first of them reads from disk."""
    at = client.query("SELECT max(ts) FROM telemetry.probe_results").result_rows[0][0].replace(tzinfo=UTC)
    node, trace = client.query(
        "SELECT any(node_id), anyIf(trace_id, trace_id != '') FROM telemetry.probe_results"
    ).result_rows[0]
    needed = {"node": node, "trace_id": trace or "4bf92f3577b34da6a3ce929d0e0e4736", "slo": "any"}
    times = {}
    for name, query in library().items():
        given = {parameter.name: needed[parameter.name] for parameter in query.parameters if parameter.default is None}
        values = query.fill(given, at + timedelta(seconds=1))
        taken, rows = [], 0
        for _ in range(REPEATS):
            begun_s = time.perf_counter()
            rows = len(client.query(query.sql, parameters=values).result_rows)
            taken.append((time.perf_counter() - begun_s) * 1000)
        times[name] = {
            "median_ms": round(statistics.median(taken), 1),
            "most_ms": round(max(taken), 1),
            "rows": rows,
        }
    return times


if __name__ == "__main__":
    wanted = int(sys.argv[sys.argv.index("--events") + 1]) if "--events" in sys.argv else EVENTS
    sys.exit(main(json="--json" in sys.argv, events=wanted))
