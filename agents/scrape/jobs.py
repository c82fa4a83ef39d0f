"""A configured scrape, ready to be run: what is asked for, and what is counted of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from agents.probes.regex import compiled
from agents.scrape.exposition import Wanted
from agents.scrape.meters import Endpoints, Matcher, Meter
from agents.scrape.settings import RequestsFile, ScrapeFile
from schemas.records import Label

DEFAULT_TIMEOUT_S = 5.0
_UNITS_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What all targets of a scrape have in common."""

    file: ScrapeFile
    endpoint: str
    timeout_s: float
    labels: tuple[Label, ...]
    meters: tuple[Endpoints, ...]
    wanted: Wanted


def job_of(file: ScrapeFile) -> Job:
    """The job that a part of the config describes."""
    labels = tuple(Label(key, value) for key, value in file.labels.items())
    meters = tuple(Endpoints(_meter(one, file, labels)) for one in file.requests)
    return Job(
        file=file,
        endpoint=file.endpoint or file.name,
        timeout_s=min(DEFAULT_TIMEOUT_S, file.every_s) if file.timeout_s is None else file.timeout_s,
        labels=labels,
        meters=meters,
        wanted=Wanted(name for one in meters for name in one.meter.samples),
    )


def _meter(file: RequestsFile, job: ScrapeFile, labels: tuple[Label, ...]) -> Meter:
    return Meter(
        metric=file.metric,
        is_histogram=file.histogram is not None,
        service=file.service or job.service,
        endpoint=file.endpoint or job.endpoint or job.name,
        unit_us=_UNITS_US[file.unit],
        endpoint_label=file.endpoint_label,
        max_endpoints=file.max_endpoints,
        is_required=file.required,
        where=_matcher(file.where or {}),
        good=None if file.good is None else _matcher(file.good),
        bad=None if file.bad is None else _matcher(file.bad),
        labels=labels,
    )


def _matcher(patterns: Mapping[str, str]) -> Matcher:
    return Matcher(tuple((label, compiled(pattern)) for label, pattern in patterns.items()))
