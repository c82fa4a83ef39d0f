"""Tables against raw rows, with a real Kafka, worker and archive: equal, also after a partition's pages were lost."""

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.children import Child, child_environment, fleetbeat
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from streams.state.cluster import Cluster, connected
from streams.state.kept import read_pages
from tests.integration.sql_gateway_client import Server
from tests.integration.worker_process import (
    LATENESS_MS,
    Promise,
    Sender,
    WorkerProcess,
    eventually,
    now_ms,
    probe_result,
    read_log,
)
from tests.ports import free_port

PARTITIONS = 2
PROMISES = (
    Promise("all"),
    Promise("quick", {"service": "service-1"}, 20_000),
    Promise("eu", {"region": "eu-1"}),
    Promise("shop", {"service": "service-0", "kind": "http"}, 1_000),
)
HOUR_MS = 3_600_000
_DAY = """
services:
  - {name: service-0, endpoints: [/a, /b], kinds: [http, tcp], latency_ms: 2, sigma: 0.7, failure_rate: 0.01}
  - {name: service-1, latency_ms: 18}
regions:
  - {name: eu-1, zones: [a, b]}
  - {name: us-1, latency_factor: 1.5}
faults:
  - {at_s: 4, do: cut-off, share: 0.3, region: us-1, back_after_s: 12}
  - {at_s: 9, do: die, count: 5, back_after_s: 20}
late: {share: 0.05, by_s: [2, 30]}
repeat_every_s: 3600
"""


