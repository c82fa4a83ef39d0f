"""`fleetbeat agent`: puts the collector together, runs it until a signal, and lets it end in good order.

It starts on every host, often on a small one, so this module and all it imports stay light: a test names what must not
be loaded. The metrics library comes in only when somebody asks for metrics.
"""

import asyncio
import json
import logging
import os
import random
import signal
import uuid
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from agents.changes import Change
from agents.clock import Clock, SystemClock
from agents.config import AgentConfig, ProbeSpec
from agents.health.monitor import HealthMonitor
from agents.health.procfs import ProcFiles
from agents.heartbeats import Heartbeats
from agents.host import Host
from agents.lane import Lane, MemoryLane
from agents.late import LatePublisher
from agents.logs import configure_logs
from agents.loops import VARIABLE, loop_factory
from agents.node import Node, probe_result
from agents.probes.base import Outcome
from agents.publish import COUNTS, RESULTS, TOPICS, Outbox, Publisher
from agents.reload import CannotApplyError, LoadedFile, Reloader, Result, answer, load_file
from agents.run import Prober
from agents.server import Page, Server
from agents.signing import Signer, load_signer
from agents.spool.lane import SpoolLimits
from agents.spool.place import SpoolError, SpoolFullError, SpoolPlace, spool_folder
from agents.targets.discovery import Discovery
from agents.tracing import Tracer
from agents.version import version
from schemas.kafka.brokers import Brokers
from schemas.kafka.settings import check_addresses
from schemas.listen import ListenAddress

if TYPE_CHECKING:
    from agents.scrape.pipeline import Scraper
    from agents.telemetry import Telemetry

# How long a stop may take: probes end at once, what they found gets this long to reach Kafka.
FLUSH_S = 10.0
DONE, FAILED = 0, 1

log = logging.getLogger(__name__)


class OptionError(ValueError):
    """The command line cannot be understood."""


class CannotStartError(RuntimeError):
    """The machine refuses something that the agent needs, such as a port."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What `fleetbeat agent` can be told; `brokers` goes before the file's."""

    config: Path
    brokers: str | None = None
    once: bool = False


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}; `fleetbeat agent --help` shows what there is")


