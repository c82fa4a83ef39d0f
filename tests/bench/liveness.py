"""Two million nodes in one worker: memory, speed, answers, and how soon it is back after kill -9.

A real Kafka, a real worker and `fleetbeat simulate` on this machine. First two heartbeats of every node wait in the
log and are folded as fast as it goes; then the fleet beats in real time, every 30 s, while views are asked and the
worker is killed twice, once while the fleet holds its breath and once under load. At the end what the worker has
counted must be what was sent.
`fleetbeat bench liveness --json` prints only the last line; `--nodes` makes the fleet smaller when run as a file.
"""

import json as json_format
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply
from tests.integration.worker_process import Promise, WorkerProcess, eventually, write_objectives

NODES = 2_000_000
INTERVAL_S = 30
ASKED = 100
FLOORS = {"memory_mb": 1_500, "ready_s": 20}
PATHS = {
    "fleet": "/api/v1/fleet",
    "nodes": "/api/v1/nodes?limit=1000",
    "nodes_down": "/api/v1/nodes?state=DOWN&limit=1000",
}


def main(*, json: bool = False, nodes: int = NODES) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with LocalKafka(root / "kafka", port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, 12, local=True)
            figures = measure(kafka.bootstrap, root, nodes)
    holds = all(figures[name] <= floor for name, floor in FLOORS.items()) and figures["miscounted"] == 0
    if not json:
        for name, figure in figures.items():
            print(f"{name:<24}{figure:>14,}")
    result = {"name": "liveness", "figures": figures, "ratios": {}, "floors": FLOORS, "holds": holds}
    print(json_format.dumps(result))
    return 0


def measure(brokers: str, root: Path, nodes: int) -> dict[str, Any]:
    """All figures of one worker with so many nodes."""
    objectives = write_objectives(root / "slos.yaml", [Promise("all")])
    limits = ("--nodes-max", str(2 * nodes), "--nodes-new-per-minute", str(2 * nodes))
    summary = json_format.loads(simulate(brokers, nodes, "--unpaced", "--events", str(2 * nodes)).communicate()[0])
    sent = summary["heartbeats"]
    with WorkerProcess(brokers, root, objectives, options=limits) as worker:
        worker.start()
        figures: dict[str, Any] = {"nodes": nodes, **fold_rates(worker, nodes, sent)}
        say(figures)
        fleet = simulate(brokers, nodes)
        try:
            eventually(lambda: up(worker) > 0.99 * nodes, "fleet that is up", 10 * INTERVAL_S)
            some = worker.get("/api/v1/nodes?limit=1")[1]["nodes"][0]["node_id"]
            paths = {**PATHS, "node": f"/api/v1/nodes/{some}"}
            figures |= {
                f"{name}_{figure}": ms for name, path in paths.items() for figure, ms in ask(worker, path).items()
            }
            say(figures)
            figures["memory_before_mb"] = memory_mb(worker)
            fleet.send_signal(signal.SIGSTOP)
            figures["ready_s"] = restart(worker)
            fleet.send_signal(signal.SIGCONT)
            eventually(lambda: up(worker) > 0.99 * nodes, "fleet that is up again", 10 * INTERVAL_S)
            figures["ready_under_load_s"] = restart(worker)
        finally:
            fleet.send_signal(signal.SIGCONT)
            fleet.send_signal(signal.SIGTERM)
            out, _ = fleet.communicate()
        sent += json_format.loads(out)["heartbeats"]
        eventually(lambda: counted(worker) >= sent, "end of the log", 300)
        figures["memory_mb"] = max(figures["memory_before_mb"], memory_mb(worker))
        figures["heartbeats"] = sent
        figures["miscounted"] = counted(worker) - sent
    return figures


def say(figures: dict[str, Any]) -> None:
    """How far it is: the whole takes minutes."""
    print(json_format.dumps(figures), file=sys.stderr, flush=True)


def simulate(brokers: str, nodes: int, *more: str) -> "subprocess.Popen[str]":
    """A fleet that sends nothing but heartbeats."""
    arguments = ["--brokers", brokers, "--nodes", str(nodes), "--interval", str(INTERVAL_S), "--rate", "0", *more]
    command = [sys.executable, "-m", "fleetbeat", "simulate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def fold_rates(worker: WorkerProcess, nodes: int, sent: int) -> dict[str, int]:
    """Heartbeats a second while nodes register, and afterwards, both with pages written and states announced."""
    times = [await_count(worker, share) for share in (1, nodes * 9 // 10, sent)]
    counts, at = zip(*times, strict=True)
    return {
        "register_per_s": round((counts[1] - counts[0]) / (at[1] - at[0])),
        "fold_per_s": round((counts[2] - counts[1]) / (at[2] - at[1])),
    }


def await_count(worker: WorkerProcess, count: int) -> tuple[int, float]:
    """How many were counted when at least `count` were, and when that was."""
    found = eventually(
        lambda: counted_by_metrics(worker) if counted_by_metrics(worker) >= count else None, "heartbeats", 300
    )
    return found, time.monotonic()


def counted_by_metrics(worker: WorkerProcess) -> int:
    status, text = worker.get("/metrics")
    return worker.metric("fleetbeat_heartbeats_total") if status == 200 and text else 0


def counted(worker: WorkerProcess) -> int:
    """What is in the table."""
    status, answer = worker.get(PATHS["fleet"])
    return int(answer["totals"]["heartbeats"]) if status == 200 else 0


def up(worker: WorkerProcess) -> int:
    status, answer = worker.get(PATHS["fleet"])
    return int(answer["nodes"]["UP"]) if status == 200 else 0


def ask(worker: WorkerProcess, path: str) -> dict[str, float]:
    """Milliseconds of an answer, one question after the other."""
    times = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        status, answer = worker.get(path)
        times.append((time.perf_counter() - begun) * 1_000)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {answer}; expected 200")
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}


def restart(worker: WorkerProcess) -> float:
    """Seconds from the start after a kill -9 until the worker is ready."""
    worker.kill()
    begun = time.monotonic()
    worker.start().await_ready(300)
    return round(time.monotonic() - begun, 1)


def memory_mb(worker: WorkerProcess) -> int:
    """The most that the process has held in memory."""
    lines = Path(f"/proc/{worker.child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1_024


if __name__ == "__main__":
    size = int(sys.argv[sys.argv.index("--nodes") + 1]) if "--nodes" in sys.argv else NODES
    sys.exit(main(json="--json" in sys.argv, nodes=size))
