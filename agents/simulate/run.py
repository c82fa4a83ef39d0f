"""`fleetbeat simulate`: draws the fleet's events, writes them into the ledger, sends them, and says what it did."""

import asyncio
import json
import secrets
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from typing import Any

from agents.simulate.bodies import Bodies
from agents.simulate.config import ScriptError, load_script
from agents.simulate.emit import PATIENCE_S, Emitter, SendError
from agents.simulate.fleet import MAX_STEP_MS, Fleet
from agents.simulate.held import TooMuchHeldError
from agents.simulate.ledger import LedgerError, LedgerWriter, Manifest
from agents.simulate.nodes import name_table, node_rows, places, standing_in
from agents.simulate.options import SimulateOptions, check, first_moment_ms, plan_of
from agents.simulate.progress import Figures, Shows, progress
from agents.simulate.rows import Chunk
from schemas.documents import DocumentError

__all__ = ["SimulateOptions", "run_simulate"]

PACED_STEP_MS = 100
MAX_CHUNKS_IN_FLIGHT = 4
# After a signal the broker may be gone as well: do not keep anybody waiting.
STOPPED_PATIENCE_S = 10.0
EXIT_FAILED = 1
EXIT_REFUSED = 2


def run_simulate(options: SimulateOptions) -> int:
    """Runs until done or stopped by SIGINT or SIGTERM; the exit status.

    0 when everything sent was acknowledged (also after a signal), 1 when Kafka or the ledger failed, 2 when
    the options or the script cannot be used. The only line on stdout is a JSON summary; the rest goes to stderr.
    """
    try:
        check(options)
        counts = options.services, options.endpoints, options.regions
        script = load_script(options.script, *counts, options.requests_per_s)
        plan = plan_of(options, script)
        start_ms = first_moment_ms(options, plan, now_ms())
    except (DocumentError, ScriptError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return EXIT_REFUSED
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed} ({'drawn' if options.seed is None else 'given'})", file=sys.stderr, flush=True)
    try:
        summary = asyncio.run(_Run(options, Fleet(plan, seed, start_ms), seed).go())
    except (SendError, TooMuchHeldError, LedgerError, OSError) as problem:
        print(f"fleetbeat simulate: {problem}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(summary), flush=True)
    return 0


class _Run:
    """One run: fleet, ledger and emitter wired together."""

    def __init__(self, options: SimulateOptions, fleet: Fleet, seed: int) -> None:
        self._options = options
        self._fleet = fleet
        self._seed = seed
        self._figures = Figures(nodes=fleet.plan.nodes)
        self._window = asyncio.Semaphore(MAX_CHUNKS_IN_FLIGHT)
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._confirming: set[asyncio.Task[None]] = set()

    async def go(self) -> dict[str, int | float]:
        """The summary of the run. Raises SendError, LedgerError, TooMuchHeldError, OSError."""
        plan, script = self._fleet.plan, self._fleet.plan.script
        names, standing = name_table(plan.nodes), standing_in(script, plan.nodes)
        bodies = Bodies(
            names, places(script), standing, script.series, plan.heartbeat_interval_ms, counted=script.counted
        )
        counting = script.counting is not None
        async with Emitter(self._options.brokers, names, bodies, counting=counting) as emitter:
            # Only now: a run that waits for a broker ends at once, and one that found none leaves no ledger behind.
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop.set)
            with self._ledger() as ledger, progress() as show:
                self._figures.started = time.monotonic()
                await self._live(ledger, emitter, show)
                await self._publish(self._fleet.drain(), ledger, emitter)
                await self._all_acknowledged()
                summary = self._summary()
                if ledger is not None:
                    ledger.finish(summary)
        return summary

    async def _live(self, ledger: LedgerWriter | None, emitter: Emitter, show: Shows) -> None:
        step_ms = MAX_STEP_MS if self._options.unpaced else PACED_STEP_MS
        duration_s = self._options.duration_s
        end_ms = sys.maxsize if duration_s is None else round(duration_s * 1_000)
        fleet, events = self._fleet, self._options.events
        while fleet.now_ms < end_ms and (events is None or fleet.drawn < events) and not self._stop.is_set():
            left = None if events is None else events - fleet.drawn
            chunk = fleet.step(min(end_ms, fleet.now_ms + step_ms), left)
            await self._wait_for_clock()
            await self._publish(chunk, ledger, emitter)
            self._look(show)

    async def _wait_for_clock(self) -> None:
        """Until the clock has passed the chunk's event time, or the run is stopped."""
        ahead_s = self._ahead_s()
        if ahead_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), ahead_s)

    async def _publish(self, chunk: Chunk, ledger: LedgerWriter | None, emitter: Emitter) -> None:
        """Ledger first, then Kafka; waits while too many chunks are on their way."""
        if not chunk.events and not len(chunk.boots):
            return
        try:
            await asyncio.wait_for(self._window.acquire(), PATIENCE_S)
        except TimeoutError:
            raise SendError(f"{self._options.brokers} acknowledged nothing in {PATIENCE_S:.0f} s") from None
        self._raise_failure()
        number = 0 if ledger is None else ledger.write(chunk)
        acks = await emitter.send(chunk)
        self._figures.heartbeats += len(chunk.heartbeats)
        self._figures.results += len(chunk.results)
        self._figures.counts += len(chunk.counted.rows)
        self._figures.requests += len(chunk.counted.requests)
        task = asyncio.create_task(self._confirm(acks, number, chunk.events, ledger))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm(
        self, acks: list[asyncio.Future[Any]], number: int, events: int, ledger: LedgerWriter | None
    ) -> None:
        outcomes = await asyncio.gather(*acks, return_exceptions=True)
        problems = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if problems:
            self._failure = problems[0]
            self._stop.set()
        else:
            self._figures.acknowledged += events
            if ledger is not None:
                ledger.acknowledge(number)
        self._window.release()

    async def _all_acknowledged(self) -> None:
        patience_s = STOPPED_PATIENCE_S if self._stop.is_set() else PATIENCE_S
        if self._confirming:
            await asyncio.wait(self._confirming, timeout=patience_s)
        self._raise_failure()
        missing = self._figures.events - self._figures.acknowledged
        if missing:
            raise SendError(
                f"{self._options.brokers} left {missing} events without acknowledgement for {patience_s:.0f} s"
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise SendError(
                f"{self._options.brokers} did not take a batch: {self._failure!r}; "
                "the ledger holds events that Kafka may lack"
            ) from self._failure

    def _ledger(self) -> AbstractContextManager[LedgerWriter | None]:
        if self._options.ledger is None:
            return nullcontext()
        plan = self._fleet.plan
        script = json.loads(json.dumps(asdict(plan.script), default=lambda fault: fault.value))
        manifest = Manifest(
            seed=self._seed,
            start_ms=self._fleet.start_ms,
            zones=places(plan.script),
            series=plan.script.series,
            counted=plan.script.counted,
            heartbeat_interval_ms=plan.heartbeat_interval_ms,
            script=script,
        )
        return LedgerWriter(self._options.ledger, manifest, node_rows(plan.script, plan.nodes))

    def _look(self, show: Shows) -> None:
        figures = self._figures
        figures.in_flight = figures.events - figures.acknowledged
        figures.held = self._fleet.held
        figures.nodes_up = self._fleet.nodes_up
        figures.nodes_cut_off = self._fleet.nodes_cut_off
        figures.behind_s = -self._ahead_s()
        show(figures)

    def _ahead_s(self) -> float:
        return (self._fleet.start_ms + self._fleet.now_ms - now_ms()) / 1_000

    def _summary(self) -> dict[str, int | float]:
        figures = self._figures
        seconds = figures.seconds
        return {
            "events": figures.events,
            "heartbeats": figures.heartbeats,
            "results": figures.results,
            "counts": figures.counts,
            "requests": figures.requests,
            "seconds": round(seconds, 3),
            "events_per_s": round(figures.events / seconds),
            "seed": self._seed,
            "start_ms": self._fleet.start_ms,
        }


def now_ms() -> int:
    """The clock, ms UTC."""
    return time.time_ns() // 1_000_000
