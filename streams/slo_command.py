"""`fleetbeat slo`: which objectives judge and since when, as the topic `objectives` has it."""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka.errors import KafkaError

from schemas.kafka import Brokers
from streams.core.drill_down import NextQuery, selected, threshold
from streams.core.objectives import Objective
from streams.core.slices import SLICE_MS
from streams.core.sources import PROBES
from streams.core.versions import Era, Stretch, Timeline
from streams.engine.announcements import TOPIC, AnnouncementLog
from streams.engine.brokers import find_partitions
from streams.processors.versions import Versions

_FAILED = 1


class CannotReadError(RuntimeError):
    """The topic could not be read to its end."""


@dataclass(frozen=True, slots=True)
class SloOptions:
    """What `fleetbeat slo` was asked for; without an id, all of them."""

    brokers: Brokers
    slo: str | None = None


def run_slo_command(options: SloOptions) -> int:
    """The exit status. Raises NotPreparedError and CannotReadError."""
    timeline = asyncio.run(read_timeline(options.brokers))
    if not timeline.eras:
        sys.stderr.write(f"{TOPIC}: nothing was announced yet; a worker announces its file when it starts\n")
        return _FAILED
    lines = list(describe(timeline, time.time_ns() // 1_000_000, options.slo))
    if not lines:
        known = sorted({objective.id for era in timeline.eras for objective in era.objectives})
        sys.stderr.write(f"no objective {options.slo!r}; expected one of {known}\n")
        return _FAILED
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


async def read_timeline(brokers: Brokers) -> Timeline:
    """All that was announced. Raises NotPreparedError and CannotReadError."""
    await find_partitions(brokers, [TOPIC])
    try:
        async with AnnouncementLog(brokers) as log:
            versions = Versions(log, "")
            await versions.confirm()
    except (KafkaError, TimeoutError) as error:
        raise CannotReadError(f"brokers {brokers}: topic {TOPIC}: {error or type(error).__name__}") from error
    return versions.timeline


def describe(timeline: Timeline, now_ms: int, only: str | None = None) -> Iterator[str]:
    """For every objective that was ever announced: its promise, and each version with its stretch of time."""
    now = timeline.era(now_ms)
    last: dict[str, tuple[Era, Objective]] = {o.id: (era, o) for era in timeline.eras for o in era.objectives}
    for era, objective in last.values():
        if only not in {None, objective.id}:
            continue
        yield f"{objective.id}: {objective.target:.6g}{_slices(objective)} {_window(objective)}, {_good(objective)}"
        for stretch in timeline.stretches(objective.id):
            yield f"  {stretch.version}  {_span(stretch)}"
        if era.since_s > now.since_s:
            yield f"  what is promised changes at {_time(era.since_s)}"
        if objective.source == PROBES:
            yield f"  why: {NextQuery('worst_series', selected(objective) | threshold(objective)).command}"


def _slices(objective: Objective) -> str:
    slices = objective.time_slices
    return f" of slices of {slices.length_s} s, each {slices.target:.6g}" if slices else ""


def _window(objective: Objective) -> str:
    calendar = objective.calendar
    if calendar is None:
        return f"over {objective.window_s} s"
    return f"every {calendar.count}{calendar.unit} from {calendar.start} {calendar.zone}"


def _good(objective: Objective) -> str:
    what = " ".join(f"{name}={value}" for name, value in selected(objective).items()) or "everything"
    limit = "" if objective.latency_us_le is None else f" within {objective.latency_us_le} µs"
    return f"of {what}: good when it succeeds{limit}"


def _span(stretch: Stretch) -> str:
    since = _time(stretch.since_s) if stretch.since_s else "the beginning"
    return f"since {since}" if stretch.until_s is None else f"from {since} to {_time(stretch.until_s)}"


def _time(second: int) -> str:
    return datetime.fromtimestamp(second * SLICE_MS / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
