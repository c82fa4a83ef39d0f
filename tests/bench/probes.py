"""Whether one agent checks 500 URLs on time when 50 of them hang, and how many probes a second one core makes.

The first is a real `fleetbeat agent` with a real Kafka: every 10 s each URL, with a timeout of 5 s, for three rounds;
what it says of itself on /metrics is compared with the records that arrived. The second is the probe alone on one core,
the servers it asks on the others; beside it blackbox_exporter, when it is installed, does the same work.
"""

import asyncio
import contextlib
import json as json_format
import os
import re
import shutil
import statistics
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

from agents.probes.base import Up
from agents.probes.http import HttpConfig, HttpProbe
from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply
from schemas.codec import decode
from schemas.records import ProbeResult

TARGETS, HANGING, ROUNDS = 500, 50, 3
EVERY_S, TIMEOUT_S, GRACE_S = 10, 5, 0.5
RUNS, PROBES, AT_ONCE = 3, 4_000, 64
FLOOR_PROBES_PER_S = 2_000
PEERS = ("prometheus-blackbox-exporter", "blackbox_exporter")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    with tempfile.TemporaryDirectory() as folder, targets() as port:
        schedule = on_time(Path(folder), port)
        runs = [asyncio.run(flat_out(port)) for _ in range(RUNS)]
        peer = blackbox(Path(folder), port)
    probes_per_s = round(statistics.median(per_s for per_s, _ in runs))
    late = round(sum(schedule[name] for name in ("skipped", "late_starts", "unexpected", "missing")))
    holds = late == 0 and probes_per_s >= FLOOR_PROBES_PER_S
    result = {
        "name": "probes",
        "figures": {
            **schedule,
            "late": late,
            "probes_per_s": probes_per_s,
            "probes_per_s_runs": [round(per_s) for per_s, _ in runs],
            "cpu_us_per_probe": round(statistics.median(cpu_us for _, cpu_us in runs)),
            "peer_blackbox_per_s": peer,
        },
        "ratios": {"to_blackbox": None if peer is None else round(probes_per_s / peer, 2)},
        "floors": {"late": 0, "probes_per_s": FLOOR_PROBES_PER_S},
        "holds": holds,
    }
    if not json:
        print(f"{TARGETS} URLs every {EVERY_S} s, {HANGING} hang   {late} late of {schedule['runs']} runs")
        print(f"start of a run, P99               {schedule['interval_error_p99_ms']:>8,.1f} ms off its time")
        print(f"flat out, one core                {probes_per_s:>8,} probes/s")
        print(f"blackbox_exporter, one core       {'absent' if peer is None else f'{peer:,}':>8} probes/s")
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


async def flat_out(port: int) -> tuple[float, float]:
    """(probes/s, µs of processor time a probe) on one core, with `AT_ONCE` under way."""
    probe = HttpProbe(HttpConfig(url=f"http://127.0.0.1:{port}/good"))
    turns = iter(range(PROBES))

    async def work() -> None:
        for _ in turns:
            outcome = await probe.run(TIMEOUT_S)
            if not isinstance(outcome, Up):
                raise TypeError(f"{outcome}; expected Up")

    with pinned(ONE_CORE):
        began_s, used_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return PROBES / (time.perf_counter() - began_s), (time.process_time() - used_s) / PROBES * 1e6


def blackbox(folder: Path, port: int) -> int | None:
    """Probes/s of blackbox_exporter on one core, asked on the others as Prometheus would; None where there is none."""
    program = next(filter(None, map(shutil.which, PEERS)), None)
    if program is None:
        return None
    config = folder / "blackbox.yml"
    config.write_text("modules: {http_2xx: {prober: http, http: {preferred_ip_protocol: ip4}}}", encoding="utf-8")
    own = pick_port(None, None, "blackbox_exporter")
    command = [program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"]
    with pinned(ONE_CORE):  # a child and its threads stay where their parent was
        exporter = subprocess.Popen(command, env=os.environ | {"GOMAXPROCS": "1"}, stderr=subprocess.DEVNULL)
    try:
        with pinned(OTHER_CORES):
            return round(statistics.median(asyncio.run(ask_blackbox(own, port)) for _ in range(RUNS)))
    finally:
        exporter.kill()
        exporter.wait()


async def ask_blackbox(own: int, port: int) -> float:
    """Probes/s over `AT_ONCE` connections that are kept."""
    request = f"GET /probe?module=http_2xx&target=http://127.0.0.1:{port}/good HTTP/1.1\r\nHost: b\r\n\r\n".encode()
    turns = iter(range(PROBES))

    async def work() -> None:
        reader, writer = await connected(own)
        for _ in turns:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            body = await (reader.readexactly(int(length[1])) if length else chunks(reader))
            if b"probe_success 1" not in body:
                raise RuntimeError(f"{body!r}; expected probe_success 1")
        writer.close()

    began_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return PROBES / (time.perf_counter() - began_s)


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to what may only just have been started."""
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.1)


async def chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body, put together."""
    return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", await reader.readuntil(b"\r\n0\r\n\r\n"))


ONE_CORE = {max(os.sched_getaffinity(0))}
OTHER_CORES = os.sched_getaffinity(0) - ONE_CORE or ONE_CORE


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Holds this process to these cores meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def targets() -> Iterator[int]:
    """The port of a web server of its own process, on the other cores, that hangs below /hang/."""
    with pinned(OTHER_CORES):
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
