"""Which exporters there are: those of the config, and those in files as Prometheus' file_sd has them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.fields import MAX_LABELS, MAX_NAME_BYTES
from agents.scrape.jobs import Job
from agents.scrape.settings import check_target
from schemas.records import Label

MAX_FILE_BYTES = 16 << 20
_SCHEME, _PATH = "__scheme__", "__metrics_path__"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """An exporter of a job; `labels` are the file's own, for the records of its scrapes."""

    job: Job
    url: str
    labels: tuple[Label, ...] = ()


class TargetFileError(ValueError):
    """A file of targets that cannot be used."""


class Discovery:
    """The targets of jobs. A file that cannot be used leaves those that it had before."""

    def __init__(self, jobs: Sequence[Job], before: "Discovery | None" = None) -> None:
        """`before` is the one that this one follows: jobs of both have what it has read."""
        self._jobs = jobs
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
        except (OSError, TargetFileError) as cause:
            problems[str(path)] = str(cause)
            return [] if before is None else before[1]
        self.files[job, path] = changed, targets
        return targets


def read_targets(job: Job, path: Path) -> Iterator[Found]:
    """The targets in a JSON file. Raises OSError, TargetFileError."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise TargetFileError(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
    try:
        groups = json.loads(content)
    except ValueError as cause:
        raise TargetFileError(f"{path}: not JSON: {cause}") from cause
    for place, group in enumerate(_a_list(groups, str(path))):
        where = f"{path}: {place}"
        if not isinstance(group, dict):
            raise TargetFileError(f"{where}: {_short(group)}; expected an object with targets and labels")
        labels = group.get("labels") or {}
        if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
            raise TargetFileError(f"{where}.labels: {_short(labels)}; expected texts by name")
        for target in _a_list(group.get("targets"), f"{where}.targets"):
            yield Found(job, _url(target, labels, where), _labels(labels))


def _a_list(value: Any, where: str) -> list[Any]:  # noqa: ANN401 - JSON is any structure
    if not isinstance(value, list):
        raise TargetFileError(f"{where}: {_short(value)}; expected a list")
    return value


def _url(target: Any, labels: Mapping[str, str], where: str) -> str:  # noqa: ANN401 - JSON is any structure
    if not isinstance(target, str):
        raise TargetFileError(f"{where}.targets: {_short(target)}; expected HOST:PORT")
    try:
        if "://" in target:
            return check_target(target)
        return check_target(f"{labels.get(_SCHEME, 'http')}://{target}{labels.get(_PATH, '/metrics')}")
    except ValueError as cause:
        raise TargetFileError(f"{where}.targets: {_short(target)}: {cause}") from cause


def _labels(labels: Mapping[str, str]) -> tuple[Label, ...]:
    """Those that records may have; what begins with __ is for Prometheus."""
    usable = [
        Label(key, text)
        for key, text in labels.items()
        if not key.startswith("__") and len(key) <= MAX_NAME_BYTES and 0 < len(text.encode()) <= MAX_NAME_BYTES
    ]
    return tuple(usable[:MAX_LABELS])


def _short(value: Any) -> str:  # noqa: ANN401 - whatever stood in the file
    return repr(value)[:80]
