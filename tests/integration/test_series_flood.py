"""A flood of 2^20 series through a real Kafka into one worker: memory is bounded, and each event is accounted for."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agents.simulate.bodies import Bodies
from agents.simulate.emit import Emitter
from agents.simulate.nodes import name_table
from agents.simulate.rows import BOOT, HEARTBEAT, RESULT, Chunk, Ints, Rows, Series
from streams.core.series import OVERFLOW, SeriesIndex, series_name
from streams.core.slices import SECONDS
from tests.bench.contest.worker import pages_of, table_of
from tests.bench.liveness import memory_mb
from tests.integration.worker_process import Promise, WorkerProcess, eventually, write_objectives

pytestmark = [pytest.mark.kafka, pytest.mark.long]

PARTITIONS = 12
FLOOD = 1 << 20
NODES, KNOWN, KNOWN_PER_S = 120, 200, 4_000
# So long, and a second more, an open slice stays open; then what was known has a name.
SEALED_S = 14
MEMORY_MB = 1_500
# More than there is between two saves.
SETTLED_S = 20.0
PATIENCE_S = 600.0
NAMES = [Series("shop", f"/{number}", "eu", "http") for number in range(KNOWN)]
NAMES += [Series("flood", f"/{number}", "eu", "http") for number in range(FLOOD)]


@dataclass(slots=True)
class Traffic:
    """Sends, and keeps what it sent: RESULT rows, whose `series` are places in NAMES."""

    emitter: Emitter
    rng: np.random.Generator
    sent: list[Rows] = field(default_factory=list)
    seq: int = 0

    async def known(self, seconds: float) -> None:
        """The usual traffic at its usual pace."""
        for _ in range(round(seconds * 10)):
            begun = time.monotonic()
            await self.send(self.rng.integers(0, KNOWN, KNOWN_PER_S // 10))
            await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))

    async def flood(self) -> None:
        """Every other name once, in any order and as fast as Kafka takes them, with some of the usual traffic."""
        for part in np.array_split(KNOWN + self.rng.permutation(FLOOD), 64):
            await self.send(self.rng.permutation(np.concatenate([part, self.rng.integers(0, KNOWN, 400)])))

    async def send(self, series: Ints) -> None:
        rows = np.zeros(len(series), RESULT)
        rows["ts_ms"] = time.time_ns() // 1_000_000
        rows["node"] = self.rng.integers(0, NODES, len(series))
        rows["seq"] = self.seq + np.arange(len(series))
        rows["series"] = series
        rows["latency_us"] = self.rng.integers(1, 1_000_000, len(series))
        rows["success"] = self.rng.random(len(series)) < 0.9
        self.seq += len(series)
        self.sent.append(rows)
        await asyncio.gather(*await self.emitter.send(Chunk(np.empty(0, HEARTBEAT), rows, np.empty(0, BOOT))))


async def send_all(brokers: str) -> Rows:
    """Usual traffic until it has names, then the flood, then usual traffic until all of the flood is sealed."""
    nodes = name_table(NODES)
    bodies = Bodies(nodes, [("eu", "eua")], np.zeros(NODES, np.int64), NAMES, 1_000)
    boot = np.zeros(1, BOOT)
    boot["boot_id"] = b"0123456789abcdef"
    bodies.see(boot)
    async with Emitter(brokers, nodes, bodies, counting=False) as emitter:
        traffic = Traffic(emitter, np.random.default_rng(7))
        await traffic.known(SEALED_S)
        begun = time.monotonic()
        await traffic.flood()
        print(f"{FLOOD} names in {time.monotonic() - begun:.1f} s")
        await traffic.known(SEALED_S)
    return np.concatenate(traffic.sent)


def seconds_kept(brokers: str) -> pl.DataFrame:
    """(name, second, n, good, sum_us) of all sealed and open seconds of plain series, by the worker's state pages."""
    index = SeriesIndex()
    columns = ["start", "series", "good", "n", "sum_us"]
    parts = []
    for partition in range(PARTITIONS):
        table = table_of(asyncio.run(pages_of(brokers, partition)), index)
        parts += [chunk.rows.frame().select(columns) for key, chunk in table.chunks.items() if key[0] == SECONDS.name]
        parts.append(table.open_rows().rename({"slice": "start"}).select(columns))
    names = pl.Series("name", index.names)
    rows = pl.concat([part.cast({"good": pl.Boolean, "n": pl.Int64, "sum_us": pl.Int64}) for part in parts])
    return (
        rows.with_columns(name=names.gather(rows["series"]), good=pl.when("good").then("n").otherwise(0))
        .group_by("name", "start")
        .agg(pl.sum("n", "good", "sum_us"))
        .cast({"start": pl.Int64})
    )


