"""How soon a worker that was killed with -9 is ready again while 2,000,000 nodes and 20,000 probes/s go on.

A real Kafka, a real worker and `fleetbeat simulate` on this machine: each node sends a heartbeat every 30 s, 66,667 a
second, and 20,000 probe results come in beside them. The worker is killed, started at once, and watched until it is
ready and has caught up. What it reads twice lies between the commit and where the dead one was. At the end its tables
must hold exactly what was sent.
`fleetbeat bench recovery --json` prints only the last line; run as a file it takes `--nodes` and `--rate`.
"""

import json as json_format
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from infra.kafka import LocalKafka
from infra.local.figures import total
from infra.state import pick_port
from infra.topics import run_apply
from tests.bench.liveness import memory_mb, say, up
from tests.integration.worker_process import GROUP, Promise, WorkerProcess, eventually, write_objectives

NODES, INTERVAL_S = 2_000_000, 30
RESULTS_PER_S = 20_000
PARTITIONS = 12
# After the whole fleet is known, and again after the worker is back.
STEADY_S = 20.0
PATIENCE_S = 300.0
SETTLE_S = 30.0
FLOORS = {"ready_s": 20}
TOPICS = ("heartbeats", "probe-results")


def main(*, json: bool = False, nodes: int = NODES, rate: int = RESULTS_PER_S) -> int:
    """0 unless it could not run; the last line is the result as JSON, and says whether it holds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark"), heap_mb=1_024) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            figures = measure(kafka.bootstrap, root, nodes, rate)
    exact = figures["heartbeats_miscounted"] == 0 and figures["results_miscounted"] == 0
    holds = exact and all(figures[name] <= floor for name, floor in FLOORS.items())
    if not json:
        for name, figure in figures.items():
            print(f"{name:<28}{figure:>14,}")
    replayed = figures["replayed_heartbeats"] + figures["replayed_results"]
    ratios = {"replayed_of_lag_at_start": round(replayed / max(1, figures["lag_at_start"]), 2)}
    result = {"name": "recovery", "figures": figures, "ratios": ratios, "floors": FLOORS, "holds": holds}
    print(json_format.dumps(result))
    return 0


def measure(brokers: str, root: Path, nodes: int, rate: int) -> dict[str, Any]:
    """One kill under load, and what it took to come back."""
    objectives = write_objectives(root / "slos.yaml", [Promise("all"), Promise("fast", latency_us_le=60_000)])
    limits = ("--nodes-max", str(2 * nodes), "--nodes-new-per-minute", str(2 * nodes))
    arriving = dict(zip(TOPICS, (nodes // INTERVAL_S, rate), strict=True))
    with WorkerProcess(brokers, root, objectives, options=limits) as worker:
        worker.start().await_ready()
        fleet = simulate(brokers, nodes, rate)
        try:
            eventually(lambda: up(worker) > 0.99 * nodes, "fleet that is up", PATIENCE_S)
            eventually(lambda: caught_up(worker, arriving), "worker without lag", PATIENCE_S)
            time.sleep(STEADY_S)
            figures: dict[str, Any] = {"nodes": nodes, "results_per_s": rate, **kill(brokers, worker, arriving)}
            say(figures)
            time.sleep(STEADY_S)
        finally:
            fleet.terminate()
            out, _ = fleet.communicate()
        if fleet.returncode:
            raise RuntimeError(f"fleetbeat simulate ended with {fleet.returncode}; expected 0")
        sent = json_format.loads(out.splitlines()[-1])
        eventually(lambda: not sum(lags(worker).values()), "end of the log", PATIENCE_S)
        found = settled(worker, sent)
        figures |= {"heartbeats": sent["heartbeats"], "results": sent["results"]}
        figures |= {f"{what}_miscounted": count - sent[what] for what, count in found.items()}
        figures["memory_mb"] = memory_mb(worker)
    return figures


def kill(brokers: str, worker: WorkerProcess, arriving: dict[str, int]) -> dict[str, Any]:
    """Kill -9, start again at once, and watch until it is as far as before; `arriving` is what comes in a second."""
    lag_before = lags(worker)
    worker.kill()
    begun = time.monotonic()
    worker.start()
    # All from the commit on. What the dead one had read of that is read twice; the rest is new.
    behind = {topic: end - committed for topic, (committed, end) in positions(brokers).items()}
    again = {topic: max(0, count - lag_before[topic]) for topic, count in behind.items()}
    worker.await_ready(PATIENCE_S)
    ready_s = time.monotonic() - begun
    eventually(lambda: caught_up(worker, arriving), "worker without lag", PATIENCE_S)
    caught_up_s = time.monotonic() - begun
    heartbeats, results = TOPICS
    return {
        "ready_s": round(ready_s, 1),
        "caught_up_s": round(caught_up_s, 1),
        "lag_at_start": sum(behind.values()),
        "replayed_heartbeats": again[heartbeats],
        "replayed_results": again[results],
        "replayed_heartbeats_s": round(again[heartbeats] / arriving[heartbeats], 1),
        "replayed_results_s": round(again[results] / arriving[results], 1),
    }


def positions(brokers: str) -> dict[str, tuple[int, int]]:
    """For each topic the sums over its partitions of what the group has committed, and of where the log ends."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": GROUP, "enable.auto.commit": False})
    try:
        found = {}
        for topic in TOPICS:
            places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            committed = sum(max(0, place.offset) for place in consumer.committed(places, 10))
            found[topic] = (committed, sum(consumer.get_watermark_offsets(place, 10)[1] for place in places))
        return found
    finally:
        consumer.close()