class Archive:
    """`fleetbeat archive` with an embedded store."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = fleetbeat(
            *("archive", "--brokers", brokers, "--store", folder / "store", "--listen", f"127.0.0.1:{self.port}")
        )
        self._log = folder / "archive.log"
        self.child = Child("archive", self._command, self._log, grace_s=30)


@pytest.fixture
def archive(brokers: str, tmp_path: Path) -> Iterator[Archive]:
    running = Archive(brokers, tmp_path)
    yield running
    if running.child.poll() is None:
        running.child.stop()


def ask(*arguments: str) -> tuple[int, str, str]:
    """A command of its own process: status, stdout, stderr."""
    done = subprocess.run(
        fleetbeat(*arguments),
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def reconciled(brokers: str, url: str, *more: str) -> tuple[int, dict[str, Any]]:
    where = ("--brokers", brokers, "--clickhouse", url)
    status, out, said = ask("reconcile", *where, "--wait", "100", "--json", "--minutes", *more)
    assert status in {0, 1}, said
    found: dict[str, Any] = json.loads(out)
    assert found["equal"] == (status == 0)
    return status, found


def past_events(sender: Sender, rng: random.Random, count: int, hours: int) -> None:
    """Results of the last hours, which nodes send only now, and some that are on time."""
    now = now_ms()
    for seq in range(count):
        ago_ms = rng.randrange(2_000) if seq % 3 == 0 else rng.randrange(hours * HOUR_MS)
        sender.send(
            probe_result(
                node_id=f"node-{rng.randrange(20)}",
                seq=seq,
                ts=now - ago_ms,
                service=f"service-{rng.randrange(3)}",
                region=rng.choice(["eu-1", "us-1"]),
                success=rng.random() > 0.1,
                latency_us=int(rng.lognormvariate(9.5, 1)),
            )
        )
    sender.flush()


def tick(sender: Sender, seq: int) -> None:
    """One more event in each partition, so that frontiers seal what came before."""
    for partition in range(PARTITIONS):
        sender.send(probe_result(node_id=f"tick-{partition}", seq=seq, ts=now_ms(), service="tick"), partition)
    sender.flush()


def change(brokers: str, step: Any) -> None:  # noqa: ANN401 - an async function of a cluster
    async def run() -> None:
        async with connected(brokers) as cluster:
            await step(cluster)

    asyncio.run(run())


def lose(brokers: str, partition: int) -> int:
    """Deletes all pages of a partition; how many there were."""
    lost = 0

    async def step(cluster: Cluster) -> None:
        nonlocal lost
        pages = await read_pages(brokers, partition)
        keys = [key for known in pages.keys.values() for key in known]
        await cluster.write(PAGES_TOPIC, [(partition, key, None) for key in keys])
        lost = len(keys)

    change(brokers, step)
    return lost


def saved(brokers: str) -> None:
    """Waits until the worker has saved all that is in slo-partials."""

    async def step(cluster: Cluster) -> None:
        deadline = time.monotonic() + 100
        while True:
            commits, logs = await cluster.commits(), await cluster.logs(PARTIALS, range(PARTITIONS))
            found = {p: commits.get((PARTIALS, p)) for p in logs}
            if all((commit := found[p]) is not None and commit.offset >= log.end for p, log in logs.items()):
                return
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)

    change(brokers, step)


@pytest.mark.kafka
@pytest.mark.long
def test_lost_pages_are_made_anew_and_what_differs_is_named(
    brokers: str, worker: WorkerProcess, archive: Archive, tmp_path: Path, rng: random.Random
) -> None:
    sender, begun_s = Sender(brokers), time.monotonic()
    past_events(sender, rng, 600, hours=5)
    eventually(lambda: time.monotonic() - begun_s > (LATENESS_MS + 3_000) / 1_000, "lateness")
    tick(sender, 0)
    eventually(lambda: worker.metric("fleetbeat_rollup_events_total") >= 602, "602 events")
    saved(brokers)
    status, found = reconciled(brokers, archive.url, "--from", "-6h")
    assert (status, found["differences"]) == (0, [])
    assert found["compared"]["1h"] > 8
    assert found["compared"]["1m"] > 300

    assert worker.stop() == 0
    assert lose(brokers, 0) > 4
    status, found = reconciled(brokers, archive.url, "--from", "-6h")
    assert (status, list(found["lost"])) == (1, ["0"])
    tick(sender, 1)  # in no table yet
    rebuild = ("state", "rebuild", "--brokers", brokers, "--clickhouse", archive.url, "--yes")
    status, _, said = ask(*rebuild, "--partition", "1")
    assert (status, "partition 1 has good pages" in said) == (1, True), said
    status, out, said = ask(*rebuild)
    assert (status, "nothing is lost" in out) == (0, True), said
    status, found = reconciled(brokers, archive.url, "--from", "-6h")
    assert (status, found["differences"], found["lost"]) == (0, [], {})

    worker.start().await_ready()
    status, _, said = ask(*rebuild, "--force")
    assert (status, "has 1 members" in said) == (1, True), said
    past_events(sender, rng, 200, hours=5)
    begun_s = time.monotonic()
    eventually(lambda: time.monotonic() - begun_s > (LATENESS_MS + 3_000) / 1_000, "lateness")
    tick(sender, 2)
    saved(brokers)
    status, found = reconciled(brokers, archive.url, "--from", "-6h")
    assert (status, found["differences"], found["lost"]) == (0, [], {})

    archive.child.stop()
    names_a_missing_row(brokers, tmp_path, sender)


def names_a_missing_row(brokers: str, folder: Path, sender: Sender) -> None:
    """The control: one row less in the store, which nobody else holds any more."""
    (victim,) = [each for each in read_log(brokers) if each.partition == 0 and each.offset == 7]
    event = sender.events[victim.value or b""]
    server = Server(folder)
    try:
        sql = "DELETE FROM telemetry.probe_results WHERE kafka_partition = 0 AND kafka_offset = 7"
        server.tell("run " + json.dumps(sql))
        status, found = reconciled(brokers, f"http://{server.address}", "--from", "-6h")
    finally:
        server.stop()
    assert status == 1, (event, found)
    hour_s = event.ts // HOUR_MS * 3_600
    totals = [each for each in found["differences"] if each["field"] == "total"]
    hours = {each["series"].split("@")[0]: each for each in totals if each["tier"] == "1h"}
    assert ("slo:all" in hours) == (hour_s + 3_600 <= found["spans"]["1h"]["end_s"])
    assert all((each["stream"] - each["raw"], each["start_s"]) == (1, hour_s) for each in hours.values())
    minutes = {(each["start_s"], each["stream"] - each["raw"]) for each in totals if each["tier"] == "1m"}
    assert minutes == {(event.ts // 60_000 * 60, 1)}


@pytest.mark.kafka
@pytest.mark.long
def test_a_day_with_late_and_spooled_events(
    brokers: str, worker: WorkerProcess, archive: Archive, tmp_path: Path, rng: random.Random
) -> None:
    """Some of each hour of a day as it comes after an outage, then some live; nodes spool, die, and send late."""
    script = tmp_path / "day.yaml"
    script.write_text(_DAY)
    seed, fleet = str(rng.randrange(1 << 31)), ("simulate", "--brokers", brokers, "--script", str(script))
    begin_ms = now_ms() - 25 * HOUR_MS
    stretch = ("--nodes", "120", "--rate", "50", "--duration", "60", "--unpaced", "--seed", seed)
    for hour in range(25):  # a minute of each: a whole day takes the fleet ten
        status, _, said = ask(*fleet, *stretch, "--start-ms", str(begin_ms + hour * HOUR_MS))
        assert status == 0, said
    status, _, said = ask(*fleet, "--nodes", "120", "--rate", "200", "--duration", "40")
    assert status == 0, said
    sender, sent = Sender(brokers), len(read_log(brokers))
    assert sent > 70_000
    eventually(lambda: worker.metric("fleetbeat_rollup_events_total") >= sent, "all of the day", 1_000)
    tick(sender, 0)
    saved(brokers)
    since = ("--from", "-26h")
    status, found = reconciled(brokers, archive.url, *since)
    assert (status, found["differences"]) == (0, [])
    assert found["spans"]["1h"]["end_s"] - found["spans"]["1h"]["start_s"] >= 25 * 3_600
    assert found["compared"]["1h"] > 24 * 3
    late = worker.metric("fleetbeat_rollup_late_events_total")
    assert late > 70_000

    assert worker.stop() == 0
    for partition in range(PARTITIONS):
        assert lose(brokers, partition) > 4
        status, found = reconciled(brokers, archive.url, *since)
        assert (status, list(found["lost"])) == (1, [str(partition)])
        status, out, said = ask("state", "rebuild", "--brokers", brokers, "--clickhouse", archive.url, "--yes")
        assert (status, "nothing is lost" in out) == (0, True), said
        status, found = reconciled(brokers, archive.url, *since)
        assert (status, found["differences"], found["lost"]) == (0, [], {})
    worker.start().await_ready()
    status, _, said = ask(*fleet, "--nodes", "120", "--rate", "200", "--duration", "20")
    assert status == 0, said
    tick(sender, 1)
    saved(brokers)
    status, found = reconciled(brokers, archive.url, *since)
    assert (status, found["differences"], found["lost"]) == (0, [], {})
    archive.child.stop()
