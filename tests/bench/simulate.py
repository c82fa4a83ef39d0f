"""How fast one core simulates a fleet into real Kafka, beside the usual way: fastavro and a send for each record.

The simulator runs as its own process, held to one core, with Avro encoding, ledger and acknowledgements of all
replicas; the broker and all else have the other cores. The peer gets its records ready-made and keeps no ledger.
`fleetbeat bench simulate --json` prints only the last line.
"""

import asyncio
import json as json_format
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.simulate.bodies import explain, probe_name
from agents.simulate.config import load_script
from agents.simulate.fleet import Fleet, Plan
from agents.simulate.nodes import node_names
from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply
from schemas.codec import encode
from schemas.records import ProbeResult

EVENTS = 3_000_000
RUNS = 3
PEER_EVENTS = 40_000
NODES = 1_000
FLOOR_EVENTS_PER_S = 300_000


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with LocalKafka(root, port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, 12, local=True)
            summaries = [simulate(kafka.bootstrap, root / f"ledger-{place}") for place in range(RUNS)]
            peer = asyncio.run(one_by_one(kafka.bootstrap))
    events_per_s = round(statistics.median(summary["events_per_s"] for summary in summaries))
    holds = events_per_s >= FLOOR_EVENTS_PER_S
    result = {
        "name": "simulate",
        "figures": {
            "events_per_s": events_per_s,
            "events_per_s_runs": [summary["events_per_s"] for summary in summaries],
            "cpu_us_per_event": round(statistics.median(summary["cpu_us_per_event"] for summary in summaries), 2),
            "peer_one_by_one_per_s": round(peer),
        },
        "ratios": {"to_one_by_one": round(events_per_s / peer, 1)},
        "floors": {"events_per_s": FLOOR_EVENTS_PER_S},
        "holds": holds,
    }
    if not json:
        print(f"simulate, one core, median of {RUNS} x {EVENTS:,} events  {events_per_s:>12,} events/s")
        print(f"fastavro and send, one by one, {PEER_EVENTS:,} events      {peer:>12,.0f} events/s")
    print(json_format.dumps(result))
    return 0


def simulate(bootstrap: str, ledger: Path) -> dict[str, float]:
    """The summary of one unpaced run on one core, with the processor time of an event in µs."""
    arguments = ["--brokers", bootstrap, "--unpaced", "--events", str(EVENTS), "--ledger", str(ledger)]
    command = [sys.executable, "-m", "fleetbeat", "simulate", *arguments]
    before = os.times()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    out, _ = process.communicate()
    after = os.times()
    if process.returncode:
        raise RuntimeError(f"fleetbeat simulate ended with {process.returncode}; expected 0")
    summary: dict[str, float] = json_format.loads(out.splitlines()[-1])
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return {**summary, "cpu_us_per_event": used_s / summary["events"] * 1e6}


async def one_by_one(bootstrap: str) -> float:
    """Events a second of the usual way: schemaless fastavro, AIOKafkaProducer.send, batches made by the client."""
    records = peer_records()
    options: dict[str, Any] = {"acks": "all", "enable_idempotence": True, "compression_type": "lz4"}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=256 << 10, **options)
    await producer.start()
    try:
        started = time.perf_counter()
        acks = [await producer.send("probe-results", encode(one), key=one.node_id.encode()) for one in records]
        await asyncio.gather(*acks)
        return len(records) / (time.perf_counter() - started)
    finally:
        await producer.stop()


def peer_records() -> list[ProbeResult]:
    """Records of the same fleet, as objects."""
    script = load_script(None)
    now_ms = time.time_ns() // 1_000_000
    fleet = Fleet(Plan(NODES, 1_000_000, 10_000, script), seed=1, start_ms=now_ms - 1_000)
    names, series = node_names(NODES), script.series
    chunk = fleet.step(1_000, PEER_EVENTS)
    boots = chunk.boots["boot_id"].tolist()
    records = []
    for row in chunk.results:
        one = series[row["series"]]
        status_code, error = explain(row["outcome"], one.kind)
        records.append(
            ProbeResult(
                node_id=names[row["node"]],
                ts=int(row["ts_ms"]),
                boot_id=boots[row["boot"]].decode(),
                seq=int(row["seq"]),
                probe=probe_name(one),
                kind=one.kind,
                service=one.service,
                endpoint=one.endpoint,
                region=one.region,
                success=bool(row["success"]),
                latency_us=int(row["latency_us"]),
                status_code=status_code,
                error=error,
            )
        )
    return records


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv))
