"""Everything of one run about the archive: broker, stores with their archives, simulated fleet and guests."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

from infra.local.children import Child, fleetbeat
from infra.oracle.agreement import await_agreement
from infra.oracle.ledger import read_ledger
from infra.oracle.sources import Sql
from infra.state import LOOPBACK
from tests.clickhouse_server.process import ClickHouseProcess
from tests.clickhouse_server.proxy import FaultProxy
from tests.clickhouse_server.shim import Shim
from tests.faults.driver.archive_verdict import BY_PARTITION, judge_store, log_ends
from tests.faults.driver.archives import ArchiveProcess, FilledStore
from tests.faults.driver.guests import Guests
from tests.faults.driver.proxy import FarKafka
from tests.faults.driver.stand import PARTITIONS, SCRIPT, Form, Judgement
from tests.faults.driver.verdict import Balance
from tests.integration.worker_process import eventually, probe_result
from tests.ports import free_port

FRESH_S = 400.0
AGREE_S = 400.0
SERVER_MB, EMBEDDED_MB = 700, 2_000
CANARIES = "SELECT count() FROM telemetry.probe_results WHERE node_id = 'canary'"


class ArchiveStand:
    """Starts broker and topics on entry, and ends everything on exit. `rng` draws what the seed decides."""

    def __init__(self, folder: Path, seed: int, form: Form, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.rng = Random(seed)
        self.long = form.long
        self.say = say
        self.kills = 0
        self.faults: list[str] = []
        self.broker = FarKafka(folder, port=free_port(), heap_mb=512)
        self.stores: list[FilledStore] = []
        self.controls: list[FilledStore] = []
        self._form = form
        self._ledger = folder / "ledger"
        self._fleet: Child | None = None
        self._cleanup = contextlib.ExitStack()
        self._canaries = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(self.broker)
            with (self.folder / "topics.log").open("wb") as log:
                arguments = ("topics", "apply", "--brokers", self.brokers, "--partitions", str(PARTITIONS), "--local")
                subprocess.run(fleetbeat(*arguments), stdout=log, stderr=log, check=True)
            self.guests = Guests(self.brokers)
            cleanup.callback(self._end_fleet)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def brokers(self) -> str:
        return self.broker.bootstrap

    def embedded(self, name: str = "embedded", *options: str, control: bool = False) -> FilledStore:
        """A store of its own and its archive, which is not started yet; `control`: it lacks a rule, and must fail."""
        folder = self._folder(name)
        shim = Shim(folder)
        port = free_port()
        where: list[str | Path] = ["--store", folder / "store", "--listen", f"{LOOPBACK}:{port}"]
        archive = self._archive(name, name, [*where, *options], shim)
        store = FilledStore(name, (archive,), Sql(f"http://{LOOPBACK}:{port}"))
        (self.controls if control else self.stores).append(store)
        return store

    def server(self, archives: int, *options: str) -> "ServedStore":
        """A server behind a proxy, and archives that share it."""
        folder = self._folder("server")
        clickhouse = self._cleanup.enter_context(ClickHouseProcess(folder, Shim(folder)))
        proxy = self._cleanup.enter_context(FaultProxy(clickhouse.port))
        where = ["--clickhouse", f"{proxy.url}/telemetry"]
        names = [f"archive-{number}" for number in range(1, archives + 1)]
        found = tuple(self._archive("server", name, [*where, *options], None) for name in names)
        store = FilledStore("server", found, clickhouse.sql)
        self.stores.append(store)
        return ServedStore(store, clickhouse, proxy)

    def start_fleet(self) -> None:
        """Sends until the run is judged."""
        command = fleetbeat(
            *("simulate", "--brokers", self.brokers, "--script", SCRIPT, "--ledger", self._ledger),
            *("--nodes", str(self._form.nodes), "--rate", str(self._form.results_per_s), "--interval", "1"),
            *("--seed", str(self.rng.randrange(1 << 32))),
        )
        self._fleet = Child("fleet", command, self.folder / "fleet.log", grace_s=60)

    def some_time(self, least_s: float, most_s: float) -> None:
        """Lets everything run for a while that the seed decides."""
        time.sleep(self.rng.uniform(least_s, most_s))

    def kill(self, archive: ArchiveProcess) -> None:
        archive.kill()
        self.kills += 1

    def await_fresh(self) -> float:
        """Seconds until an event sent now is in every store."""
        begun = time.monotonic()
        self.guests.send(probe_result(node_id="canary", service="canary", seq=self._canaries))
        self._canaries += 1
        for store in self.stores:
            eventually(partial(self._has_canaries, store), f"fresh event in {store.name}", FRESH_S)
        return time.monotonic() - begun

    def _has_canaries(self, store: FilledStore) -> bool:
        self._expect_alive()
        return store.number(CANARIES) >= self._canaries

    def judge(self) -> Judgement:
        """Ends fleet and guests and asks the oracle. Raises InfraError, AssertionError."""
        assert self._fleet is not None, "the scenario has started no fleet"
        if self._fleet.poll() is not None or self._fleet.stop() != 0:
            raise self._fleet.ended()
        self.guests.flush()
        ledger, ends = self.guests.join(read_ledger(self._ledger)), log_ends(self.brokers)
        missing = doubled = 0
        for store in self.stores:
            judge = partial(judge_store, store.name, store.sql, ledger, self.guests.sent, ends)
            verdict = await_agreement(judge, self._expect_alive, AGREE_S)
            self.faults += verdict.mismatches
            missing, doubled = missing + verdict.missing, doubled + verdict.doubled
        self.faults += [fault for store in self.controls if (fault := self._judge_control(store, ends))]
        self._look_at_processes()
        return Judgement(ledger.events, Balance(missing, doubled), tuple(self.faults))

    def _judge_control(self, store: FilledStore, ends: dict[str, int]) -> str | None:
        """What speaks against a control: that it was exact."""
        distinct = f"SELECT sum(offsets) FROM ({BY_PARTITION.format(table='probe_results')})"  # noqa: S608 - our own names
        ends_of = "SELECT max(kafka_offset) + 1 AS e FROM telemetry.probe_results GROUP BY kafka_partition"
        last = f"SELECT sum(e) FROM ({ends_of})"  # noqa: S608 - our own names
        eventually(lambda: store.number(last) == ends["probe-results"], f"last record in {store.name}", AGREE_S)
        rows, offsets = store.number("SELECT count() FROM telemetry.probe_results"), store.number(distinct)
        self.say(f"  control {store.name}: {rows} rows of {offsets} offsets, the log has {ends['probe-results']}")
        if rows == offsets == ends["probe-results"]:
            return f"the control {store.name} was exact: this run shows nothing"
        return None

    def _look_at_processes(self) -> None:
        for store in self.stores:
            for archive in store.archives:
                cap, peak = EMBEDDED_MB if store.name == "embedded" else SERVER_MB, archive.peak_mb()
                self.say(f"  {archive.name} held {peak} MB at most")
                if peak > cap:
                    self.faults.append(f"{archive.name} held {peak} MB; expected at most {cap}")
                lost = archive.metric("fleetbeat_archive_lost_records_total")
                if lost:
                    self.faults.append(f"{archive.name} says that {lost} records were lost")

    def _archive(self, group: str, name: str, options: list[str | Path], shim: Shim | None) -> ArchiveProcess:
        given: list[str | Path] = ["--brokers", self.brokers, "--group", f"archive-{group}", *options]
        archive = ArchiveProcess(name, self.folder, given, shim)
        self._cleanup.callback(archive.end)
        return archive

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _expect_alive(self) -> None:
        """Raises what an archive that ended by itself has said."""
        for store in [*self.stores, *self.controls]:
            for archive in store.archives:
                if archive.wanted and not archive.runs:
                    raise archive.child.ended()

    def _end_fleet(self) -> None:
        if self._fleet is not None:
            self._fleet.kill()


class ServedStore:
    """A store on a server: the server, and the network before it."""

    def __init__(self, store: FilledStore, clickhouse: ClickHouseProcess, proxy: FaultProxy) -> None:
        self.store = store
        self.clickhouse = clickhouse
        self.proxy = proxy
