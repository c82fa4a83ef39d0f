"""The three stages: which exporters are due, what their pages say, and what it adds up to. Bounded lines between them.

A stage that cannot hand on waits, and the line before it fills: at its begin, scrapes that are due are then not made,
which is counted. Counters lose nothing by it: the next page has it all.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from agents.clock import Clock
from agents.config import ProbeSpec
from agents.failures import Failures, log_change
from agents.node import Node, probe_result
from agents.probes.base import Down, Failure, Outcome, Up
from agents.probes.resolver import SYSTEM_RESOLVER
from agents.probes.threads import SideThread
from agents.probes.trace import Trace, traced
from agents.probes.url import parse_url
from agents.publish import COUNTS, RESULTS, Outbox
from agents.run import DURATIONS_S, outcome_name
from agents.schedule import Lineup, Schedule, Skip, Timing, Turn, splay
from agents.scrape.counts import Reading, TargetCounts
from agents.scrape.discover import Discovery
from agents.scrape.fetch import Fetcher, Samples
from agents.scrape.jobs import job_of
from agents.scrape.settings import ScrapeFile
from agents.scrape.tally import Tally, request_count
from agents.scrape.targets import Found
from agents.scrape.urls import Urls
from agents.spread import Spread
from agents.tracing import TraceFile, Tracer
from schemas.records import Label

LINE = 1_024
"""How many may wait between two stages."""
FETCHERS = 512
FLUSH_EVERY_S = 1.0
LOOK_EVERY_S = 5.0
KIND = "scrape"
BAD_SAMPLE, MISSING = "bad-sample", "metric-missing"
_INSTANCE = "instance"

log = logging.getLogger(__name__)


class Exporter:
    """One target: how it is asked, and what it has counted. It is a Probe as well, which only says how it went."""

    def __init__(self, found: Found) -> None:
        job, url = found.job, parse_url(found.url)
        self.found = found
        self.fetcher = Fetcher(url, job, SYSTEM_RESOLVER)
        self.is_up = True
        self.counts = TargetCounts(job.meters, job.file.max_series)
        self.spec = ProbeSpec(
            name=job.file.name,
            kind=KIND,
            service=job.file.service,
            endpoint=job.endpoint,
            every_s=job.file.every_s,
            timeout_s=job.timeout_s,
            impact=job.file.impact,
            labels=(*job.labels, *found.labels, Label(_INSTANCE, url.authority)),
            probe=self,
        )

    def timing(self, node_id: str) -> Timing:
        """When it is due: each target at a time of its own."""
        return Timing(self.spec.every_s, splay(node_id, f"{self.spec.name} {self.found.url}"))

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        outcome, _ = await self.fetcher.scrape(deadline_s)
        return outcome


@dataclass(frozen=True, slots=True)
class Scraped:
    """What came of one scrape; samples only of a page that could be read."""

    exporter: Exporter
    outcome: Outcome
    samples: Samples | None
    due_s: float
    ended_ms: int
    trace: Trace


@dataclass(slots=True)
class Figures:
    """What became of scrapes so far. `requests` were handed over as records; `kept_back` records were not taken."""

    requests: int = 0
    records: int = 0
    kept_back: int = 0
    series: int = 0
    bad_samples: int = 0
    postponed: int = 0
    resets: int = 0


class Scraper:
    """The scrapes of this agent. `run` does the work until it is cancelled, `close` comes after that."""

    def __init__(
        self,
        files: Sequence[ScrapeFile],
        node: Node,
        outbox: Outbox,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._jobs = {file.name: job_of(file) for file in files}
        self.urls = Urls(list(self._jobs.values()), clock)
        self.discovery = Discovery(list(self._jobs.values()), self.urls)
        self.lineup = Lineup(LINE)
        self.pages: asyncio.Queue[Scraped] = asyncio.Queue(LINE)
        self.outcomes: Counter[str] = Counter()
        self.failures = Failures()
        self.skipped: Counter[Skip] = Counter()
        self.durations = Spread(DURATIONS_S)
        self.figures = Figures()
        self._look = SideThread(self._targets)
        self._group: asyncio.TaskGroup | None = None
        self._node = node
        self._outbox = outbox
        self._clock = clock
        self._tracer = tracer or Tracer(TraceFile())
        self._tally = Tally()
        self._exporters: dict[int, Exporter] = {}
        self._leaving: dict[int, Exporter] = {}
        self._free_place = 0
        self._schedule = Schedule((), 0, 0)
        self._queued = asyncio.Semaphore(0)
        self._fetchers = 0
        self._pacing: asyncio.Task[None] | None = None

    @property
    def targets(self) -> int:
        """How many exporters are scraped."""
        return len(self._exporters)

    @property
    def waiting_sums(self) -> int:
        """Sums that are no records yet."""
        return len(self._tally)

    async def run(self) -> None:
        """Discovers, fetches and aggregates until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._aggregate(), name="scrape aggregate")
            group.create_task(self._flush_again_and_again(), name="scrape flush")
            self.urls.start(group, self._look_again)
            await self._discover(group)
            while True:
                await self._clock.sleep(LOOK_EVERY_S)
                if self._reads_files:
                    await self._discover(group)

    def change(self, files: Sequence[ScrapeFile], node: Node) -> None:
        """Goes on with these scrapes, at once. Targets of one that is as it was keep what they have counted."""
        self._node = node
        before = self._jobs
        self._jobs = {
            file.name: before[file.name] if file.name in before and before[file.name].file == file else job_of(file)
            for file in files
        }
        jobs = list(self._jobs.values())
        self.urls.change(jobs)
        self.discovery = Discovery(jobs, self.urls, self.discovery)
        if self._group is None:
            return
        if self._reads_files:  # a disk that hangs shall not hold up the reload
            self._group.create_task(self._discover(self._group), name="scrape discover")
        else:
            self._take_up(self._group, self._targets())
        self.urls.start(self._group, self._look_again)

    async def run_once(self) -> None:
        """Scrapes every exporter once, now."""
        limit = asyncio.Semaphore(FETCHERS)

        async def one(found: Found) -> None:
            async with limit:
                exporter = self.exporter(found)
                await self.scrape(exporter)
                await exporter.fetcher.close()

        await self.urls.ask_once()
        await asyncio.gather(*map(one, await self._look.call()))
        self.flush()

    def exporter(self, found: Found) -> Exporter:
        """A target, of which nothing was read yet."""
        return Exporter(found)

    async def scrape(self, exporter: Exporter) -> None:
        """One scrape, through all stages at once."""
        scraped = await self._scraped(exporter, self._clock.monotonic_s())
        await self._report(scraped, self._add(scraped))

    async def close(self) -> None:
        """What was read and counted goes into the outbox; connections are closed."""
        while not self.pages.empty():
            scraped = self.pages.get_nowait()
            self._tell(scraped, self._add(scraped))
        self.flush()
        for exporter in (*self._exporters.values(), *self._leaving.values()):
            await exporter.fetcher.close()

    def flush(self) -> None:
        """Makes records of what was counted. What the outbox does not take stays, and goes with what comes."""
        for key, part in self._tally.take():
            if self._outbox.put(partial(request_count, self._node, key, part)) is not None:
                self._tally.put_back(key, part)
                self.figures.kept_back += 1
                return
            self.figures.requests += part.total
            self.figures.records += 1

    @property
    def _reads_files(self) -> bool:
        return any(job.file.target_files for job in self._jobs.values())

    def _targets(self) -> list[Found]:
        return self.discovery.targets()

    async def _look_again(self) -> None:
        """A URL has named other targets."""
        if self._group is not None:
            await self._discover(self._group)

    async def _discover(self, group: asyncio.TaskGroup) -> None:
        """Looks for targets, and goes on with those that there are."""
        discovery = self.discovery
        targets = await self._look.call() if self._reads_files else self._targets()
        if discovery is self.discovery:  # the config has not changed meanwhile
            self._take_up(group, targets)

    def _take_up(self, group: asyncio.TaskGroup, targets: Sequence[Found]) -> None:
        """Goes on with these targets; those that were there keep what they have counted, and their times."""
        known = {exporter.found: place for place, exporter in self._exporters.items()}
        if self._pacing is not None and known.keys() == set(targets):
            return
        self._line_up()
        exporters: dict[int, Exporter] = {}
        for found in targets:
            place = known.pop(found, None)
            if place is None:
                exporters[self._free_place] = self.exporter(found)
                self._free_place += 1
            else:
                exporters[place] = self._exporters[place]
        for place in known.values():
            if self.lineup.holds(place):  # whoever asks it, or would have, closes it
                self._leaving[place] = self._exporters[place]
            else:
                group.create_task(self._exporters[place].fetcher.close(), name="scrape close")
        self._exporters = exporters
        timings = {place: one.timing(self._node.id) for place, one in exporters.items()}
        self._schedule.change(timings, {}, self._clock.monotonic_s(), self._clock.wall_ms() / 1_000)
        if self._pacing is not None:
            self._pacing.cancel()  # it sleeps: it never waits for anything but the next time
        self._pacing = group.create_task(self._keep_time(), name="scrape times")
        while self._fetchers < min(FETCHERS, len(exporters)):
            self._fetchers += 1
            group.create_task(self._fetch(), name=f"scrape fetcher {self._fetchers}")

    async def _keep_time(self) -> None:
        """The first stage: which exporters are due."""
        while (next_s := self._schedule.next_s()) is not None:
            await self._clock.sleep(next_s - self._clock.monotonic_s())
            self._line_up()

    def _line_up(self) -> None:
        for due in self._schedule.due(self._clock.monotonic_s()):
            self.skipped[Skip.MISSED] += due.missed
            skip = self.lineup.offer(Turn(due.place, due.due_s))
            if skip is None:
                self._queued.release()
            else:
                self.skipped[skip] += 1

    async def _fetch(self) -> None:
        """The second stage: what their pages say."""
        while True:
            await self._queued.acquire()
            turn = self.lineup.take()
            try:
                exporter = self._exporters.get(turn.place)
                if exporter is not None:
                    await self.pages.put(await self._scraped(exporter, turn.due_s))
                if turn.place in self._leaving:
                    await self._leaving.pop(turn.place).fetcher.close()
            finally:
                self.lineup.finish(turn.place)

    async def _scraped(self, exporter: Exporter, due_s: float) -> Scraped:
        trace = self._tracer.begin()
        with traced(trace):
            outcome, samples = await exporter.fetcher.scrape(exporter.spec.timeout_s)
        return Scraped(exporter, outcome, samples, due_s, self._clock.wall_ms(), trace)

    async def _aggregate(self) -> None:
        """The third stage: what it adds up to."""
        while True:
            scraped = await self.pages.get()
            await self._report(scraped, self._add(scraped))

    async def _flush_again_and_again(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            if len(self._tally):
                await self._outbox.room(COUNTS)
                self.flush()

    def _add(self, scraped: Scraped) -> Outcome:
        """Counts what a page says; the outcome, which is not Up when the page was not as expected."""
        if scraped.samples is None:
            return scraped.outcome
        reading = scraped.exporter.counts.read(scraped.samples, scraped.ended_ms)
        self._tally.add(reading)
        figures = self.figures
        figures.series += reading.series
        figures.bad_samples += len(reading.problems)
        figures.postponed += reading.postponed
        figures.resets += reading.resets
        return _judged(scraped.outcome, reading)

    async def _report(self, scraped: Scraped, outcome: Outcome) -> None:
        await self._outbox.room(RESULTS)
        self._tell(scraped, outcome)

    def _tell(self, scraped: Scraped, outcome: Outcome) -> None:
        self.outcomes[outcome_name(outcome)] += 1
        self.failures.add(KIND, outcome)
        exporter = scraped.exporter
        self.durations.add(outcome.latency_us / 1e6)
        with traced(scraped.trace):
            trace_id = self._tracer.kept(outcome)
            if isinstance(outcome, Up) != exporter.is_up:
                exporter.is_up = isinstance(outcome, Up)
                log_change(exporter.spec, outcome)
        spec, ended_ms = exporter.spec, scraped.ended_ms
        self._outbox.put(lambda seq: probe_result(self._node, spec, outcome, ended_ms, seq, trace_id))


def _judged(outcome: Outcome, reading: Reading) -> Outcome:
    if reading.problems:
        more = f" and {len(reading.problems) - 1} more" if len(reading.problems) > 1 else ""
        reason, detail = BAD_SAMPLE, f"{reading.problems[0]}{more}"
    elif reading.missing:
        reason, detail = MISSING, f"{', '.join(reading.missing)}; expected on the page"
    else:
        return outcome
    return Down(
        reason,
        detail,
        outcome.latency_us,
        outcome.phases,
        outcome.status_code,
        notes=outcome.notes,
        failure=Failure.VALIDATION,
    )