def seconds_sent(rows: Rows) -> pl.DataFrame:
    """The same of what was sent of the known series."""
    known = rows[rows["series"] < KNOWN]
    frame = pl.DataFrame({name: known[name] for name in ("ts_ms", "series", "latency_us", "success")})
    names = pl.Series([series_name(one.service, one.endpoint, one.region, one.kind) for one in NAMES[:KNOWN]])
    return (
        frame.with_columns(name=names.gather(frame["series"]), start=pl.col("ts_ms") // 1_000)
        .group_by("name", "start")
        .agg(n=pl.len(), good=pl.sum("success"), sum_us=pl.col("latency_us").cast(pl.Int64).sum())
        .cast({"n": pl.Int64, "good": pl.Int64})
        .select("name", "start", "n", "good", "sum_us")
    )


def counted(worker: WorkerProcess) -> int:
    return int(worker.told("/api/v1/slos/all").get("windows", [{"total": 0}])[-1]["total"])


def settled(worker: WorkerProcess) -> tuple[int, int, int] | None:
    """Series named, events in the overflow and events left out, once saves do not change them any more."""
    before = told(worker)
    time.sleep(SETTLED_S)
    return before if before[1] and before == told(worker) else None


def told(worker: WorkerProcess) -> tuple[int, int, int]:
    named, overflowed, left_out = (
        worker.metric(f"fleetbeat_series{name}") for name in ("", "_overflow_events_total", "_left_out_events_total")
    )
    return named, overflowed, left_out


@pytest.mark.timeout(1_800)
def test_a_flood_of_names_takes_bounded_memory_and_loses_no_event(brokers: str, tmp_path: Path) -> None:
    objectives = write_objectives(tmp_path / "slos.yaml", [Promise("all"), Promise("shop", {"service": "shop"})])
    with WorkerProcess(brokers, tmp_path, objectives) as worker:
        worker.start().await_ready()
        sent = asyncio.run(send_all(brokers))
        eventually(lambda: counted(worker) >= len(sent), "all events in the objective", PATIENCE_S)
        eventually(lambda: not worker.metric("fleetbeat_consumer_lag_records"), "end of the lag", PATIENCE_S)
        assert counted(worker) == len(sent)  # objectives count everything once, whatever has a name
        named, overflowed, left_out = eventually(lambda: settled(worker), "all of the flood sealed", PATIENCE_S)
        peak_mb = memory_mb(worker)
        worker.stop()
    kept = seconds_kept(brokers)
    print(f"{peak_mb} MB; {named} series named, {overflowed} events in the overflow, {left_out} left out")
    assert peak_mb <= MEMORY_MB
    theirs = kept.join(seconds_sent(sent).select("name").unique(), on="name", how="semi")
    order = ["name", "start"]
    assert theirs.sort(order).equals(seconds_sent(sent).sort(order))  # those that were known are as without a flood
    total = dict(kept.with_columns(whose=pl.col("name").is_in([OVERFLOW])).group_by("whose").agg(pl.sum("n")).rows())
    flood_named = total[False] - int(theirs["n"].sum())
    assert total[True] == overflowed
    assert flood_named + overflowed + left_out == FLOOD  # and each of the flood is in one of three places
    assert 0 < flood_named <= named
