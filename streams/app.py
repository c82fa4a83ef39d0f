"""The worker's composition root: builds, wires and names everything, and runs it until told to stop."""

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import structlog
from aiohttp import web
from faust.types import TP

from schemas.listen import ListenAddress, parse_listen
from streams import metrics
from streams.config import load_objectives
from streams.core.liveness.admission import Limits
from streams.core.objectives import Objective
from streams.core.series import Judge, SeriesIndex
from streams.engine.app import App, EngineSettings, create_app, raw_schema
from streams.engine.brokers import find_partitions
from streams.engine.changelog import read_changelog
from streams.engine.transport import topic_partitions
from streams.logs import configure_logs
from streams.processors.liveness import LivenessProcessor
from streams.processors.node_queries import NodeQueries
from streams.processors.node_recovery import PAGES_TOPIC as NODE_PAGES
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.node_states import TOPIC as NODE_STATES
from streams.processors.objectives import ObjectivesProcessor
from streams.processors.queries import Completeness, NotHereError, TableQueries
from streams.processors.rollup import SOURCE, RollupProcessor
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from streams.processors.status import StatusPublisher
from streams.views.routes import Health, create_views

STEP_EVERY_S = 0.25
FOLD_EVERY_S = 1.0
SAVE_EVERY_S = 2.0
SAVE_PAUSE_S = 8.0
PUBLISH_EVERY_S = 5.0
# Ready means that a question is answered from events this fresh at most.
READY_LAG_RECORDS = 200_000

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.worker")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `fleetbeat worker` was asked for."""

    brokers: str
    objectives: Path
    listen: str = "127.0.0.1:8080"
    state: Path = Path(".fleetbeat/worker")
    nodes_max: int = 2_500_000
    nodes_new_per_minute: int = 500_000


class CannotStartError(RuntimeError):
    """The machine refuses something that the worker needs, such as a folder or a port."""


