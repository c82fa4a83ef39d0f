"""Targets that URLs name, as Prometheus' http_sd has them: asked again and again, and the last good answer holds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from agents.clock import Clock
from agents.scrape.jobs import Job
from agents.scrape.settings import RefreshedSdFile
from agents.scrape.targets import MAX_FILE_BYTES, Found, TargetsError, targets_in
from agents.targets.settings import MAX_TARGETS
from agents.targets.sources import DiscoveryError, HttpSource

log = logging.getLogger(__name__)


class Urls:
    """What the URLs of jobs have said last."""

    def __init__(self, jobs: Sequence[Job], clock: Clock) -> None:
        self.asked = 0
        self.failures = 0
        """Answers that could not be used, and those that did not come."""
        self._jobs = jobs
        self._clock = clock
        # Read by the thread that reads files of targets, too.
        self._answers: dict[Job, tuple[Found, ...]] = {}
        self._searches: dict[Job, asyncio.Task[None]] = {}

    def found(self, job: Job) -> Sequence[Found]:
        """None as long as there was no good answer."""
        return self._answers.get(job, ())

    def change(self, jobs: Sequence[Job]) -> None:
        """Goes on with these. What a URL has said before holds for a job of the same name that asks the same."""
        before = {job.file.name: job for job in self._jobs if job in self._answers}
        answers = {}
        for job in jobs:
            known = before.get(job.file.name)
            if known is not None and known.file.http_sd == job.file.http_sd:
                answers[job] = tuple(replace(one, job=job) for one in self._answers[known])
        self._jobs, self._answers = jobs, answers
        for job in self._searches.keys() - set(jobs):
            self._searches.pop(job).cancel()

    def start(self, group: asyncio.TaskGroup, changed: Callable[[], Awaitable[None]]) -> None:
        """Asks each URL that is not asked yet, at once and from then on; `changed`: there are other targets now."""
        for job in self._jobs:
            if job.file.http_sd is not None and job not in self._searches:
                search = self._keep_asking(job, job.file.http_sd, changed)
                self._searches[job] = group.create_task(search, name=f"targets of {job.file.name}")

    async def ask_once(self) -> None:
        """Asks each URL, and returns when all have answered or failed."""
        asked = [(job, job.file.http_sd) for job in self._jobs if job.file.http_sd is not None]
        await asyncio.gather(*(self._ask(job, _source(settings)) for job, settings in asked))

    async def _keep_asking(self, job: Job, settings: RefreshedSdFile, changed: Callable[[], Awaitable[None]]) -> None:
        source = _source(settings)
        while True:
            if await self._ask(job, source):
                await changed()
            await self._clock.sleep(settings.refresh_s)

    async def _ask(self, job: Job, source: HttpSource) -> bool:
        """Whether there are other targets now."""
        self.asked += 1
        try:
            found = await source.read(partial(_targets, job))
        except DiscoveryError as cause:
            self.failures += 1
            extra = {"probe": job.file.name, "source": source.name, "reason": str(cause)}
            log.warning("targets cannot be found; those found before stay", extra=extra)
            return False
        before, self._answers[job] = self._answers.get(job), found
        return before != found


def _source(settings: RefreshedSdFile) -> HttpSource:
    return HttpSource(settings, MAX_FILE_BYTES)


def _targets(job: Job, document: object) -> tuple[Found, ...]:
    """Raises TargetsError."""
    found = tuple(targets_in(job, document, "groups"))
    if len(found) > MAX_TARGETS:
        raise TargetsError(f"{len(found)} targets; expected at most {MAX_TARGETS}")
    return found
