"""How many exporters one agent reads a second: 50 small ones and the page of a host, in stages and one by one.

The exporters are real ones: 50 servers of a process of their own, on the other cores, whose pages have 20 samples that
change with every request, and that answer after 10 ms, as one in the next rack would; and Debian's
prometheus-node-exporter, when it is installed, else a page of its size. All of it shares this machine with the agent,
which has one core. What is run is the agent's own pipeline, from lining up to framed records, and nothing is sent; each
exporter is due again as soon as it was read. One by one: the same code asks the same exporters, and waits for each.
`fleetbeat bench scrape --json` prints only the last line.
"""

import asyncio
import json as json_format
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from agents.clock import SystemClock
from agents.node import Node
from agents.probes.url import parse_url
from agents.publish import Drop, LaneFigures, Outbox
from agents.schedule import Turn
from agents.scrape.pipeline import Scraper
from agents.scrape.settings import ScrapeFile
from infra.state import pick_port
from tests.bench.probing.cores import ONE_CORE, OTHER_CORES, pinned

SMALL, ANSWER_AFTER_S = 50, 0.010
RUNS, WARM_S, RUN_S, SERIAL = 3, 1.0, 5.0, 200
FLOOR_SCRAPES_PER_S, CEILING_P99_MS = 1_260, 187
NODE_EXPORTER = "prometheus-node-exporter"
NODE = Node("bench", "bench", "bench", (), "boot", 0, 10_000, "bench")


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    found = measure()
    if not json:
        print(f"in stages                         {found['scrapes_per_s']:>8,} scrapes/s, P99 {found['p99_ms']} ms")
        print(
            f"one by one                        {found['serial_per_s']:>8,} scrapes/s, P99 {found['serial_p99_ms']} ms"
        )
        print(f"processor time a scrape           {found['cpu_us_per_scrape']:>8,} µs")
    print(json_format.dumps(result(found)))
    return 0


def result(found: dict[str, Any]) -> dict[str, Any]:
    """The figures with their floors."""
    holds = found["scrapes_per_s"] >= FLOOR_SCRAPES_PER_S and found["p99_ms"] <= CEILING_P99_MS
    return {
        "name": "scrape",
        "figures": found,
        "ratios": {"to_serial": round(found["scrapes_per_s"] / found["serial_per_s"], 1)},
        "floors": {"scrapes_per_s": FLOOR_SCRAPES_PER_S, "p99_ms": CEILING_P99_MS},
        "holds": holds,
    }


def measure() -> dict[str, Any]:
    """All figures; the medians of the runs."""
    with tempfile.TemporaryDirectory() as folder, exporters() as ports, host_page(Path(folder)) as (host_url, host):
        urls = [f"http://127.0.0.1:{port}/metrics" for port in ports] + [host_url]
        with pinned(ONE_CORE):
            staged = [asyncio.run(in_stages(urls)) for _ in range(RUNS)]
            serial = asyncio.run(one_by_one(urls))
        page = asyncio.run(page_of(host_url))
    middle = {name: statistics.median(run[name] for run in staged) for name in staged[0]}
    return {
        "scrapes_per_s": round(middle["per_s"]),
        "scrapes_per_s_runs": [round(run["per_s"]) for run in staged],
        "p50_ms": round(middle["p50_ms"], 1),
        "p99_ms": round(middle["p99_ms"], 1),
        "p99_ms_runs": [round(run["p99_ms"], 1) for run in staged],
        "cpu_us_per_scrape": round(middle["cpu_us"]),
        "requests_counted": round(sum(run["requests"] for run in staged)),
        "loop_blocked_max_ms": round(max(run["blocked_ms"] for run in staged), 1),
        "serial_per_s": round(serial["per_s"]),
        "serial_p99_ms": round(serial["p99_ms"], 1),
        "host_page": host,
        "host_page_bytes": len(page),
        "host_page_samples": sum(not line.startswith(b"#") for line in page.splitlines()),
    }


