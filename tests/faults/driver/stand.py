"""Everything of one run: broker, workers, archive, simulated fleet and guests, in a folder with their logs."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

from infra.local.children import Child, fleetbeat, unready
from infra.local.figures import total
from infra.oracle.agreement import await_agreement
from infra.oracle.judge import Verdict
from infra.oracle.ledger import read_beats, read_ledger
from infra.oracle.objectives import read_promises
from infra.oracle.sources import Sql, UnavailableError
from tests.faults.driver.guests import Guests
from tests.faults.driver.processes import DoomedWorker, Keeper
from tests.faults.driver.proxy import FarKafka, Proxy
from tests.faults.driver.verdict import Balance, Evidence, balance, judge_run
from tests.faults.driver.views import ManyViews, many
from tests.faults.driver.witness import Witness
from tests.integration.worker_process import Promise, WorkerProcess, eventually, probe_result, write_objectives
from tests.ports import free_port

PARTITIONS = 4
SCRIPT = Path(__file__).with_name("fleet.yaml")
# After a storm at half its capacity a worker has as much to catch up as the storm has lasted.
READY_S = 300.0
SETTLE_S = 90.0
AGREE_S = 90.0
MEMORY_MB = 1_500
PROMISES = (
    Promise("all"),
    Promise("fast", latency_us_le=60_000),
    Promise("checkout", {"service": "checkout"}),
    Promise("pay-in-europe", {"endpoint": "/pay", "region": "eu-1"}, 90_000),
    Promise("search-by-tcp", {"service": "search", "kind": "tcp"}, 50_000),
    Promise("login", {"service": "login"}),
    Promise("canary", {"service": "canary"}),
)


@dataclass(frozen=True, slots=True)
class Form:
    """How a run is made: what the fleet sends (a heartbeat of each node every second), and for how long it goes on.

    `visible_s` is how soon after healing a fresh event must be in the views: on a machine that does nothing else.
    """

    nodes: int = 300
    results_per_s: int = 3_000
    long: bool = True
    visible_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict in figures, and everything that is wrong as sentences."""

    events: int
    balance: Balance
    faults: tuple[str, ...]


