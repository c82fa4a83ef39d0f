"""Target groups as Prometheus writes them, in JSON, as exporters of a job."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.fields import MAX_LABELS, MAX_NAME_BYTES
from agents.scrape.jobs import Job
from agents.scrape.settings import check_target
from schemas.records import Label

MAX_FILE_BYTES = 16 << 20
_SCHEME, _PATH = "__scheme__", "__metrics_path__"


@dataclass(frozen=True, slots=True)
class Found:
    """An exporter of a job; `labels` are those of its group, for the records of its scrapes."""

    job: Job
    url: str
    labels: tuple[Label, ...] = ()


class TargetsError(ValueError):
    """Target groups that cannot be used."""


def read_targets(job: Job, path: Path) -> Iterator[Found]:
    """The targets in a JSON file. Raises OSError, TargetsError."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise TargetsError(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
    try:
        groups = json.loads(content)
    except ValueError as cause:
        raise TargetsError(f"{path}: not JSON: {cause}") from cause
    yield from targets_in(job, groups, str(path))


def targets_in(job: Job, groups: object, place: str) -> Iterator[Found]:
    """The targets of `[{"targets": [...], "labels": {...}}]`, which stands at `place`. Raises TargetsError."""
    for number, group in enumerate(_a_list(groups, place)):
        where = f"{place}: {number}"
        if not isinstance(group, dict):
            raise TargetsError(f"{where}: {_short(group)}; expected an object with targets and labels")
        labels = group.get("labels") or {}
        if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
            raise TargetsError(f"{where}.labels: {_short(labels)}; expected texts by name")
        for target in _a_list(group.get("targets"), f"{where}.targets"):
            yield Found(job, _url(target, labels, where), _labels(labels))


def _a_list(value: Any, where: str) -> list[Any]:  # noqa: ANN401 - JSON is any structure
    if not isinstance(value, list):
        raise TargetsError(f"{where}: {_short(value)}; expected a list")
    return value


def _url(target: Any, labels: Mapping[str, str], where: str) -> str:  # noqa: ANN401 - JSON is any structure
    if not isinstance(target, str):
        raise TargetsError(f"{where}.targets: {_short(target)}; expected HOST:PORT")
    try:
        if "://" in target:
            return check_target(target)
        return check_target(f"{labels.get(_SCHEME, 'http')}://{target}{labels.get(_PATH, '/metrics')}")
    except ValueError as cause:
        raise TargetsError(f"{where}.targets: {_short(target)}: {cause}") from cause


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