class Taking:
    """A publisher that takes everything, and counts."""

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:  # noqa: ARG002 - part of the protocol
        return None

    async def room(self, topic: str) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self, deadline_s: float) -> int:  # noqa: ARG002 - part of the protocol
        return 0

    def figures(self) -> dict[str, LaneFigures]:
        return {}

    def problem(self) -> str | None:
        return None


class Eager(Scraper):
    """The agent's pipeline, whose exporters are due again at once; keeps what each scrape took from when it was due."""

    took_s: list[float]

    async def _keep_time(self) -> None:
        while True:
            now_s = time.monotonic()
            for place in self._exporters:
                if self.lineup.offer(Turn(place, now_s)) is None:
                    self._queued.release()
            await asyncio.sleep(0.001)

    async def _report(self, scraped: Any, outcome: Any) -> None:  # noqa: ANN401 - as the pipeline has them
        self.took_s.append(time.monotonic() - scraped.due_s)
        await super()._report(scraped, outcome)


def job(urls: list[str]) -> ScrapeFile:
    """One scrape of all of them, that counts a counter and a histogram of the small ones, and one of the host's."""
    return ScrapeFile.model_validate(
        {
            "name": "bench",
            "service": "bench",
            "every_s": 1,
            "timeout_s": 1,
            "targets": urls,
            "requests": [
                {"counter": "http_requests_total", "bad": {"code": "5.."}},
                {"histogram": "http_request_duration_seconds"},
                {"counter": "promhttp_metric_handler_requests_total", "endpoint": "metrics", "bad": {"code": "5.."}},
            ],
        }
    )


