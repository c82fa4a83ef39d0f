"""The worker's composition root: builds, wires and names everything, and runs it until told to stop."""

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiohttp import web
from aiokafka.errors import KafkaError

from schemas.listen import ListenAddress, parse_listen
from streams import metrics
from streams.config import load_objectives
from streams.core.series import CELL_SERIES, Judge, SeriesIndex
from streams.core.sources import SOURCES
from streams.engine.ahead import ReadAhead
from streams.engine.announcements import TOPIC as OBJECTIVES
from streams.engine.announcements import AnnouncementLog
from streams.engine.app import App, EngineSettings, create_app, raw_schema
from streams.engine.applied_schemas import require_our_schemas
from streams.engine.brokers import find_partitions, require_no_others
from streams.engine.changelog import read_changelog
from streams.engine.lifetime import END_S, end_within, start_app, stop_app
from streams.engine.members import Group, advertise
from streams.engine.rounds import Rounds, errors_only, let_end, pause, processor
from streams.engine.transport import Consumer, topic_partitions
from streams.history.past import RawPast
from streams.listening import require_free
from streams.logs import configure_logs, set_level
from streams.options import CannotStartError, WorkerOptions, check_options
from streams.processors.lags import Lags
from streams.processors.live_queries import LiveQueries
from streams.processors.liveness import LivenessProcessor
from streams.processors.node_judging import show_states
from streams.processors.node_queries import NodeQueries
from streams.processors.node_recovery import PAGES_TOPIC as NODE_PAGES
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.node_states import TOPIC as NODE_STATES
from streams.processors.objectives import ObjectivesProcessor
from streams.processors.objectives_file import LoadedFile, ObjectivesFile, load_file
from streams.processors.past import Pasts
from streams.processors.queries import KeptElsewhereError, NotHereError, TableQueries
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_parts import series_share
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from streams.processors.status import StatusPublisher
from streams.processors.versions import Versions
from streams.processors.watchdog import LOOK_EVERY_S, Watchdog
from streams.reloading import WorkerReloads, node_limits
from streams.settings.reload import Loaded
from streams.signing_keys import follow_keyring, signatures_of
from streams.views.peers import Peers
from streams.views.reload import reload_routes
from streams.views.routes import Health, Tables, create_views
from streams.views.tips import ask_tips

LOOK_AT_LOGS_EVERY_S = 0.25
# A step over few heartbeats costs as much as one over many; a backlog does not wait for it.
NODES_EVERY_S = 0.5
# So much longer at most when that took long: on a busy machine it must not take a fifth of the time.
NODES_PAUSE_S = 0.5
FOLD_EVERY_S = 1.0
# Threads that compute let the event loop have the interpreter this soon; Python's 5 ms would come twice in each answer.
SWITCH_S = 0.001
SAVE_EVERY_S = 2.0
SAVE_PAUSE_S = 8.0
PUBLISH_EVERY_S = 5.0
HEAR_EVERY_S = 1.0
# So long a stop waits for the steps in hand: a broker that is gone acknowledges nothing.
STOP_S = 10.0
# Ready means that a question is answered from events this fresh at most.
READY_LAG_RECORDS = 200_000

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.worker")


