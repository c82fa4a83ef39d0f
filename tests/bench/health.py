"""What it costs to know a host's health, beside polling for it, by processor time.

All look at the same machine, with `HELD` connections open and some that come and go all the time. Ours is what the
agent runs: a window of about a second, a snapshot each second, and the score worked out for a heartbeat every 10 s;
once from /proc alone, once with connections counted in the kernel, where it allows that. Polling is what one writes
first: every 100 ms the states of all connections, memory and processor by psutil, and the same weights. `files` polls
as often for what we read, and opens and understands the same files each time: the least that polling costs. Each runs
in a process of its own, in turns, and its processor time is its own count of it after `SECONDS`; what an event loop or
a sleep costs is in all. The floor is the 92 % of docs/health.md.
`fleetbeat bench health --json` prints only the last line.
"""

import asyncio
import contextlib
import json as json_format
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from agents.clock import SystemClock
from agents.health.kernel_events import KernelEventsError, load
from agents.health.monitor import HealthMonitor
from agents.health.procfs import ProcFiles
from agents.health.score import TcpSecond, health_score, stall_points, tcp_points
from agents.health.window import Snapshot, compare

SECONDS, RUNS = 20, 3
HEARTBEAT_S, POLL_S = 10.0, 0.1
HELD, COMING_AND_GOING_PER_S = 100, 20
FLOOR_SAVED_PERCENT = 92.0


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when the floor does not hold."""
    ways = ["proc", "files", "polling"]
    why_not = None
    try:
        load().close()
        ways.insert(1, "ebpf")
    except KernelEventsError as cause:
        why_not = str(cause)
    spent: dict[str, list[float]] = {way: [] for way in ways}
    with connections():
        for _ in range(RUNS):
            for way in ways:
                spent[way].append(spent_ms_per_s(way))
    median = {way: statistics.median(runs) for way, runs in spent.items()}
    saved = {f"{way}_saved_percent": _saved(median[way], median["polling"]) for way in ours_of(ways)}
    result = {
        "name": "health",
        "figures": {
            **{f"{way}_cpu_ms_per_s": round(ms, 3) for way, ms in median.items()},
            **{f"{way}_cpu_ms_per_s_runs": [round(ms, 3) for ms in sorted(runs)] for way, runs in spent.items()},
            "connections": HELD,
            "ebpf_refused": why_not,
        },
        "ratios": saved
        | {f"{way}_saved_of_files_percent": _saved(median[way], median["files"]) for way in ours_of(ways)},
        "floors": {"saved_percent": FLOOR_SAVED_PERCENT},
        "holds": all(percent >= FLOOR_SAVED_PERCENT for percent in saved.values()),
    }
    if not json:
        for way, ms in median.items():
            print(f"{way:<8} {ms:>8.3f} ms of processor time a second, {ms / 10:.3f} % of a core")
        for name, percent in saved.items():
            print(f"{name:<20} {percent:.2f}")
        if why_not:
            print(f"not in the kernel: {why_not}")
    print(json_format.dumps(result))
    return 0


def ours_of(ways: list[str]) -> list[str]:
    """Those of them that the agent has."""
    return [way for way in ways if way in ("proc", "ebpf")]


def _saved(ours_ms: float, theirs_ms: float) -> float:
    return round(100 * (1 - ours_ms / theirs_ms), 2)


def spent_ms_per_s(way: str) -> float:
    """Processor ms a second of a process that does nothing else."""
    command = [sys.executable, "-P", __file__, "--run", way]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(done.stdout)


async def ours(*, ebpf: bool) -> None:
    """As the agent does it. Raises RuntimeError when the health is not known as it should be."""
    clock = SystemClock()
    monitor = HealthMonitor(ProcFiles(clock.monotonic_s), clock, ebpf=ebpf)
    running = asyncio.create_task(monitor.run())
    await asyncio.sleep(2)
    began_s, spent_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < SECONDS:
        await asyncio.sleep(HEARTBEAT_S)
        health = monitor.health()
        if health.score is None or ("ebpf" in (health.source or "")) is not ebpf:
            raise RuntimeError(f"{health}; expected a score, with ebpf {ebpf}")
    report(spent_s, began_s)
    running.cancel()


def polling() -> None:
    """As one would write it first."""
    psutil.cpu_percent()
    before = states()
    time.sleep(2)
    began_s, spent_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < SECONDS:
        time.sleep(POLL_S)
        now = states()
        new = max(0, now.get("ESTABLISHED", 0) - before.get("ESTABLISHED", 0)) / POLL_S
        ended = max(0, now.get("TIME_WAIT", 0) - before.get("TIME_WAIT", 0)) / POLL_S
        tcp = tcp_points(TcpSecond(new, ended, sent=0, retransmitted=0, accepted=0, dropped=None))
        memory = stall_points(psutil.virtual_memory().percent / 100)
        health_score(tcp, memory, stall_points(psutil.cpu_percent() / 100))
        before = now
    report(spent_s, began_s)


def files() -> None:
    """The same files as ours, opened, read and understood every time."""

    def look() -> Snapshot:
        proc = ProcFiles(time.monotonic)
        try:
            return proc.snapshot()
        finally:
            proc.close()

    before = look()
    time.sleep(2)
    began_s, spent_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < SECONDS:
        time.sleep(POLL_S)
        now = look()
        if compare(before, now).score is None:
            raise RuntimeError(f"{compare(before, now)}; expected a score")
        before = now
    report(spent_s, began_s)


def states() -> dict[str, int]:
    """Connections by state."""
    found: dict[str, int] = {}
    for connection in psutil.net_connections("tcp"):
        found[connection.status] = found.get(connection.status, 0) + 1
    return found


def report(spent_s: float, began_s: float) -> None:
    """Ms of processor time a second since then, on standard output."""
    print((time.process_time() - spent_s) * 1_000 / (time.monotonic() - began_s))


@contextmanager
def connections() -> Iterator[None]:
    """Some that stay, and a thread that opens and closes others."""
    over = threading.Event()
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=HELD))
        for _ in range(HELD):
            held.enter_context(socket.create_connection(server.getsockname()))
            held.enter_context(server.accept()[0])

        def come_and_go() -> None:
            while not over.wait(1 / COMING_AND_GOING_PER_S):
                caller = socket.create_connection(server.getsockname())
                called, _ = server.accept()
                caller.close()
                called.close()

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


if __name__ == "__main__":
    if "--run" in sys.argv:
        way = sys.argv[-1]
        if way in ("files", "polling"):
            {"files": files, "polling": polling}[way]()
        else:
            asyncio.run(ours(ebpf=way == "ebpf"))
        sys.exit(0)
    sys.exit(main(json="--json" in sys.argv))
