"""`fleetbeat reconcile` from arguments to exit status."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from aiokafka.errors import KafkaError
from rich.console import Console

from schemas.kafka import Brokers
from streams.engine.brokers import NotPreparedError
from streams.engine.changelog import ChangelogSilentError
from streams.history.rows import RawRows, RawRowsError
from streams.history.sums import Span
from streams.slo_command import CannotReadError, read_timeline
from streams.sql.client import Endpoint, ServerError, UnreachableError
from streams.sql.library import read_time
from streams.sql.run import DEFAULT_URL, URL_VARIABLE
from streams.state.changes import utc
from streams.state.cluster import StateError, connected
from streams.state.reconcile import Asked, Finding, Say, reconcile

_MOST_LINES = 200
COULD_NOT = (
    StateError,
    RawRowsError,
    ServerError,
    UnreachableError,
    CannotReadError,
    NotPreparedError,
    ChangelogSilentError,
    KafkaError,
)


class Exit(IntEnum):
    """What a script can tell from the exit status."""

    EQUAL = 0
    DIFFERENT = 1
    COULD_NOT = 2


class SpanError(ValueError):
    """No stretch of time."""


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """As given on the command line; `clickhouse` without a URL is the usual one."""

    from_: str
    to: str
    minutes: bool
    clickhouse: str | None
    brokers: Brokers
    wait_s: float
    as_json: bool


def run_reconcile(options: ReconcileOptions) -> int:
    """Prints what was found; returns an Exit. Raises ValueError for what cannot be asked."""
    span = read_span(options.from_, options.to, datetime.now(UTC))
    rows = RawRows(endpoint_of(options.clickhouse))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its words come as a StateError
    try:
        with progress("comparing") as say:
            finding = asyncio.run(_reconciled(options, rows, span, say))
    except COULD_NOT as cause:
        sys.stderr.write(f"could not be compared: {cause}\n")
        return Exit.COULD_NOT
    print(json.dumps(as_json(finding)) if options.as_json else "\n".join(describe(finding)))
    if finding.nothing:
        what = "minute" if options.minutes else "whole hour"
        sys.stderr.write(
            f"could not be compared: no {what} from {utc(span.start_s * 1_000)} to {utc(span.end_s * 1_000)} of which "
            f"both sides hold events; expected a longer time{'' if options.minutes else ', or --minutes'}\n"
        )
        return Exit.COULD_NOT
    return Exit.EQUAL if finding.equal else Exit.DIFFERENT


async def _reconciled(options: ReconcileOptions, rows: RawRows, span: Span, say: Say) -> Finding:
    timeline = await read_timeline(options.brokers)
    async with connected(options.brokers) as cluster:
        return await reconcile(cluster, rows, timeline, Asked(span, options.minutes, options.wait_s), say)


def read_span(from_: str, to: str, now: datetime) -> Span:
    """Raises SpanError."""
    begin, end = (seconds_of(option, text, now) for option, text in (("--from", from_), ("--to", to)))
    if begin >= end:
        raise SpanError(f"--from {from_} --to {to}: expected a time, and a later one")
    return Span(begin, end)


def seconds_of(option: str, text: str, now: datetime) -> int:
    """Raises SpanError."""
    try:
        return max(int(read_time(text, now).timestamp()), 0)
    except (ValueError, OverflowError):
        raise SpanError(
            f"{option} {text}: expected a time such as 2026-03-02T10:00:00Z, an age such as -24h, or now"
        ) from None


def endpoint_of(url: str | None) -> Endpoint:
    """Where to ask. Raises AddressError."""
    return Endpoint.parse(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)


class progress:  # noqa: N801 - used like a function
    """What goes on, on stderr: one line drawn in place on a terminal, plain lines elsewhere."""

    def __init__(self, what: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status(what)

    def __enter__(self) -> Say:
        if self._console.is_terminal:
            self._status.start()
        return self._say

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def _say(self, line: str) -> None:
        if self._console.is_terminal:
            self._status.update(line)
        else:
            sys.stderr.write(f"{line}\n")


def describe(finding: Finding) -> Iterator[str]:
    """Lines for people."""
    for each in finding.left_out:
        yield f"left out: {utc(each.span.start_s * 1_000)} to {utc(each.span.end_s * 1_000)}: {each.why}"
    for why in finding.lost.values():
        yield f"lost: {why} (`fleetbeat state rebuild --clickhouse` makes them anew)"
    for tier, one in finding.differences[:_MOST_LINES]:
        yield f"{one.series} {utc(one.start_s * 1_000)} {tier} {one.field}: stream {one.stream}, raw {one.raw}"
    if len(finding.differences) > _MOST_LINES:
        yield f"and {len(finding.differences) - _MOST_LINES} more (--json has all)"
    if finding.not_sealed:
        yield f"{finding.not_sealed} events are not sealed yet, once for each series, and were left out of both sides"
    for tier, steps in finding.compared.items():
        span = finding.spans[tier]
        yield f"{tier}: {steps} steps of series from {utc(span.start_s * 1_000)} to {utc(span.end_s * 1_000)} compared"
    verdict = "equal" if finding.equal else f"{len(finding.differences)} differences, {len(finding.lost)} lost"
    if finding.nothing:
        verdict = "nothing was compared"
    yield f"{finding.events} events, once for each series: {verdict}"


def as_json(finding: Finding) -> dict[str, Any]:
    """All of it."""
    return {
        "equal": finding.equal,
        "events": finding.events,
        "not_sealed": finding.not_sealed,
        "compared": finding.compared,
        "spans": {tier: asdict(span) for tier, span in finding.spans.items()},
        "left_out": [{**asdict(each.span), "why": each.why} for each in finding.left_out],
        "lost": {str(partition): why for partition, why in finding.lost.items()},
        "differences": [{"tier": tier, **asdict(each)} for tier, each in finding.differences],
    }
