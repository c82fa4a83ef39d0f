"""Our worker beside its peers: one topic, the same records, and from all of them the same windows.

Windows of 60 s every 10 s for each (service, endpoint): total, good, sum_us and a log-bucket histogram. Every
contestant is a process that reads the topic from its beginning on the same broker, one after the other, with its state
made durable; what is compared are all integers of all windows, as each has them in Kafka afterwards, with an offline
recompute. The slower ones get fewer of the records: their fill comes first. A rate is what is counted between the first
and the last tenth.
`fleetbeat bench peers --json` prints only the last line; as a file it takes `--small` and names of contestants.
"""

import asyncio
import json as json_format
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from infra import InfraError
from infra.kafka import LocalKafka
from infra.local.children import Child
from infra.state import pick_port
from infra.topics import run_apply
from schemas.catalog import load_topic
from tests.bench.contest import changelogs
from tests.bench.contest.environments import PEERS, kafka_streams, quix_python
from tests.bench.contest.racing import SOURCE, Race, ceiling, told_by, watch
from tests.bench.contest.traffic import Fill, Traffic, some_pairs
from tests.bench.contest.windows import Windows, bounds, difference
from tests.bench.contest.worker import Contestant, from_pages, of_pairs

PARTITIONS = 12
SCORED, BESIDE = 1_000, 20
OURS = "fleetbeat"
# From the slowest to the fastest: each fill comes on top of those before it.
FILLS = {
    "plain_faust": Fill(300, 8),
    "quix": Fill(2_500, 8),
    "kafka_streams": Fill(30_000, 8),
    OURS: Fill(100_000, 10),
}
SMALL = {"plain_faust": Fill(50, 6), "quix": Fill(400, 6), "kafka_streams": Fill(3_000, 6), OURS: Fill(40_000, 10)}
OBJECTIVES = 20
NOT_RUN = "could not run"
STREAM_THREADS, STREAM_COMMIT_MS = 2, 2_000
FLOORS = {"events_per_s": 150_000, "kafka_streams": 3, "quix": 5, "plain_faust": 100, "bare_client": 0.25}
_say = Console(stderr=True).print


@dataclass(frozen=True, slots=True)
class Contest:
    """All races over one number of series."""

    series: int
    races: dict[str, Race]
    differences: dict[str, str]
    acknowledged_after_s: float

    def ratio(self, name: str) -> float:
        return self.races[OURS].events_per_s / self.races[name].events_per_s


@dataclass(frozen=True, slots=True)
class Arena:
    """A broker with the topic, and a folder."""

    brokers: str
    folder: Path

    def peer(
        self, name: str, command: Sequence[str | Path], *more: str, events: int
    ) -> tuple[Race, list[changelogs.Record]]:
        """Runs one of the programs, stops it in good order, and reads its changelog."""
        group, progress, limits = f"{name}-peer", self.folder / f"{name}.progress", self.folder / "bounds.json"
        limits.write_text(json_format.dumps(bounds()))
        arguments = [self.brokers, group, _schema(self.folder), self.folder / f"{name}-state", progress, *more]
        child = Child(name, [*command, *arguments], self.folder / f"{name}.log", grace_s=90)
        try:
            race = watch(child, events, lambda: told_by(progress))
        finally:
            child.stop()
        asyncio.run(changelogs.require_committed(self.brokers, group, PARTITIONS))
        return race, asyncio.run(changelogs.latest(self.brokers, group, PARTITIONS))


def main(*, json: bool = False, small: bool = False, only: Sequence[str] = ()) -> int:
    """0 when all could run; the last line is the result as JSON."""
    contests = [contest(series, SMALL if small else FILLS, only) for series in (SCORED, BESIDE)]
    if not json:
        _show(contests)
    print(json_format.dumps(result(*contests)))
    return 1 if any(text.startswith(NOT_RUN) for one in contests for text in one.differences.values()) else 0


