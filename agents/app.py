"""`fleetbeat agent`: puts the collector together, runs it until a signal, and lets it end in good order.

It starts on every host, often on a small one, so this module and all it imports stay light: a test names what must not
be loaded. The metrics library comes in only when somebody asks for metrics.
"""

import asyncio
import logging
import os
import random
import signal
import uuid
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from agents.clock import Clock, SystemClock
from agents.config import AgentConfig, ProbeSpec, check_brokers, load_agent
from agents.heartbeats import Heartbeats
from agents.host import Host
from agents.kafka import KafkaOptions, KafkaPublisher
from agents.lane import Lane, MemoryLane
from agents.logs import configure_logs
from agents.node import Node, probe_result
from agents.probes.base import Outcome
from agents.publish import RESULTS, TOPICS, Outbox
from agents.run import Prober
from agents.server import Page, Server
from agents.spool.lane import SpoolLimits
from agents.spool.place import SpoolError, SpoolPlace, spool_folder
from agents.tracing import Tracer
from agents.version import version

if TYPE_CHECKING:
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
    config that cannot be used, OptionError, CannotStartError.
    """
    config = load_agent(options.config)
    if options.brokers is not None:
        try:
            check_brokers(options.brokers)
        except ValueError as cause:
            raise OptionError(f"--brokers: {cause}") from cause
    configure_logs()
    agent = _Agent(config, options.brokers or config.kafka.brokers, SystemClock())
    return asyncio.run(agent.go(once=options.once))


class _Agent:
    """The parts of one agent, from its start to its end: a boot."""

    def __init__(self, config: AgentConfig, brokers: str, clock: Clock) -> None:
        rng = random.SystemRandom()
        options = KafkaOptions(brokers, config.kafka.compression)
        self._config = config
        self._node = _node(config, clock)
        self._clock = clock
        self._place, lanes = _lanes(config, clock, rng)
        self._publisher = KafkaPublisher(options, config.node_id, lanes, clock, rng)
        self._outbox = Outbox(self._publisher)
        self._host = Host(config.interval_s, clock)
        self._heartbeats = Heartbeats(self._node, self._outbox, self._host.facts, clock, rng)
        self._tracer = Tracer(config.trace)
        self._prober = Prober(config.probes, config.workers, config.queue, self._report, clock, self._tracer)
        self._telemetry: Telemetry | None = None
        self._stop = asyncio.Event()

    async def go(self, *, once: bool) -> int:
        """Runs; the exit status. Raises CannotStartError."""
        server = await self._serve()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._heartbeats.drain)
        sending = asyncio.create_task(self._publisher.run(), name="publisher")
        try:
            self._host.start()
            working = asyncio.create_task(self._once() if once else self._work(), name="agent")
            await self._until_stopped(working, sending)
            self._heartbeats.say_goodbye()
            left = await self._publisher.close(FLUSH_S)
        finally:
            await _cancel(sending)
            server.close()
        if left:
            log.error("Kafka did not take everything before the end", extra={"records": left, "seconds": FLUSH_S})
        log.info("stopped", extra={"dropped": self._outbox.dropped()})
        return FAILED if left else DONE

    async def _serve(self) -> Server:
        server = Server({"/metrics": self._metrics, "/-/healthy": _healthy, "/-/ready": self._ready})
        address = None
        if self._config.listen is not None:
            try:
                address = await server.start(self._config.listen.host, self._config.listen.port)
            except OSError as cause:
                raise CannotStartError(
                    f"metrics.listen {self._config.listen}: {os.strerror(cause.errno or 0).lower()}"
                ) from cause
        log.info(
            "started",
            extra={
                "node": self._node.id,
                "node_from": "config" if self._config.id_is_given else "host name",
                "boot_id": self._node.boot_id,
                "probes": len(self._config.probes),
                "workers": self._prober.workers,
                "metrics": address and f"http://{address}/metrics",
                "spool": None if self._place is None else str(self._place.folder),
            },
        )
        return server

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats.run(), name="heartbeats")
            group.create_task(self._prober.run(self._node.id), name="prober")

    async def _once(self) -> None:
        self._heartbeats.beat()
        await self._prober.run_once()

    async def _until_stopped(self, working: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
        """Ends the work at a signal, or when it is done. Raises what made it, or the sending, fail."""
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({stopping, working, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _cancel(stopping)
            await _cancel(working)

    async def _report(self, spec: ProbeSpec, outcome: Outcome) -> None:
        ended_ms, trace_id = self._clock.wall_ms(), self._tracer.kept(outcome)
        await self._outbox.put_in_time(
            RESULTS, lambda seq: probe_result(self._node, spec, outcome, ended_ms, seq, trace_id)
        )

    async def _metrics(self) -> Page:
        return Page(HTTPStatus.OK, await asyncio.to_thread(self._render), "text/plain; version=0.0.4; charset=utf-8")

    def _render(self) -> bytes:
        if self._telemetry is None:
            from agents.telemetry import Sources, Telemetry  # noqa: PLC0415 - see the module's docstring

            self._telemetry = Telemetry(Sources(self._prober, self._publisher, self._node.version))
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
    folder = None if spool is None else spool_folder(spool.dir)
    if spool is None or folder is None:
        return None, {topic: MemoryLane(kafka.buffer_records, kafka.give_up_after_s) for topic in TOPICS}
    limits = SpoolLimits(
        spool.max_bytes, spool.max_age_s, spool.when_full, spool.fsync_after_s, memory_records=kafka.buffer_records
    )
    try:
        place = SpoolPlace(folder, config.node_id)
        return place, dict(place.lanes(TOPICS, limits, clock, rng))
    except SpoolError as cause:
        raise CannotStartError(f"spool.dir {cause}") from cause


def _node(config: AgentConfig, clock: Clock) -> Node:
    return Node(
        id=config.node_id,
        region=config.region,
        zone=config.zone,
        labels=config.labels,
        boot_id=uuid.uuid4().hex,
        boot_ts=clock.wall_ms(),
        interval_ms=round(config.interval_s * 1_000),
        version=version(),
    )