async def in_stages(urls: list[str]) -> dict[str, float]:
    """Figures of one run of the pipeline."""
    scraper = Eager([job(urls)], NODE, Outbox(Taking()), SystemClock())
    scraper.took_s = []
    running = asyncio.create_task(scraper.run())
    watching = asyncio.create_task(blocked())
    await asyncio.sleep(WARM_S)
    scraper.took_s.clear()
    began_s, used_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(RUN_S)
    took_s, lasted_s, used_s = sorted(scraper.took_s), time.perf_counter() - began_s, time.process_time() - used_s
    blocked_s = worst_s[0]
    for task in (running, watching):
        task.cancel()
    await asyncio.gather(running, watching, return_exceptions=True)
    await scraper.close()
    if scraper.outcomes["up"] != scraper.outcomes.total():
        failed = [*scraper.failures.transport, *scraper.failures.validation]
        raise RuntimeError(f"{dict(scraper.outcomes)}, {failed}; expected that all are up")
    return {
        "per_s": len(took_s) / lasted_s,
        "p50_ms": took_s[len(took_s) // 2] * 1e3,
        "p99_ms": took_s[len(took_s) * 99 // 100] * 1e3,
        "cpu_us": used_s / len(took_s) * 1e6,
        "requests": scraper.figures.requests,
        "blocked_ms": blocked_s * 1e3,
    }


worst_s = [0.0]


async def blocked() -> None:
    """Notes by how much a sleep of 5 ms was late at most: so long the event loop did something else."""
    worst_s[0] = 0.0
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(0.005)
        worst_s[0] = max(worst_s[0], time.perf_counter() - began_s - 0.005)


async def one_by_one(urls: list[str]) -> dict[str, float]:
    """The same exporters and the same code, one exporter after the other."""
    scraper = Scraper([job(urls)], NODE, Outbox(Taking()), SystemClock())
    made = [scraper.exporter(found) for found in scraper.discovery.targets()]
    took_s = []
    began_s = time.perf_counter()
    for number in range(SERIAL):
        due_s = time.perf_counter()
        await scraper.scrape(made[number % len(made)])
        took_s.append(time.perf_counter() - due_s)
    lasted_s = time.perf_counter() - began_s
    for exporter in made:
        await exporter.fetcher.close()
    # In a round each waits for all before it: that is what a reader of its figures sees.
    round_s = lasted_s / SERIAL * len(made)
    return {"per_s": SERIAL / lasted_s, "p99_ms": sorted(took_s)[SERIAL * 99 // 100] * 1e3, "round_ms": round_s * 1e3}


async def page_of(url: str) -> bytes:
    """The page as it is, uncompressed."""
    target = parse_url(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(b"GET /metrics HTTP/1.0\r\nHost: bench\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


@contextmanager
def host_page(folder: Path) -> Iterator[tuple[str, str]]:
    """(URL, what it is) of an exporter with the page of a host."""
    program = shutil.which(NODE_EXPORTER)
    if program is None:
        with exporters("--host") as (port,):
            yield f"http://127.0.0.1:{port}/metrics", "a page of its size"
        return
    port = pick_port(None, None, NODE_EXPORTER)
    with pinned(OTHER_CORES):
        exporter = subprocess.Popen(
            [program, f"--web.listen-address=127.0.0.1:{port}"], stderr=(folder / "log").open("wb")
        )
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        while True:
            with suppress(ConnectionRefusedError):
                asyncio.run(page_of(url))
                break
            time.sleep(0.1)
        yield url, NODE_EXPORTER
    finally:
        exporter.kill()
        exporter.wait()


@contextmanager
def exporters(mode: str = "--exporters") -> Iterator[list[int]]:
    """Ports of servers in a process of their own, on the other cores."""
    with pinned(OTHER_CORES):
        server = subprocess.Popen([sys.executable, __file__, mode], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json_format.loads(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


class Exporter(asyncio.Protocol):
    """A service's exporter: 6 counters and a histogram of 12 buckets, which has served another request each time."""

    requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio; requests come whole."""
        if data.endswith(b"\r\n\r\n"):
            asyncio.get_running_loop().call_later(ANSWER_AFTER_S, self.answer)

    def answer(self) -> None:
        """One page."""
        Exporter.requests += 1
        self.transport.write(answered(small_page(Exporter.requests)))


class HostExporter(Exporter):
    """The page of a host."""

    def answer(self) -> None:
        """One page."""
        Exporter.requests += 1
        self.transport.write(answered(large_page(Exporter.requests)))


def answered(page: str) -> bytes:
    """The page as an answer over HTTP."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(page)}\r\n\r\n"
    return (head + page).encode()


def small_page(requests: int) -> str:
    """20 samples."""
    codes = ("200", "204", "302", "404", "500", "503")
    bounds = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
    latency = "http_request_duration_seconds"
    return "\n".join(
        [
            "# HELP http_requests_total Requests.",
            "# TYPE http_requests_total counter",
            *(f'http_requests_total{{code="{code}",method="get"}} {requests}' for code in codes),
            f"# HELP {latency} How long they took.",
            f"# TYPE {latency} histogram",
            *(f'{latency}_bucket{{le="{bound}"}} {requests * place}' for place, bound in enumerate(bounds, 1)),
            f"{latency}_sum {requests * 3.5}",
            f"{latency}_count {requests * len(bounds)}",
            "",
        ]
    )


def large_page(requests: int) -> str:
    """As many samples and bytes as a node_exporter has on a machine of 16 cores with some disks."""
    lines = [
        f'node_cpu_seconds_total{{cpu="{cpu}",mode="{mode}",place="rack-{place}"}} {cpu * 17.25 + requests}'
        for place in range(12)
        for cpu in range(16)
        for mode in ("idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user")
    ]
    return "\n".join([*lines, f'promhttp_metric_handler_requests_total{{code="200"}} {requests}', ""])


async def serve(kinds: list[type[Exporter]]) -> None:
    """Prints its ports and serves."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(kind, "127.0.0.1", 0) for kind in kinds]
    print(json_format.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if "--exporters" in sys.argv:
        asyncio.run(serve([Exporter] * SMALL))
    if "--host" in sys.argv:
        asyncio.run(serve([HostExporter]))
    sys.exit(main(json="--json" in sys.argv))