def simulate(brokers: str, nodes: int, rate: int) -> "subprocess.Popen[str]":
    """Heartbeats of all nodes, and probe results beside them."""
    arguments = ["--brokers", brokers, "--nodes", str(nodes), "--interval", str(INTERVAL_S), "--rate", str(rate)]
    command = [sys.executable, "-m", "fleetbeat", "simulate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lags(worker: WorkerProcess) -> dict[str, int]:
    """Records of each topic that are in the log and not yet in the tables. Raises RuntimeError when it does not say."""
    status, text = worker.get("/metrics")
    if status != 200:
        raise RuntimeError(f"/metrics: status {status}; expected 200")
    return {topic: total(text, f'fleetbeat_consumer_lag_records{{topic="{topic}"}}') for topic in TOPICS}


def caught_up(worker: WorkerProcess, arriving: dict[str, int]) -> bool:
    """Whether less waits than comes in a second."""
    if worker.get("/-/ready")[0] != 200:
        return False
    return all(lag <= arriving[topic] for topic, lag in lags(worker).items())


def counted(worker: WorkerProcess) -> dict[str, int]:
    """What its tables hold; empty while a view does not answer."""
    (fleet_status, fleet), (slo_status, slo) = worker.get("/api/v1/fleet"), worker.get("/api/v1/slos/all")
    if fleet_status != 200 or slo_status != 200:
        return {}
    return {"heartbeats": int(fleet["totals"]["heartbeats"]), "results": int(slo["windows"][-1]["total"])}


def settled(worker: WorkerProcess, sent: dict[str, int]) -> dict[str, int]:
    """The same when all that was sent is there, or after a while: a lag of zero is half a second old."""
    until = time.monotonic() + SETTLE_S
    while True:
        found = eventually(lambda: counted(worker), "views", PATIENCE_S)
        if time.monotonic() > until or all(count >= sent[what] for what, count in found.items()):
            return found
        time.sleep(0.5)


def option(name: str, usual: int) -> int:
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else usual


if __name__ == "__main__":
    asked = {"nodes": option("--nodes", NODES), "rate": option("--rate", RESULTS_PER_S)}
    sys.exit(main(json="--json" in sys.argv, **asked))