class Worker:
    """Everything of one worker process."""

    def __init__(
        self,
        options: WorkerOptions,
        file: LoadedFile,
        versions: Versions,
        partitions: int,
        config: Loaded[WorkerOptions] | None = None,
    ) -> None:
        """Raises DocumentError for signing keys that cannot be used."""
        signatures = signatures_of(options.signatures, options.signing_keys)
        index = SeriesIndex()
        self._versions = versions
        self._signing_keys = options.signing_keys
        self._reloads = WorkerReloads(ObjectivesFile(file, versions, load_objectives), signatures, self._adjust, config)
        self.app: App = create_app(
            EngineSettings(options.brokers, options.state, partitions),
            batch_topics=frozenset({*SOURCES, PARTIALS, HEARTBEATS}),
            raw_topics=frozenset({*SOURCES, HEARTBEATS}),
            outputs=dict.fromkeys(SOURCES, PARTIALS),
        )
        self._partitions = partitions
        # Each rollup has numbers of its own, so that its thread may forget names.
        indexes = {source: SeriesIndex(CELL_SERIES) for source in SOURCES}
        self._rollups = {
            source: RollupProcessor(
                self.app,
                Judge(versions.timeline, own, source),
                own,
                partitions,
                versions.known,
                options.live,
                signatures,
            )
            for source, own in indexes.items()
        }
        self._ahead = ReadAhead(partial(read_changelog, options.brokers))
        series_most = series_share(options.series_max, partitions)
        self._objectives = ObjectivesProcessor(self.app, self._ahead.read, index, series_most)
        self._liveness = LivenessProcessor(self.app, self._ahead.read, node_limits(options, partitions), signatures)
        self._nodes = NodeQueries(self._liveness, partitions, _now_ms)
        self._lags = Lags(self.app, self._rollups, self._objectives, self._liveness, partitions)
        url = options.history
        self._pasts = Pasts(RawPast.at(url, partitions) if url else None, _now_ms)
        self._queries = TableQueries(
            lambda: versions.timeline, self._objectives, partitions, _now_ms, self._lags.completeness, self._pasts.of
        )
        self._status = StatusPublisher(self.app, self._queries)
        self._watchdog = Watchdog(self.app, self._lags, options.stall_after_s, self._works)
        self._peers = Peers(Group(self.app).members)
        self._keys = partial(follow_keyring, lambda: self._signing_keys, signatures)
        self._recovering: list[asyncio.Task[None]] = []
        self._rounds = Rounds()
        self._stop = self._rounds.stop
        self._wire()
        rings = LiveQueries(self.app, self._rollups)
        tables = Tables(self._queries, self._nodes, rings, self._lags.own_tips, partitions)
        self.views = create_views(tables, self._peers, self.health)
        self.views.add_routes(reload_routes(self._reloads.objectives, self._reloads.config))

    def health(self) -> Health:
        """Ready when the tables are recovered and the lag is small."""
        if self._rounds.failure is not None:
            return Health(ready=False, reason=f"failed: {self._rounds.failure}")
        for holds, reason in (
            (not self.app.rebalancing, "the group meets, to share its partitions anew"),
            (self._objectives.recovered, "the tables are being recovered"),
            (self._liveness.answers, "the nodes are being recovered"),
            (self._versions.known() is not None, "the topic objectives could not be read to its end lately"),
            (self._consumer.holds_assignment(), "the group has not heard of this worker lately"),
        ):
            if not holds:
                return Health(ready=False, reason=reason)
        lag = self._lags.total()
        if lag is None:
            return Health(ready=False, reason="the consumer has not heard of its partitions yet")
        if lag > READY_LAG_RECORDS:
            return Health(ready=False, reason=f"{lag} records behind; ready below {READY_LAG_RECORDS}")
        return Health(ready=True, reason="")

    async def run(self) -> int:
        """Work until stopped; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloads.tell)
        for pages in (NODE_PAGES, PAGES_TOPIC):
            self._ahead.begin(pages, range(self._partitions))
        self.app.finalize()
        if not await start_app(self.app, self._stop):
            await asyncio.gather(stop_app(self.app), self._ahead.stop())
            return 0
        # What was made until here stays; to look through it again would stop all threads for a tenth of a second.
        gc.collect()
        gc.freeze()
        steps = [
            *(self._begun(partial(own.run, self._stop)) for own in self._rollups.values()),
            asyncio.create_task(self._fold_partials()),
            asyncio.create_task(self._every(SAVE_EVERY_S, self._save)),
            asyncio.create_task(self._every(PUBLISH_EVERY_S, self._publish)),
            asyncio.create_task(self._fold_nodes()),
            asyncio.create_task(self._every(NODES_EVERY_S, self._tend_nodes)),
            asyncio.create_task(self._every(PUBLISH_EVERY_S, self._show_nodes)),
            asyncio.create_task(self._every(LOOK_AT_LOGS_EVERY_S, self._look)),
            asyncio.create_task(self._every(LOOK_EVERY_S, self._watchdog.look)),
            asyncio.create_task(self._every(HEAR_EVERY_S, self._hear_others)),
        ]
        heard = [  # may be cut off anywhere
            self._begun(self._versions.follow),
            self._begun(self._reloads.run),
            self._begun(self._keys),
            self._begun(self._watch),
            asyncio.create_task(self._pasts.follow(self._queries.beginnings)),
        ]
        await self._stop.wait()
        end_within(END_S)
        for task in heard:
            task.cancel()
        ended = await let_end(steps, STOP_S if self._rounds.failure is None else 0)
        await asyncio.gather(*heard, self._ahead.stop(), return_exceptions=True)
        if ended and self._rounds.failure is None:
            await self._last_words()
        await stop_app(self.app)
        return 0 if self._rounds.failure is None else 1

    def _begun(self, step: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(self._rounds.guarded(step))

    def _wire(self) -> None:
        partials = self.app.topic(PARTIALS, partitions=self._partitions, schema=raw_schema(), maxsize=8)
        heartbeats = self.app.topic(HEARTBEATS, partitions=self._partitions, schema=raw_schema(), maxsize=8)
        for source, rollup in self._rollups.items():
            topic = self.app.topic(source, partitions=self._partitions, schema=raw_schema(), maxsize=8)
            self.app.agent(topic, name=f"rollup-{source}")(processor(rollup.process))
        self.app.agent(partials, name="objectives")(processor(self._objectives.process))
        self.app.agent(heartbeats, name="liveness")(processor(self._liveness.process))
        self.app.on_lost = self._on_lost
        self.app.on_ready = self._on_ready

    def _on_lost(self) -> None:
        for rollup in self._rollups.values():
            rollup.lose_all()
        self._objectives.lose_all()
        self._liveness.lose_all()
        self._status.lose_all()
        self._lags.lose_all()

    def _on_ready(self) -> None:
        owned = self.app.consumer.assignment()
        require_no_others(owned, self._partitions)
        self._lags.assigned()
        partials, heartbeats = topic_partitions(owned, PARTIALS), topic_partitions(owned, HEARTBEATS)
        self._recovering = [
            self._begun(lambda: self._objectives.recover(partials)),
            self._begun(lambda: self._liveness.recover(heartbeats)),
        ]

    async def _save(self) -> None:
        """At high rates less often: the pages' work is that of what is open, and should take a fifth of the time."""
        started = time.monotonic()
        await self._objectives.save()
        await pause(self._stop, min(SAVE_PAUSE_S, 4 * (time.monotonic() - started)))

    async def _adjust(self, options: WorkerOptions) -> None:
        """Goes by these from now on, as far as a running worker can."""
        await self._objectives.bound(series_share(options.series_max, self._partitions))
        self._liveness.bound(node_limits(options, self._partitions))
        self._watchdog.limit_s = options.stall_after_s
        self._signing_keys = options.signing_keys
        set_level(options.log_level)

    async def _publish(self) -> None:
        if self._objectives.recovered:
            await self._status.publish(_now_ms())

    async def _show_nodes(self) -> None:
        """Of the partitions that are kept here: over all workers each node is counted once."""
        try:
            show_states((await self._nodes.fleet()).counts.states)
        except KeptElsewhereError:
            show_states({})
        except NotHereError:
            pass  # soon again

    async def _last_words(self) -> None:
        """A clean stop leaves little to replay."""
        try:
            async with asyncio.timeout(STOP_S):
                await errors_only(self._save_all)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker ends
            log.warning("what was done last is not saved: a restart does it again", error=repr(error))

    async def _save_all(self) -> None:
        for rollup in self._rollups.values():
            await rollup.step()
        await self._objectives.save()
        await self._liveness.fold()
        await self._liveness.save()
        await self.app.consumer.commit()

    async def _every(self, interval_s: float, step: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            await pause(self._stop, interval_s)
            if not self._stop.is_set() and not self.app.rebalancing:
                await self._rounds.guarded(step)

    async def _fold_partials(self) -> None:
        while not self._stop.is_set():
            await self._objectives.due(FOLD_EVERY_S)
            if not self.app.rebalancing:
                await self._rounds.guarded(self._objectives.fold)

    async def _fold_nodes(self) -> None:
        patience_s = NODES_EVERY_S
        while not self._stop.is_set():
            await self._liveness.due(patience_s)
            started = time.monotonic()
            if not self.app.rebalancing:
                await self._rounds.guarded(self._liveness.fold)
            patience_s = NODES_EVERY_S + _to_spare(started)

    async def _tend_nodes(self) -> None:
        started = time.monotonic()
        await self._liveness.tend()
        await pause(self._stop, _to_spare(started))

    async def _watch(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + 0.5
            await asyncio.sleep(0.5)
            metrics.EVENT_LOOP_LAG.set(time.monotonic() - due)
            metrics.READY.set(self.health().ready)
            if self.app.crashed:
                self._rounds.fail(self.app.crash_reason or RuntimeError("the Faust app has crashed"))

    def _works(self) -> bool:
        """Whether it can be expected to get on with what it reads."""
        recovered = self._objectives.recovered and self._liveness.recovered
        return recovered and not self.app.rebalancing and self._consumer.holds_assignment()

    async def _look(self) -> None:
        self._lags.look()

    async def _hear_others(self) -> None:
        self._lags.hear(await ask_tips(self._peers))

    @property
    def _consumer(self) -> Consumer:
        return self.app.consumer  # type: ignore[return-value]


def _to_spare(started_s: float) -> float:
    """Seconds to leave to others after work on nodes that began then (monotonic)."""
    return min(NODES_PAUSE_S, 4 * (time.monotonic() - started_s))


def run_worker(options: WorkerOptions, config: Loaded[WorkerOptions] | None = None) -> int:
    """`fleetbeat worker`: the exit status; `config`: the file of the options.

    Raises DocumentError for a file that cannot be used, OptionError, ListenError and CannotStartError.
    """
    file = load_file(options.objectives, load_objectives)
    listen = parse_listen(options.listen)
    advertised = check_options(options, [objective.id for objective in file.objectives])
    signatures_of(options.signatures, options.signing_keys)  # what is wrong there is told before anything is done
    configure_logs(options.log_level)
    sys.setswitchinterval(SWITCH_S)
    try:
        options.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStartError(f"--state {options.state}: {error.strerror or error}") from error
    return asyncio.run(_run(options, file, listen, advertised, config))


async def _run(
    options: WorkerOptions,
    file: LoadedFile,
    listen: ListenAddress,
    advertised: str | None,
    config: Loaded[WorkerOptions] | None,
) -> int:
    changelogs = (PAGES_TOPIC, NODE_PAGES)
    topics = (*SOURCES, PARTIALS, HEARTBEATS, "slo-status", NODE_STATES, "dead-letters", OBJECTIVES, *changelogs)
    await require_free(listen)
    partitions = await find_partitions(options.brokers, topics)
    await require_our_schemas(options.brokers)
    async with AnnouncementLog(options.brokers) as announcements:
        versions = Versions(announcements, socket.gethostname())
        try:
            await versions.offer(file.objectives, file.written_ms)
        except (KafkaError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise CannotStartError(f"brokers {options.brokers}: topic {OBJECTIVES}: {why}") from error
        worker = Worker(options, file, versions, partitions, config)
        return await _serve(worker, partitions, listen, advertised)


async def _serve(worker: Worker, partitions: int, listen: ListenAddress, advertised: str | None) -> int:
    runner = web.AppRunner(worker.views, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, listen.host, listen.port)
    try:
        try:
            await site.start()
        except OSError as error:
            raise CannotStartError(f"--listen {listen}: {error.strerror or error}") from error
        address = ListenAddress(*runner.addresses[0][:2])
        advertise(worker.app, advertised or str(address))
        log.info("views", address=f"http://{address}", partitions=partitions)
        return await worker.run()
    finally:
        await runner.cleanup()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
