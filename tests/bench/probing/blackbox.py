"""Debian's prometheus-blackbox-exporter at the same work, asked for each probe as Prometheus asks it."""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from infra.state import pick_port
from tests.bench.probing.cores import ONE_CORE, Spent, pinned
from tests.bench.probing.measure import Flat, Paced, Plan
from tests.bench.probing.ours import FLAT_TARGETS
from tests.bench.probing.targets import Targets

PROGRAMS = ("prometheus-blackbox-exporter", "blackbox_exporter")
# The same check as ours: any 2xx within the timeout.
MODULES = "modules: {http_2xx: {prober: http, timeout: 5s, http: {preferred_ip_protocol: ip4}}}"
START_S = 60
SUCCESS, DURATION = b"\nprobe_success 1\n", re.compile(rb"^probe_duration_seconds (\S+)$", re.MULTILINE)


def find_blackbox() -> str | None:
    """The program, when it is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass(frozen=True, slots=True)
class Blackbox:
    """The exporter; a process of its own for each run."""

    program: str
    folder: Path

    def flat_out(self, targets: Targets, plan: Plan) -> Flat:
        """As many probes as one core makes, asked over `at_once` connections that are kept."""
        with self._exporter() as (process, port):
            return asyncio.run(_flat_out(process.pid, port, targets, plan))

    def paced(self, targets: Targets, plan: Plan) -> Paced:
        """So many probes a second, each target once a second."""
        with self._exporter() as (process, port):
            latencies_us, cores = asyncio.run(_paced(process.pid, port, targets, plan))
        return Paced.of(latencies_us, targets.tell(), cores)

    @contextmanager
    def _exporter(self) -> Iterator["tuple[subprocess.Popen[bytes], int]"]:
        config = self.folder / "blackbox.yml"
        config.write_text(MODULES, encoding="utf-8")
        port = pick_port(None, None, "blackbox_exporter")
        command = [self.program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        with pinned(ONE_CORE), (self.folder / "blackbox.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--log.level=error"], env={**os.environ, "GOMAXPROCS": "1"}, stdout=log, stderr=log
            )
        try:
            yield process, port
        finally:
            process.kill()
            process.wait()


async def _flat_out(pid: int, port: int, targets: Targets, plan: Plan) -> Flat:
    numbers = count()
    done: Counter[bool] = Counter()
    answered = asyncio.Event()

    async def work() -> None:
        asker = await Asker.connected(port)
        for number in numbers:
            up, _ = await asker.ask(targets.url(number % FLAT_TARGETS, 0))
            done[up] += 1
            answered.set()

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(plan.at_once)]
        await asyncio.wait_for(answered.wait(), START_S)
        await asyncio.sleep(plan.warm_s)
        began_s, began, before = time.monotonic(), Spent.by(pid), done.copy()
        await asyncio.sleep(plan.flat_s)
        ended_s, ended, after = time.monotonic(), Spent.by(pid), done.copy()
        for worker in workers:
            worker.cancel()
    made = after - before
    return Flat(made[True], made[False], ended_s - began_s, ended.cpu_s - began.cpu_s, ended.rss_mb)


async def _paced(pid: int, port: int, targets: Targets, plan: Plan) -> tuple[dict[int, list[int]], float]:
    """By target, the durations (µs) that the exporter measured; and its share of a core."""
    free: asyncio.Queue[Asker] = asyncio.Queue()
    for _ in range(plan.at_once):
        free.put_nowait(await Asker.connected(port))
    durations_us: defaultdict[int, list[int]] = defaultdict(list)

    async def one(number: int) -> None:
        asker = await free.get()
        _, duration_s = await asker.ask(targets.url(number, plan.delay_ms))
        durations_us[number].append(round(duration_s * 1e6))
        free.put_nowait(asker)

    began_s = time.monotonic()
    began = Spent.by(pid)
    async with asyncio.TaskGroup() as group:
        for place in range(round(plan.rate_per_s * (plan.warm_s + plan.paced_s))):
            await asyncio.sleep(began_s + place / plan.rate_per_s - time.monotonic())
            group.create_task(one(place % plan.rate_per_s))
    ended = Spent.by(pid)
    return durations_us, (ended.cpu_s - began.cpu_s) / (time.monotonic() - began_s)


@dataclass(frozen=True, slots=True)
class Asker:
    """A kept connection to the exporter."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connected(cls, port: int) -> "Asker":
        """To what may only just have been started."""
        while True:
            try:
                return cls(*await asyncio.open_connection("127.0.0.1", port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)

    async def ask(self, url: str) -> tuple[bool, float]:
        """(whether the exporter found it up, the seconds that it says it took). Raises RuntimeError."""
        self.writer.write(f"GET /probe?module=http_2xx&target={url} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        body = await (self.reader.readexactly(int(length[1])) if length else self._chunks())
        duration = DURATION.search(body)
        if duration is None:
            raise RuntimeError(f"{body[:200]!r}; expected probe_duration_seconds")
        return SUCCESS in body, float(duration[1])

    async def _chunks(self) -> bytes:
        """A chunked body, put together."""
        chunked = b"\r\n" + await self.reader.readuntil(b"\r\n0\r\n\r\n")
        return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", chunked)
