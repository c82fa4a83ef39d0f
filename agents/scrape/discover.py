"""Which exporters there are: those of the config, those in files as Prometheus' file_sd has them, and those of URLs."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.scrape.jobs import Job
from agents.scrape.targets import Found, TargetsError, read_targets
from agents.scrape.urls import Urls

log = logging.getLogger(__name__)


class Discovery:
    """The targets of jobs. A file that cannot be used leaves those that it had before."""

    def __init__(self, jobs: Sequence[Job], urls: Urls, before: "Discovery | None" = None) -> None:
        """`before` is the one that this one follows: jobs of both have what it has read."""
        self._jobs = jobs
        self._urls = urls
        # By file: how it looked, and what was in it. Copied at once, since a thread may be adding to it.
        self.files: dict[tuple[Job, Path], tuple[tuple[int, int], list[Found]]] = {}
        if before is not None:
            self.files = {key: read for key, read in dict(before.files).items() if key[0] in jobs}
        self.problems: dict[str, str] = {}

    def targets(self) -> list[Found]:
        """All of them now, each once; reads files that have changed, and may take as long as their disk does."""
        found: dict[tuple[Job, str], Found] = {}
        problems: dict[str, str] = {}
        for job in self._jobs:
            for url in job.file.targets:
                found.setdefault((job, url), Found(job, url))
            for path in self._paths(job):
                for one in self._in_file(job, path, problems):
                    found.setdefault((job, one.url), one)
            for one in self._urls.found(job):
                found.setdefault((job, one.url), one)
        for name in problems.keys() - self.problems.keys():
            log.warning("a file of targets is not used", extra={"path": name, "why": problems[name]})
        self.problems = problems
        return list(found.values())

    def _paths(self, job: Job) -> Iterator[Path]:
        for pattern in job.file.target_files:
            path = Path(pattern)
            yield from sorted(path.parent.glob(path.name)) if any(mark in path.name for mark in "*?[") else [path]

    def _in_file(self, job: Job, path: Path, problems: dict[str, str]) -> list[Found]:
        before = self.files.get((job, path))
        try:
            status = path.stat()
            changed = status.st_mtime_ns, status.st_ino
            if before is not None and before[0] == changed:
                return before[1]
            targets = list(read_targets(job, path))
        except (OSError, TargetsError) as cause:
            problems[str(path)] = str(cause)
            return [] if before is None else before[1]
        self.files[job, path] = changed, targets
        return targets