def parse_options(arguments: Sequence[str]) -> AgentOptions:
    """What stands behind `fleetbeat agent`; its help is with that of all commands. Raises OptionError."""
    parser = _Parser(prog="fleetbeat agent", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--brokers")
    parser.add_argument("--once", action="store_true")
    return AgentOptions(**vars(parser.parse_args(arguments)))


def run_agent(options: AgentOptions) -> int:
    """Runs until SIGTERM or SIGINT, or until done with `once`; the exit status.

    0 when Kafka has everything that was sent, 1 when something was given up at the end. Raises DocumentError for a
    config that cannot be used, OptionError, CannotStartError, SecretFileError, CertificateError.
    """
    loaded = load_file(options.config)
    if options.brokers is not None:
        try:
            check_addresses(options.brokers)
        except ValueError as cause:
            raise OptionError(f"--brokers: {cause}") from cause
    configure_logs()
    kafka = loaded.config.kafka
    given = () if options.brokers is None else ("kafka.brokers",)
    agent = _Agent(loaded, kafka.at(options.brokers or kafka.brokers), SystemClock(), given)
    with asyncio.Runner(loop_factory=loop_factory(os.environ.get(VARIABLE))) as runner:
        return runner.run(agent.go(once=options.once))


class _Agent:
    """The parts of one agent, from its start to its end: a boot."""

    def __init__(self, loaded: LoadedFile, brokers: Brokers, clock: Clock, given: Sequence[str]) -> None:
        rng = random.SystemRandom()
        config = loaded.config
        self._config = config
        self._clock = clock
        self._place, lanes = _lanes(config, clock, rng)
        self._node = _node(config, clock.wall_ms() if self._place is None else self._place.boot_ts(clock.wall_ms()))
        signer = load_signer(config.key_file, config.node_id, clock)
        self._publisher = LatePublisher(lanes, lambda: _sender(config, brokers, lanes, clock, rng, signer), clock)
        self._outbox = Outbox(self._publisher)
        self._health = HealthMonitor(ProcFiles(clock.monotonic_s), clock, ebpf=config.health.ebpf)
        self._host = Host(config.interval_s, clock, self._health.health)
        self._heartbeats = Heartbeats(self._node, self._outbox, self._host.facts, clock, rng)
        self._tracer = Tracer(config.trace)
        self._prober = Prober(config.probes, config.workers, config.queue, self._report, clock, self._tracer)
        self._discovery = Discovery(config.targeted, self._swap, clock)
        self._scraper = _scraper(config, self._node, self._outbox, clock, self._tracer)
        ignored = [*given, *(["scrapes"] if self._scraper is not None else [])]
        self._reloader = Reloader(loaded, self._apply, clock, ignored)
        self._server = Server(
            {"/metrics": self._metrics, "/-/healthy": _healthy, "/-/ready": self._ready}, {"/-/reload": self._reload}
        )
        self._telemetry: Telemetry | None = None
        self._stop = asyncio.Event()

    async def go(self, *, once: bool) -> int:
        """Runs; the exit status. Raises CannotStartError."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reloader.tell)
        await self._start()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._heartbeats.drain)
        sending = asyncio.create_task(self._publisher.run(), name="publisher")
        try:
            self._host.start()
            working = asyncio.create_task(self._once() if once else self._work(), name="agent")
            await self._until_stopped(working, sending)
            if self._scraper is not None:
                await self._scraper.close()
            self._heartbeats.say_goodbye()
            left = await self._publisher.close(FLUSH_S)
        finally:
            await _cancel(sending)
            self._server.close()
        if left:
            log.error("Kafka did not take everything before the end", extra={"records": left, "seconds": FLUSH_S})
        log.info("stopped", extra={"dropped": self._outbox.dropped()})
        return FAILED if left else DONE

    async def _start(self) -> None:
        address = None
        if self._config.listen is not None:
            try:
                address = await self._server.start(self._config.listen.host, self._config.listen.port)
            except OSError as cause:
                raise CannotStartError(_refusal(self._config.listen, cause)) from cause
        log.info(
            "started",
            extra={
                "node": self._node.id,
                "node_from": self._config.id_from,
                "boot_id": self._node.boot_id,
                "config_version": self._config.version,
                "probes": len(self._config.probes),
                "with_targets": len(self._config.targeted),
                "workers": self._prober.workers,
                "signs": self._config.key_file is not None,
                "metrics": address and f"http://{address}/metrics",
                "spool": None if self._place is None else str(self._place.folder),
            },
        )

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats.run(), name="heartbeats")
            group.create_task(self._health.run(), name="health")
            group.create_task(self._prober.run(self._node.id), name="prober")
            group.create_task(self._discovery.run(), name="targets")
            group.create_task(self._reloader.run(), name="config")
            if self._scraper is not None:
                group.create_task(self._scraper.run(), name="scraper")

    async def _once(self) -> None:
        self._heartbeats.beat()
        await self._discovery.run_once()
        self._swap()
        await self._prober.run_once()
        if self._scraper is not None:
            await self._scraper.run_once()

    async def _until_stopped(self, working: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
        """Ends the work at a signal, or when it is done. Raises what made it, or the sending, fail."""
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({stopping, working, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._stop.set()
            await _cancel(stopping)
            await _cancel(working)

    async def _report(self, spec: ProbeSpec, outcome: Outcome) -> None:
        ended_ms, trace_id = self._clock.wall_ms(), self._tracer.kept(outcome)
        await self._outbox.put_in_time(
            RESULTS, lambda seq: probe_result(self._node, spec, outcome, ended_ms, seq, trace_id)
        )

    async def _apply(self, config: AgentConfig, version: str) -> Change:
        """Lets a new config take effect, in one step after what can fail. Raises CannotApplyError."""
        if config.listen is None:
            self._server.close()
        elif config.listen != self._config.listen:
            try:
                await self._server.start(config.listen.host, config.listen.port)
            except OSError as cause:
                raise CannotApplyError(_refusal(config.listen, cause)) from cause
        if self._stop.is_set():
            raise CannotApplyError("the agent is about to end")
        if config.metrics != self._config.metrics:
            self._telemetry = None
        self._config = config
        self._node = replace(
            self._node,
            region=config.region,
            zone=config.zone,
            labels=config.labels,
            interval_ms=_ms(config.interval_s),
            config_version=version,
        )
        self._tracer.change(config.trace)
        self._discovery.change(config.targeted)
        change = self._swap()
        self._host.change(config.interval_s)
        self._heartbeats.change(self._node)
        if self._scraper is not None:
            self._scraper.change(config.scrapes, self._node)
        return change

    def _swap(self) -> Change:
        """The prober goes on with what config and discovery say now."""
        config = self._config
        return self._prober.change((*config.probes, *self._discovery.specs), config.workers, config.queue)

    async def _reload(self) -> Page:
        outcome = await self._reloader.reload()
        status = HTTPStatus.BAD_REQUEST if outcome.result is Result.REFUSED else HTTPStatus.OK
        return Page(status, json.dumps(answer(outcome)).encode() + b"\n", "application/json")

    async def _metrics(self) -> Page:
        return Page(HTTPStatus.OK, await asyncio.to_thread(self._render), "text/plain; version=0.0.4; charset=utf-8")

    def _render(self) -> bytes:
        if self._telemetry is None:
            from agents.probe_series import ProbeSeries  # noqa: PLC0415 - see the module's docstring
            from agents.telemetry import Sources, Telemetry  # noqa: PLC0415

            series = ProbeSeries(self._config.metrics.labels, self._config.metrics.max_probes)
            sources = Sources(
                *(self._prober, self._publisher, self._node.version, self._health.health, series, self._scraper),
                config=self._reloader.figures,
                targets=self._discovery.figures,
            )
            self._telemetry = Telemetry(sources)
        return self._telemetry.page()

    async def _ready(self) -> Page:
        problem = self._publisher.problem()
        if problem is None:
            return Page(HTTPStatus.OK, b"ready\n")
        return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}\n".encode())


async def _healthy() -> Page:
    return Page(HTTPStatus.OK, b"healthy\n")


async def _cancel(task: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """Ends the task and waits for its end; what it raised before was looked at by others."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task


def _lanes(config: AgentConfig, clock: Clock, rng: random.Random) -> tuple[SpoolPlace | None, dict[str, Lane]]:
    """Where records wait for Kafka: on disk when there is a place for it. Raises CannotStartError."""
    kafka, spool = config.kafka, config.spool
    topics = (*TOPICS, COUNTS) if config.scrapes else TOPICS
    folder = None if spool is None else spool_folder(spool.dir)
    in_memory: dict[str, Lane] = {topic: MemoryLane(kafka.buffer_records, kafka.give_up_after_s) for topic in topics}
    if spool is None or folder is None:
        return None, in_memory
    limits = SpoolLimits(
        spool.max_bytes, spool.max_age_s, spool.when_full, spool.fsync_after_s, memory_records=kafka.buffer_records
    )
    try:
        place = SpoolPlace(folder, config.node_id)
        if (place.folder / COUNTS).is_dir():  # perhaps with counts of before, when something was scraped
            topics = (*TOPICS, COUNTS)
        return place, dict(place.lanes(topics, limits, clock, rng))
    except SpoolFullError as cause:  # a host whose disk is full must be able to say so
        log.error("records wait in memory until the next start", extra={"why": f"spool.dir {cause}"})  # noqa: TRY400
        return None, in_memory
    except SpoolError as cause:
        raise CannotStartError(f"spool.dir {cause}") from cause


def _sender(  # noqa: PLR0913 - what a publisher is made of
    config: AgentConfig,
    brokers: Brokers,
    lanes: Mapping[str, Lane],
    clock: Clock,
    rng: random.Random,
    signer: Signer | None,
) -> Publisher:
    from agents.kafka import KafkaOptions, KafkaPublisher  # noqa: PLC0415 - see agents.late

    return KafkaPublisher(KafkaOptions(brokers, config.kafka.compression), config.node_id, lanes, clock, rng, signer)


def _scraper(config: AgentConfig, node: Node, outbox: Outbox, clock: Clock, tracer: Tracer) -> "Scraper | None":
    if not config.scrapes:
        return None
    from agents.scrape.pipeline import Scraper  # noqa: PLC0415 - only for those who scrape

    return Scraper(config.scrapes, node, outbox, clock, tracer)


def _node(config: AgentConfig, boot_ts: int) -> Node:
    return Node(
        id=config.node_id,
        region=config.region,
        zone=config.zone,
        labels=config.labels,
        boot_id=uuid.uuid4().hex,
        boot_ts=boot_ts,
        interval_ms=_ms(config.interval_s),
        version=version(),
        config_version=config.version,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def _refusal(listen: ListenAddress, cause: OSError) -> str:
    return f"metrics.listen {listen}: {os.strerror(cause.errno or 0).lower()}"