class Stand:
    """Starts broker, topics and archive on entry, and ends everything on exit. `rng` draws what the seed decides."""

    promises: tuple[Promise, ...] = PROMISES

    def __init__(self, folder: Path, seed: int, form: Form, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.rng = Random(seed)
        self.long = form.long
        self.say = say
        self.kills = 0
        self.unreadable_pages = 0
        self.workers: dict[str, DoomedWorker] = {}
        self.faults: list[str] = []
        self.broker = FarKafka(folder, port=free_port(), heap_mb=512)
        self._form = form
        self._ledger = folder / "ledger"
        self._fleet: Child | None = None
        self._cleanup = contextlib.ExitStack()
        self._kept: set[str] = set()
        self._canaries = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(self.broker)
            self._run("topics", "apply", "--brokers", self.brokers, "--partitions", str(PARTITIONS), "--local")
            self.objectives = write_objectives(self.folder / "slos.yaml", self.promises)
            self.guests = Guests(self.brokers)
            self._sql_port, self._status_port = free_port(), free_port()
            self.start_archive()
            cleanup.callback(lambda: _end(self._archive))
            cleanup.callback(self._end_processes)
            self.witness = cleanup.enter_context(Witness(self._running))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._keep_last_answers()
        self._cleanup.close()

    def _keep_last_answers(self) -> None:
        """What every worker said at the end, for whoever looks into a failure."""
        for name, url in self._running():
            for path in ("/-/ready", "/api/v1/slos", "/metrics"):
                answer = self.workers[name].get(path)
                place = self.folder / f"{name}{path.replace('/', '-')}.txt"
                place.write_text(f"{url}{path} {answer[0]}\n{answer[1]}\n", encoding="utf-8")

    def _end_processes(self) -> None:
        for worker in self.workers.values():
            worker.__exit__()
        if self._fleet is not None:
            _end(self._fleet)

    @property
    def brokers(self) -> str:
        return self.broker.bootstrap

    def worker(self, name: str = "worker", *options: str, brokers: str | None = None) -> DoomedWorker:
        """One that is not started yet; `brokers` when it does not reach them in the usual way."""
        known = brokers or self.brokers
        self.workers[name] = DoomedWorker(known, self.folder, self.objectives, name, options=options)
        return self.workers[name]

    def proxy(self) -> Proxy:
        """Another way to the broker, until the end; to be called once."""
        return self._cleanup.enter_context(Proxy(self.broker.proxy_port, self.broker.far_port))

    def start_fleet(self) -> None:
        """Sends until the run is judged."""
        command = fleetbeat(
            *("simulate", "--brokers", self.brokers, "--script", SCRIPT, "--ledger", self._ledger),
            *("--nodes", str(self._form.nodes), "--rate", str(self._form.results_per_s), "--interval", "1"),
            *("--seed", str(self.rng.randrange(1 << 32))),
        )
        self._fleet = Child("fleet", command, self.folder / "fleet.log", grace_s=60)

    def kill(self, worker: WorkerProcess) -> None:
        worker.kill()
        self.kills += 1

    def results_stored(self) -> int:
        """Probe results in ClickHouse since the archive was started."""
        return total(self._archive_figures(), 'fleetbeat_archive_rows_total{topic="probe-results"}')

    def pause_broker(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        os.kill(self.broker.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.broker.pid, signal.SIGCONT)

    def some_time(self, least_s: float, most_s: float) -> None:
        """Lets everything run for a while that the seed decides."""
        time.sleep(self.rng.uniform(least_s, most_s))

    def await_fresh(self) -> float:
        """Seconds from now until every worker is ready and an event sent after that is visible in the views."""
        begun = time.monotonic()
        for worker in self.workers.values():
            if worker.wanted:
                eventually(partial(self._is_ready, worker), f"readiness of {worker.name}", READY_S)
        ready = time.monotonic()
        self.send_canary()
        eventually(lambda: self._canaries_seen() >= self._canaries, "fresh event in the views", READY_S)
        visible = time.monotonic()
        if visible - ready > self._form.visible_s:
            self.faults.append(
                f"a fresh event was visible after {visible - ready:.1f} s; expected {self._form.visible_s:.0f}"
            )
        return visible - begun

    def keep(self, worker: DoomedWorker) -> None:
        """From now on it is started again when it ends by itself; else that is a failure."""
        self._kept.add(worker.name)
        self._cleanup.enter_context(Keeper(worker, self.say))

    def _is_ready(self, worker: DoomedWorker) -> bool:
        if worker.is_lost and worker.name not in self._kept:
            raise worker.child.ended()
        return worker.get("/-/ready")[0] == 200

    def send_canary(self) -> None:
        """One event of the SLO `canary`."""
        self.guests.send(probe_result(node_id="canary", service="canary", seq=self._canaries))
        self._canaries += 1

    def judge(self) -> Judgement:
        """Ends fleet and guests, waits until nothing lags, and asks the oracle. Raises InfraError, AssertionError."""
        self._end_fleet()
        self.guests.flush()
        eventually(self._settled, "end of the lag", SETTLE_S)
        evidence = self._evidence()
        verdict = await_agreement(partial(judge_run, evidence), self._expect_alive, AGREE_S)
        self.faults += verdict.mismatches or ([] if verdict.agree else ["no slice could be compared"])
        self.faults += [f"a stale answer: {lie}" for lie in self.witness.lies(evidence.sql)[:5]]
        self._look_at_processes()
        return Judgement(evidence.ledger.events, self._balance(evidence, verdict), tuple(self.faults))

    def _end_fleet(self) -> None:
        assert self._fleet is not None, "the scenario has started no fleet"
        if self._fleet.poll() is not None or self._fleet.stop() != 0:
            raise self._fleet.ended()

    @staticmethod
    def _balance(evidence: Evidence, verdict: Verdict) -> Balance:
        try:
            return balance(evidence, verdict)
        except UnavailableError:
            return Balance(verdict.missing, verdict.doubled)

    def _evidence(self) -> Evidence:
        ledger = self.guests.join(read_ledger(self._ledger))
        beats, promises = read_beats(self._ledger), read_promises(self.objectives)
        return Evidence(ledger, promises, self.guests.sent, beats, self._views(), Sql(self._sql))

    def _look_at_processes(self) -> None:
        alive = self._alive()
        for name, expected in (
            ("fleetbeat_missing_offsets_total", 0),
            ("fleetbeat_unreadable_pages_total", self.unreadable_pages),
        ):
            found = sum(worker.metric(name) for worker in alive)
            if found != expected:
                self.faults.append(f"{name} is {found}; expected {expected}")
        for worker in alive:
            if worker.peak_mb() > MEMORY_MB:
                self.faults.append(f"{worker.name} held {worker.peak_mb()} MB; expected at most {MEMORY_MB}")

    def _settled(self) -> bool:
        if any(worker.get("/-/ready")[0] != 200 for worker in self._alive()):
            return False
        lag = sum(worker.metric("fleetbeat_consumer_lag_records") for worker in self._alive())
        return lag == 0 and self._archive_lag() == 0

    def _archive_lag(self) -> int | None:
        """Records in Kafka or in its hands that it has not stored; None when it does not say."""
        try:
            figures = self._archive_figures()
        except OSError:
            return None
        return sum(total(figures, f"fleetbeat_archive_{name}_records") for name in ("lag", "buffered"))

    def _archive_figures(self) -> str:
        with urllib.request.urlopen(f"{self._archive_url}/metrics", timeout=5) as answer:  # noqa: S310 - http, ours
            return str(answer.read(), "utf-8")

    def _alive(self) -> list[DoomedWorker]:
        return [worker for worker in self.workers.values() if worker.runs]

    def _running(self) -> list[tuple[str, str]]:
        return [(worker.name, worker.url) for worker in list(self.workers.values()) if worker.runs]

    def _views(self) -> ManyViews:
        return many([url for _, url in self._running()])

    def _canaries_seen(self) -> int:
        try:
            return self._views().sums("canary")[-1].total
        except UnavailableError:
            return -1

    def _expect_alive(self) -> None:
        for worker in self.workers.values():
            if worker.is_lost:
                raise worker.child.ended()
        if self._archive.poll() is not None:
            raise self._archive.ended()

    def kill_archive(self) -> None:
        _end(self._archive)
        self.kills += 1

    def start_archive(self) -> None:
        """And waits until it is ready."""
        sql, status = self._sql_port, self._status_port
        self._sql = f"http://127.0.0.1:{sql}"
        command = fleetbeat(
            *("archive", "--brokers", self.brokers, "--store", self.folder / "store"),
            *("--listen", f"127.0.0.1:{sql}", "--metrics", f"127.0.0.1:{status}"),
        )
        self._archive = Child("archive", command, self.folder / "archive.log")
        self._archive_url = f"http://127.0.0.1:{status}"
        self._archive.await_ready(lambda: unready(f"{self._archive_url}/-/ready"), READY_S)

    def _run(self, *arguments: str) -> None:
        with (self.folder / "topics.log").open("wb") as log:
            subprocess.run(fleetbeat(*arguments), stdout=log, stderr=log, check=True)


def _end(child: Child) -> None:
    child.kill()
    eventually(lambda: child.poll() is not None, f"end of {child.name}", READY_S)