def contest(series: int, fills: dict[str, Fill], only: Sequence[str] = ()) -> Contest:
    """Everybody, one after the other, on one broker."""
    races: dict[str, Race] = {}
    differences: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalKafka(folder, port=pick_port(None, None, "the benchmark")) as kafka:
            with redirect_stdout(sys.stderr):
                run_apply(kafka.bootstrap, PARTITIONS, local=True)
            arena, traffic = Arena(kafka.bootstrap, folder), Traffic(kafka.bootstrap, folder, series)
            for peer, fill in fills.items():
                _say(f"{series:,} series: {fill.seconds} s of {fill.rate_per_s:,} probe results/s for {peer}")
                traffic.send(fill)
                if peer == OURS or (only and peer not in only):
                    continue
                try:
                    races[peer], found = RUNNERS[peer](arena, traffic.events)
                    differences[peer] = difference(traffic.expected(), found)
                except (RuntimeError, InfraError) as failure:  # the others go on
                    differences[peer] = f"{NOT_RUN}: {failure}"
                _say(f"{peer}: {races.get(peer)} {differences[peer] or 'equal'}")
            _say(f"{series:,} series, {traffic.events:,} events: {OURS} and the bare client")
            expected = traffic.expected()
            pairs = some_pairs(expected, OBJECTIVES)
            races[OURS], after_s, shown = Contestant(kafka.bootstrap, folder, pairs).run(traffic.events)
            differences[OURS] = difference(expected, from_pages(kafka.bootstrap, PARTITIONS))
            differences["views"] = "" if shown.equals(of_pairs(expected, pairs)) else f"views show {shown}"
            races["bare_client"] = ceiling(kafka.bootstrap, PARTITIONS, traffic.events)
            _say(
                f"{OURS}: {races[OURS]} {differences[OURS] or f'{expected.count} windows equal'} {differences['views']}"
            )
            _say(f"bare client: {races['bare_client']}")
    return Contest(series, races, differences, after_s)


def run_faust(arena: Arena, events: int) -> tuple[Race, Windows]:
    command = [sys.executable, "-P", PEERS / "faust_peer.py"]
    more = (str(arena.folder / "bounds.json"), str(PARTITIONS))
    race, records = arena.peer("plain-faust", command, *more, events=events)
    return race, changelogs.faust(records)


def run_quix(arena: Arena, events: int) -> tuple[Race, Windows]:
    command = [quix_python(), "-P", PEERS / "quix_peer.py"]
    race, records = arena.peer("quix", command, str(arena.folder / "bounds.json"), events=events)
    return race, changelogs.quix(records)


def run_kafka_streams(arena: Arena, events: int) -> tuple[Race, Windows]:
    more = (str(STREAM_THREADS), str(STREAM_COMMIT_MS))
    race, records = arena.peer("kafka-streams", kafka_streams(), *more, events=events)
    return race, changelogs.kafka_streams(records)


RUNNERS: dict[str, Callable[[Arena, int], tuple[Race, Windows]]] = {
    "plain_faust": run_faust,
    "quix": run_quix,
    "kafka_streams": run_kafka_streams,
}


def result(scored: Contest, beside: Contest) -> dict[str, Any]:
    """The last line."""
    rate = scored.races[OURS].events_per_s
    rivals = [name for name in (*RUNNERS, "bare_client") if name in scored.races and name in beside.races]
    ratios = {name: round(scored.ratio(name), 2) for name in rivals}
    equal = not any((*scored.differences.values(), *beside.differences.values()))
    return {
        "name": "peers",
        "figures": {
            "series": scored.series,
            "equal": equal,
            "acknowledged_after_s": round(scored.acknowledged_after_s, 2),
            **{name: _figures(race) for name, race in scored.races.items()},
            f"at_{beside.series}_series": {name: _figures(race) for name, race in beside.races.items()},
            f"ratios_at_{beside.series}_series": {name: round(beside.ratio(name), 2) for name in rivals},
        },
        "ratios": ratios,
        "floors": FLOORS,
        "holds": equal
        and len(rivals) == len(FLOORS) - 1
        and rate >= FLOORS["events_per_s"]
        and all(ratios[name] >= FLOORS[name] for name in rivals),
    }


def _figures(race: Race) -> dict[str, float]:
    return {
        "events": race.events,
        "events_per_s": round(race.events_per_s),
        "cpu_us_per_event": round(race.cpu_us, 2),
    }


def _show(contests: Sequence[Contest]) -> None:
    for one in contests:
        for name, race in one.races.items():
            figures = f"{race.events_per_s:>10,.0f} events/s {race.cpu_us:>9.2f} µs of CPU an event"
            verdict = one.differences.get(name) or f"ours over it {one.ratio(name):,.2f}"
            print(f"{one.series:>6,} series  {name:<14}{figures}  of {race.events:>9,} events  {verdict}")


def _schema(folder: Path) -> Path:
    """The writer's schema of the topic as a file."""
    path = folder / "probe_result.avsc"
    path.write_text(load_topic(SOURCE).latest.text)
    return path


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if not word.startswith("--")]
    sys.exit(main(json="--json" in sys.argv, small="--small" in sys.argv, only=names))