class Worker:
    """Everything of one worker process."""

    def __init__(self, options: WorkerOptions, objectives: tuple[Objective, ...], partitions: int) -> None:
        index = SeriesIndex()
        self.app: App = create_app(
            EngineSettings(options.brokers, options.state, partitions),
            batch_topics=frozenset({SOURCE, PARTIALS, HEARTBEATS}),
            raw_topics=frozenset({SOURCE}),
        )
        self._partitions = partitions
        self._rollup = RollupProcessor(self.app, Judge(objectives, index), index, partitions)
        read = partial(read_changelog, options.brokers)
        self._objectives = ObjectivesProcessor(self.app, read, index)
        limits = Limits(
            max_nodes=partition_share(options.nodes_max, partitions),
            new_per_minute=partition_share(options.nodes_new_per_minute, partitions),
        )
        self._liveness = LivenessProcessor(self.app, read, limits)
        self._nodes = NodeQueries(self._liveness, partitions, _now_ms)
        self._queries = TableQueries(objectives, self._objectives, partitions, _now_ms, self.completeness)
        self._status = StatusPublisher(self.app, self._queries)
        self._recovering: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()
        self._wire()
        self.views = create_views(self._queries, self._nodes, self.health)

    def completeness(self) -> Completeness:
        """A source partition is complete up to its frontier in the tables; up to now when nothing of it is pending."""
        now_ms = _now_ms()
        known: dict[int, int] = {}
        for part in self._objectives.parts.values():
            for table in part.tables.values():
                for source, frontier in table.frontiers.copy().items():  # the fold thread adds to it
                    known[source] = min(known.get(source, frontier), frontier)
        complete = [now_ms if self._caught_up(p) else known.get(p, 0) for p in range(self._partitions)]
        lowest = min(complete, default=0)
        return Completeness(lowest, now_ms - lowest if lowest else -1)

    def health(self) -> Health:
        """Ready when the tables are recovered and the lag is small."""
        if self._failure is not None:
            return Health(ready=False, reason=f"failed: {self._failure}")
        for holds, reason in (
            (self._objectives.recovered, "the tables are being recovered"),
            (self._liveness.answers, "the nodes are being recovered"),
            (self.app.consumer.holds_assignment(), "the group has not heard of this worker lately"),  # type: ignore[attr-defined]
        ):
            if not holds:
                return Health(ready=False, reason=reason)
        lag = self._lag()
        if lag is None:
            return Health(ready=False, reason="the consumer has not heard of its partitions yet")
        if lag > READY_LAG_RECORDS:
            return Health(ready=False, reason=f"{lag} records behind; ready below {READY_LAG_RECORDS}")
        return Health(ready=True, reason="")

    async def run(self) -> int:
        """Work until stopped; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        self.app.finalize()
        await self.app.start()
        rolling = asyncio.create_task(self._guarded(lambda: self._rollup.run(self._stop)))
        tasks = [
            asyncio.create_task(self._every(FOLD_EVERY_S, self._objectives.fold)),
            asyncio.create_task(self._every(SAVE_EVERY_S, self._save)),
            asyncio.create_task(self._every(PUBLISH_EVERY_S, self._publish)),
            asyncio.create_task(self._every(STEP_EVERY_S, self._liveness.fold)),
            asyncio.create_task(self._every(STEP_EVERY_S, self._liveness.tend)),
            asyncio.create_task(self._every(PUBLISH_EVERY_S, self._show_nodes)),
            asyncio.create_task(self._watch()),
        ]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(rolling, 10)  # what is counted should be sent
        if self._failure is None and not rolling.cancelled():
            await self._last_words()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.app.stop(), 15)
        return 0 if self._failure is None else 1

    def _wire(self) -> None:
        source = self.app.topic(SOURCE, partitions=self._partitions, schema=raw_schema(), maxsize=8)
        partials = self.app.topic(PARTIALS, partitions=self._partitions, schema=raw_schema(), maxsize=8)
        heartbeats = self.app.topic(HEARTBEATS, partitions=self._partitions, schema=raw_schema(), maxsize=8)
        self.app.agent(source, name="rollup")(self._rollup.process)
        self.app.agent(partials, name="objectives")(self._objectives.process)
        self.app.agent(heartbeats, name="liveness")(self._liveness.process)
        self.app.on_lost = self._on_lost
        self.app.on_ready = self._on_ready

    def _on_lost(self) -> None:
        self._rollup.lose_all()
        self._objectives.lose_all()
        self._liveness.lose_all()
        self._status.lose_all()

    def _on_ready(self) -> None:
        owned = self.app.consumer.assignment()
        partials, heartbeats = topic_partitions(owned, PARTIALS), topic_partitions(owned, HEARTBEATS)
        self._recovering = [
            asyncio.create_task(self._guarded(lambda: self._objectives.recover(partials))),
            asyncio.create_task(self._guarded(lambda: self._liveness.recover(heartbeats))),
        ]

    async def _save(self) -> None:
        """At high rates less often: the pages' work is that of what is open, and should take a fifth of the time."""
        started = time.monotonic()
        await self._objectives.save()
        await asyncio.sleep(min(SAVE_PAUSE_S, 4 * (time.monotonic() - started)))

    async def _publish(self) -> None:
        if self._objectives.recovered:
            await self._status.publish(_now_ms())

    async def _show_nodes(self) -> None:
        with contextlib.suppress(NotHereError):
            for state, count in (await self._nodes.fleet()).counts.states.items():
                metrics.NODES.labels(state).set(count)

    async def _last_words(self) -> None:
        """A clean stop leaves little to replay."""
        with contextlib.suppress(Exception):
            await self._rollup.step()
            await self._objectives.save()
            await self._liveness.fold()
            await self._liveness.save()
            await self.app.consumer.commit()

    async def _every(self, interval_s: float, step: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(interval_s)
            if not self.app.rebalancing:
                await self._guarded(step)

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        """Anything unexpected ends the worker: a restart replays, going on might not."""
        try:
            await step()
        except Exception as error:
            log.exception("stopping after an error")
            self._failure = error
            self._stop.set()

    async def _watch(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + 0.5
            await asyncio.sleep(0.5)
            metrics.EVENT_LOOP_LAG.set(time.monotonic() - due)
            metrics.READY.set(self.health().ready)
            if self.app.crashed:
                self._failure = self.app.crash_reason or RuntimeError("the Faust app has crashed")
                self._stop.set()

    def _lag(self) -> int | None:
        total = 0
        for topic in (SOURCE, PARTIALS):
            lags = [self._partition_lag(TP(topic, p)) for p in topic_partitions(self.app.consumer.assignment(), topic)]
            if any(lag is None for lag in lags):
                return None
            metrics.CONSUMER_LAG.labels(topic).set(sum(lag or 0 for lag in lags))
            total += sum(lag or 0 for lag in lags)
        heartbeats = self._liveness.lag()
        if heartbeats is None:
            return None
        metrics.CONSUMER_LAG.labels(HEARTBEATS).set(heartbeats)
        return total + heartbeats

    def _partition_lag(self, tp: TP) -> int | None:
        highwater = cast("int | None", self.app.consumer.highwater(tp))  # None before the first fetch
        if highwater is None:
            return None
        if tp.topic == PARTIALS:
            part = self._objectives.parts.get(tp.partition)
            read = part.applied + 1 if part else 0
        else:
            committed = self.app.consumer.committed.get(tp)  # type: ignore[attr-defined]
            read = self._rollup.read_to(tp.partition) or (committed.offset if committed else 0)
        return max(0, highwater - read)

    def _caught_up(self, partition: int) -> bool:
        return self._partition_lag(TP(SOURCE, partition)) == 0


def run_worker(options: WorkerOptions) -> int:
    """`fleetbeat worker`: the exit status. Raises DocumentError for an objectives file that cannot be used."""
    objectives = load_objectives(options.objectives)
    listen = parse_listen(options.listen)
    configure_logs()
    try:
        options.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStartError(f"--state {options.state}: {error.strerror or error}") from error
    return asyncio.run(_run(options, objectives, listen))


async def _run(options: WorkerOptions, objectives: tuple[Objective, ...], listen: ListenAddress) -> int:
    changelogs = (PAGES_TOPIC, NODE_PAGES)
    topics = (SOURCE, PARTIALS, HEARTBEATS, "slo-status", NODE_STATES, "dead-letters", *changelogs)
    partitions = await find_partitions(options.brokers, topics)
    worker = Worker(options, objectives, partitions)
    runner = web.AppRunner(worker.views, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, listen.host, listen.port)
    try:
        try:
            await site.start()
        except OSError as error:
            raise CannotStartError(f"--listen {listen}: {error.strerror or error}") from error
        address = ListenAddress(*runner.addresses[0][:2])
        log.info("views", address=f"http://{address}", objectives=len(objectives), partitions=partitions)
        return await worker.run()
    finally:
        await runner.cleanup()


def partition_share(total: int, partitions: int) -> int:
    """What one partition takes of a bound for all: its part, and what chance may put there more."""
    share = total / partitions
    return math.ceil(share + 4 * math.sqrt(share))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
