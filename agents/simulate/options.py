"""What `fleetbeat simulate` can be told, and what follows from it: how busy the fleet is and when it starts."""

from dataclasses import dataclass
from pathlib import Path

from agents.simulate.config import MAX_REQUESTS_PER_S
from agents.simulate.fleet import Plan
from agents.simulate.script import Script
from schemas.event_time import LAST_MS, PAST_LIMIT_MS
from schemas.kafka import Brokers

UNPACED_RESULTS_PER_S = 1_000_000.0
# Events must still be inside the contract's past when the last of a slow run arrives.
_PAST_MARGIN_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What `fleetbeat simulate` can be told.

    `rate` is probe results a second of the whole fleet in event time, on top of a heartbeat a node every
    `interval_s`; None is one a node and second, or UNPACED_RESULTS_PER_S. `requests_per_s` are requests that services
    count themselves and send as counts; None is what the script says, else none. A run ends after `duration_s` of event
    time or when `events` were drawn, whatever comes first; paced it may have neither and then goes on until it
    is stopped. What is held back (late, cut off) when a run ends is sent at the end.

    Paced, event time is the clock. Unpaced (`events` or `duration_s` needed) event time starts as far back as
    the run is long at `rate`, ends about when the run starts and never passes the clock, so every time lies
    inside what the contract takes; below 10 s of span a fast enough run has nothing late. The default rate is
    chosen for that. `start_ms` (ms UTC) sets the first moment (a future one is waited for)
    and with a seed makes a run repeatable to the byte of each record.
    """

    brokers: Brokers
    nodes: int = 1_000
    services: int | None = None
    endpoints: int | None = None
    regions: int | None = None
    rate: float | None = None
    requests_per_s: float | None = None
    interval_s: float = 10.0
    duration_s: float | None = None
    events: int | None = None
    unpaced: bool = False
    seed: int | None = None
    ledger: Path | None = None
    script: Path | None = None
    start_ms: int | None = None


def check(options: SimulateOptions) -> None:
    """Raises ValueError with one sentence a line."""
    problems = []
    for name, low, high in (
        ("nodes", 1, 4_000_000),
        ("services", 1, 10_000),
        ("endpoints", 1, 10_000),
        ("regions", 1, 1_000),
        ("rate", 0, 50_000_000),
        ("requests_per_s", 0, MAX_REQUESTS_PER_S),
        ("interval_s", 0.1, 3_600),
        ("duration_s", 0.001, 30 * 86_400),
        ("events", 1, 1_000_000_000),
        ("seed", 0, (1 << 64) - 1),
        ("start_ms", 0, LAST_MS),
    ):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            option = name.removesuffix("_s").removesuffix("_per").replace("_", "-")
            problems.append(f"--{option} {value}: expected {low:,} to {high:,}")
    if options.unpaced and options.events is None and options.duration_s is None:
        problems.append("--unpaced: expected --events or --duration beside it, else it would never end")
    if problems:
        raise ValueError("\n".join(problems))


def plan_of(options: SimulateOptions, script: Script) -> Plan:
    """The fleet that the options ask for."""
    usual = UNPACED_RESULTS_PER_S if options.unpaced else float(options.nodes)
    return Plan(
        nodes=options.nodes,
        results_per_s=usual if options.rate is None else options.rate,
        heartbeat_interval_ms=round(options.interval_s * 1_000),
        script=script,
    )


def span_ms(plan: Plan, events: int | None, duration_s: float | None) -> int:
    """How much event time a run of `events` or `duration_s`, whichever ends first, takes with all nodes up."""
    spans = [] if events is None else [events / plan.probes_per_s * 1_000]
    if duration_s is not None:
        spans.append(duration_s * 1_000)
    return round(min(spans))


def first_moment_ms(options: SimulateOptions, plan: Plan, now_ms: int) -> int:
    """Event time at which the run starts, ms UTC. Raises ValueError when it would be too long ago."""
    if options.start_ms is not None:
        start_ms = options.start_ms
    elif options.unpaced:
        start_ms = now_ms - span_ms(plan, options.events, options.duration_s)
    else:
        start_ms = now_ms
    if start_ms < now_ms - PAST_LIMIT_MS + _PAST_MARGIN_MS:
        days = (now_ms - start_ms) / 86_400_000
        raise ValueError(
            f"the first event would be {days:.1f} days old; expected at most 34: end sooner or raise --rate"
        )
    return start_ms
