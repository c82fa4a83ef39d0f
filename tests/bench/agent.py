"""What one agent does with one core beside blackbox_exporter, how soon it is of use, and what it costs when idle.

A real `fleetbeat agent` with a spool and a real Kafka has a core to itself and probes 600 web servers on loopback as
fast as it can; then 400 of them, which take 10 ms, once a second each, where what it measures is compared with what
each target says that it took. Debian's prometheus-blackbox-exporter does the same in the same run, asked for each probe
as Prometheus asks it; it only answers, where the agent also brings every result to Kafka. Then cold starts, from exec
until the first heartbeat is in the spool's file, and a minute with ten probes every ten seconds. All of it with
asyncio's own event loop and with uvloop, the beginnings also as a package. Last, `bench scrape`. `fleetbeat bench agent
--json` prints only the last line.
"""

import json as json_format
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.kafka import LocalKafka
from infra.state import pick_port
from infra.topics import run_apply
from tests.bench import scrape
from tests.bench.probing.beginnings import ColdStart, Host, Program, python_alone_ms
from tests.bench.probing.blackbox import Blackbox, find_blackbox
from tests.bench.probing.cores import OTHER_CORES, pinned
from tests.bench.probing.measure import Plan, Prober
from tests.bench.probing.ours import Kafka, Ours, environment
from tests.bench.probing.targets import ROOT, serving

RUNS, STARTS = 3, 15
PEER = "blackbox"
LOOPS = ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",)
# Of the agent as it comes.
FLOORS = {
    "probes_per_core_s": 2_000,
    "to_blackbox": 0.5,
    "cold_start_ms": 500,
    "idle_rss_mb": 60,
    "idle_cpu_percent": 0.5,
    "scrapes_per_s": scrape.FLOOR_SCRAPES_PER_S,
    "scrape_p99_ms": scrape.CEILING_P99_MS,
}
# Made by `make packages`.
PACKED = ROOT / ".fleetbeat" / "packages" / "dist" / "fleetbeat-agent" / "fleetbeat"
_say = Console(stderr=True).print


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON; 0 also when a floor does not hold."""
    with tempfile.TemporaryDirectory() as name, pinned(OTHER_CORES):
        folder = Path(name)
        with LocalKafka(folder / "kafka", port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, 1, local=True)
            probers = race(folder, kafka.bootstrap)
            beginnings = small(folder, kafka.bootstrap)
        _say("scrapes")
        scrapes = scrape.measure()
    figures: dict[str, Any] = {name: prober.figures() for name, prober in probers.items()}
    for name, more in beginnings.items():
        figures[name] = figures.get(name, {}) | more
    figures["scrape"] = scrapes
    result = judge(
        probers, figures | {"python_alone_ms": round(statistics.median(python_alone_ms() for _ in range(9)))}
    )
    if not json:
        show(figures)
    print(json_format.dumps(result))
    return 0


def race(folder: Path, brokers: str) -> dict[str, Prober]:
    """Everybody in turn, run by run, so that a slow minute of the machine is everybody's."""
    plan, program = Plan(), find_blackbox()
    contestants: dict[str, Ours | Blackbox] = {loop: Ours(loop, Kafka(brokers), folder) for loop in LOOPS}
    if program is not None:
        contestants[PEER] = Blackbox(program, folder)
    flat: dict[str, list[Any]] = {name: [] for name in contestants}
    paced: dict[str, list[Any]] = {name: [] for name in contestants}
    for run in range(RUNS):
        for name, contestant in contestants.items():
            with serving() as targets:
                flat[name].append(contestant.flat_out(targets, plan))
            with serving() as targets:
                paced[name].append(contestant.paced(targets, plan))
            _say(f"run {run + 1} of {RUNS}: {name} {flat[name][-1].per_core_s:,.0f} probes for a second of a core")
    return {name: Prober(flat[name], paced[name]) for name in contestants}


def small(folder: Path, brokers: str) -> dict[str, dict[str, Any]]:
    """Cold start and idleness by event loop, and of the packed agent, when there is one."""
    found: dict[str, dict[str, Any]] = {}
    with serving() as targets:
        host = Host(folder, brokers, targets)
        programs = {loop: Program((sys.executable, "-P", "-m", "fleetbeat"), environment(loop)) for loop in LOOPS}
        if PACKED.exists():
            programs["packed"] = Program((str(PACKED),), {})
        starts: dict[str, list[ColdStart]] = {name: [] for name in programs}
        numbers = count()
        for _ in range(STARTS):
            for name, program in programs.items():
                starts[name].append(host.cold_start(program, next(numbers)))
        for name, program in programs.items():
            _say(f"a minute of idleness: {name}")
            found[name] = {
                "cold_start_ms": round(statistics.median(start.wall_ms for start in starts[name])),
                "cold_start_ms_runs": sorted(round(start.wall_ms) for start in starts[name]),
                "cold_start_cpu_ms": round(statistics.median(start.cpu_ms for start in starts[name])),
            } | {f"idle_{field}": value for field, value in asdict(host.idle(program)).items()}
    return found


def judge(probers: dict[str, Prober], figures: dict[str, Any]) -> dict[str, Any]:
    """The last line. Without the peer it does not hold."""
    ours, peer = probers[LOOPS[0]], probers.get(PEER)
    ratios = (
        {}
        if peer is None
        else {
            "to_blackbox": round(ours.per_core_s / peer.per_core_s, 2),
            "overhead_p99_to_blackbox": round(ours.overhead_p99_us / peer.overhead_p99_us, 2),
        }
    )
    own = figures[LOOPS[0]]
    holds = (
        own["down"] == 0
        and own["probes_per_core_s"] >= FLOORS["probes_per_core_s"]
        and ratios.get("to_blackbox", 0) >= FLOORS["to_blackbox"]
        and scrape.result(figures["scrape"])["holds"]
        and all(own[name] <= FLOORS[name] for name in ("cold_start_ms", "idle_rss_mb", "idle_cpu_percent"))
    )
    return {"name": "agent", "figures": figures, "ratios": ratios, "floors": FLOORS, "holds": holds}


def show(figures: dict[str, Any]) -> None:
    """A table: a line a figure, a column for everybody."""
    names = [name for name, found in figures.items() if isinstance(found, dict) and name != "scrape"]
    print(f"{'':<24}" + "".join(f"{name:>12}" for name in names))
    for field in figures[LOOPS[0]]:
        if not field.endswith("_runs"):
            print(f"{field:<24}" + "".join(f"{figures[name].get(field, ''):>12}" for name in names))
    print(f"{'scrapes/s':<24}{figures['scrape']['scrapes_per_s']:>12}, P99 {figures['scrape']['p99_ms']} ms")


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv))
