"""How quickly the agent is there, and what it costs when little happens.

Cold start: from exec to the broker's own append time of the first heartbeat; and the processor time spent by then,
which other work on the machine changes less. Memory: resident after 30 s with ten TCP probes every 5 s, and the
processor time that they take. `fleetbeat bench agent_start --json` prints only the last line.
"""

import json as json_format
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import psutil
from confluent_kafka import Consumer, TopicPartition

from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply

RUNS = 9
IDLE_S = 30
FLOORS = {"cold_start_ms": 500, "idle_mb": 60}
CONFIG = "node: {{id: {node}}}\nmetrics: {{listen: null}}\nprobes:\n{probes}"
PROBE = "  - {{name: port-{number}, service: kafka, every_s: 5, tcp: {{host: 127.0.0.1, port: {port}}}}}\n"


def main(*, json: bool = False) -> int:
    """0 when the floors hold; the last line is the result as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with LocalKafka(root, port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, 1, local=True)
            config = _config(root, kafka.port)
            starts = [_cold_start(kafka.bootstrap, config) for _ in range(RUNS)]
            idle_mb, cpu_ms_per_s = _idle(kafka.bootstrap, config)
    cold_start_ms = statistics.median(wall_ms for wall_ms, _ in starts)
    figures = {
        "cold_start_ms": cold_start_ms,
        "cold_start_ms_runs": sorted(wall_ms for wall_ms, _ in starts),
        "cold_start_cpu_ms": statistics.median(cpu_ms for _, cpu_ms in starts),
        "python_alone_ms": round(statistics.median(_bare_ms() for _ in range(RUNS))),
        "idle_mb": idle_mb,
        "idle_cpu_ms_per_s": cpu_ms_per_s,
    }
    holds = cold_start_ms <= FLOORS["cold_start_ms"] and idle_mb <= FLOORS["idle_mb"]
    if not json:
        print(f"exec to first heartbeat in Kafka, median of {RUNS}  {cold_start_ms:>8,.0f} ms")
        print(f"processor time of that                         {figures['cold_start_cpu_ms']:>8,.0f} ms")
        print(f"resident after {IDLE_S} s with ten probes every 5 s   {idle_mb:>8,.1f} MB")
    print(
        json_format.dumps({"name": "agent_start", "figures": figures, "ratios": {}, "floors": FLOORS, "holds": holds})
    )
    return 0


def _config(root: Path, port: int) -> Path:
    probes = "".join(PROBE.format(number=number, port=port) for number in range(10))
    path = root / "agent.yaml"
    path.write_text(CONFIG.format(node="bench", probes=probes), encoding="utf-8")
    return path


def _cold_start(bootstrap: str, config: Path) -> tuple[int, int]:
    """(ms by the clock, ms of processor time)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    heartbeats = TopicPartition("heartbeats", 0)
    heartbeats.offset = consumer.get_watermark_offsets(heartbeats, 10)[1]
    consumer.assign([heartbeats])
    began_ms = time.time_ns() // 1_000_000
    with _agent(bootstrap, config) as process:
        message = consumer.poll(30)
        times = psutil.Process(process.pid).cpu_times()
    consumer.close()
    if message is None or message.error():
        raise RuntimeError(f"no heartbeat within 30 s: {message and message.error()}")
    return message.timestamp()[1] - began_ms, round((times.user + times.system) * 1_000)


def _idle(bootstrap: str, config: Path) -> tuple[float, float]:
    """Resident MB at the end, and processor ms a second after the start."""
    with _agent(bootstrap, config) as process:
        seen = psutil.Process(process.pid)
        time.sleep(5)
        before = seen.cpu_times()
        time.sleep(IDLE_S - 5)
        after = seen.cpu_times()
        spent_s = after.user + after.system - before.user - before.system
        return round(seen.memory_info().rss / 1e6, 1), round(spent_s * 1_000 / (IDLE_S - 5), 1)


@contextmanager
def _agent(bootstrap: str, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "fleetbeat", "agent", "--config", str(config), "--brokers", bootstrap]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _bare_ms() -> float:
    """What starting Python costs on this machine, for comparison."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1_000


if __name__ == "__main__":
    sys.exit(main())
