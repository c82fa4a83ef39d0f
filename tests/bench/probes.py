"""Whether one agent checks 500 URLs on time when 50 of them hang.

A real `fleetbeat agent` with a real Kafka: every 10 s each URL, with a timeout of 5 s, for three rounds; what it says
of itself on /metrics is compared with the records that arrived. How many it can check: `fleetbeat bench agent`.
"""

import asyncio
import contextlib
import json as json_format
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import cast

from aiokafka import AIOKafkaConsumer

from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply
from schemas.codec import decode
from schemas.records import ProbeResult

TARGETS, HANGING, ROUNDS = 500, 50, 3
EVERY_S, TIMEOUT_S, GRACE_S = 10, 5, 0.5
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    with tempfile.TemporaryDirectory() as folder, targets() as port:
        schedule = on_time(Path(folder), port)
    late = round(sum(schedule[name] for name in ("skipped", "late_starts", "unexpected", "missing")))
    result = {
        "name": "probes",
        "figures": {**schedule, "late": late},
        "ratios": {},
        "floors": {"late": 0},
        "holds": late == 0,
    }
    if not json:
        print(f"{TARGETS} URLs every {EVERY_S} s, {HANGING} hang   {late} late of {schedule['runs']} runs")
        print(f"start of a run, P99               {schedule['interval_error_p99_ms']:>8,.1f} ms off its time")
    print(json_format.dumps(result))
    return 0


def on_time(folder: Path, port: int) -> dict[str, float]:
    """Figures of an agent over three rounds; the parts of `late` are to be 0."""
    with LocalKafka(folder / "kafka", port=pick_port(None, None, "the benchmark")) as kafka:
        with redirect_stdout(sys.stderr):
            run_apply(kafka.bootstrap, 12, local=True)
        metrics = pick_port(None, None, "the agent")
        config = folder / "agent.json"  # JSON is YAML
        config.write_text(json_format.dumps(agent_config(port, metrics)), encoding="utf-8")
        agent = subprocess.Popen(
            [sys.executable, "-m", "fleetbeat", "agent", "--config", str(config), "--brokers", kafka.bootstrap],
            stderr=(folder / "agent.log").open("wb"),
        )
        try:
            page = wait_for_runs(agent, metrics, TARGETS * ROUNDS)
        finally:
            agent.terminate()
            status = agent.wait(30)
        if status:
            raise RuntimeError(f"fleetbeat agent ended with {status}: {(folder / 'agent.log').read_text()[-2_000:]}")
        results = asyncio.run(read_results(kafka.bootstrap))
    return figures(page, results)


def agent_config(port: int, metrics: int) -> dict[str, object]:
    """Every tenth URL hangs."""
    hanging = TARGETS // HANGING
    return {
        "node": {"id": "bench", "region": "bench"},
        "metrics": {"listen": f"127.0.0.1:{metrics}"},
        "probes": [
            {
                "name": f"{'hang' if place % hanging == 0 else 'good'}-{place}",
                "service": "bench",
                "every_s": EVERY_S,
                "timeout_s": TIMEOUT_S,
                "http": {"url": f"http://127.0.0.1:{port}/{'hang' if place % hanging == 0 else 'good'}/{place}"},
            }
            for place in range(TARGETS)
        ],
    }


def wait_for_runs(agent: subprocess.Popen[bytes], port: int, count: int) -> str:
    """The agent's metrics once so many runs have ended."""
    deadline_s = time.monotonic() + EVERY_S * (ROUNDS + 3)
    while time.monotonic() < deadline_s and agent.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            page: str = answer.read().decode()
            if total(page, "fleetbeat_agent_probe_runs_total") >= count:
                return page
    raise RuntimeError(f"fewer than {count} runs; expected so many in time; agent's status: {agent.poll()}")


def total(page: str, name: str, labels: str = ".*") -> float:
    """Sum of a metric over its labels."""
    return sum(map(float, re.findall(rf"^{name}(?:{{{labels}}})? (\S+)$", page, re.MULTILINE)))


def figures(page: str, results: list[ProbeResult]) -> dict[str, float]:
    """What agent and topic say together: outcomes as expected, nothing skipped, each URL at its time every round."""
    delay = "fleetbeat_agent_probe_start_delay_seconds"
    starts_ms: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        starts_ms[result.probe].append(result.ts - result.latency_us / 1_000)
    errors_ms = sorted(
        abs(later - earlier - EVERY_S * 1_000)
        for starts in starts_ms.values()
        for earlier, later in pairwise(sorted(starts))
    )
    outcomes = Counter((result.probe.partition("-")[0], result.error) for result in results)
    overdue = sum(result.latency_us > (TIMEOUT_S + GRACE_S) * 1e6 for result in results)
    counted = total(page, f"{delay}_count")
    lived_s = time.time() - total(page, "process_start_time_seconds")
    return {
        "runs": round(total(page, "fleetbeat_agent_probe_runs_total")),
        "skipped": round(total(page, "fleetbeat_agent_probe_skipped_total")),
        "late_starts": round(counted - total(page, f"{delay}_bucket", 'le="1.0"')),
        "unexpected": len(results) - outcomes["good", None] - outcomes["hang", "timeout"] + overdue,
        # The last run of a URL may not have ended yet.
        "missing": sum(max(0, ROUNDS - 1 - len(starts)) for starts in starts_ms.values()) + TARGETS - len(starts_ms),
        "start_delay_mean_ms": round(total(page, f"{delay}_sum") / counted * 1_000, 2),
        "interval_error_p99_ms": round(errors_ms[len(errors_ms) * 99 // 100], 1),
        "timeout_worst_ms": max(result.latency_us for result in results) // 1_000,
        "agent_rss_mb": round(total(page, "process_resident_memory_bytes") / 1e6),
        "agent_cpu_percent": round(100 * total(page, "process_cpu_seconds_total") / lived_s, 1),
    }


async def read_results(bootstrap: str) -> list[ProbeResult]:
    """Every probe result that is in Kafka."""
    consumer = AIOKafkaConsumer("probe-results", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found = []
        while batches := await consumer.getmany(timeout_ms=3_000):
            found += [decode(record.value) for records in batches.values() for record in records]
        return [record for record in found if isinstance(record, ProbeResult)]
    finally:
        await consumer.stop()


@contextmanager
def targets() -> Iterator[int]:
    """The port of a web server of its own process that hangs below /hang/."""
    server = subprocess.Popen([sys.executable, __file__, "--targets"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


class Target(asyncio.Protocol):
    """Answers at once or never."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if not data.startswith(b"GET /hang"):
            self.transport.write(ANSWER)
            self.transport.close()


async def serve_targets() -> None:
    """Prints its port and serves."""
    server = await asyncio.get_running_loop().create_server(Target, "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if "--targets" in sys.argv:
        asyncio.run(serve_targets())
    sys.exit(main(json="--json" in sys.argv))
