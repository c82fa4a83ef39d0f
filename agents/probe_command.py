"""`fleetbeat probe`: runs one configured probe once and shows how it went, phase by phase."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from agents.clock import SystemClock
from agents.config import ProbeSpec, load_agent
from agents.probes.base import Down, Outcome, Timeout, Up
from agents.run import run_probe
from agents.targets.groups import Target, check_address

UP, NOT_UP = 0, 1


class NoSuchProbeError(ValueError):
    """The config has no probe of that name."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What `fleetbeat probe` can be told."""

    name: str
    config: Path
    debug: bool = False
    target: str | None = None


def run_probe_command(options: ProbeOptions) -> int:
    """0 when the probe was up, 1 when not. Raises DocumentError, NoSuchProbeError."""
    spec = _chosen(options)
    outcome = asyncio.run(run_probe(spec, SystemClock()))
    print(*lines(spec, outcome, debug=options.debug), sep="\n")
    return UP if isinstance(outcome, Up) else NOT_UP


def _chosen(options: ProbeOptions) -> ProbeSpec:
    """Raises DocumentError, NoSuchProbeError."""
    config = load_agent(options.config)
    targeted = {probe.name: probe for probe in config.targeted}
    if (probe := targeted.get(options.name)) is not None:
        if options.target is None:
            raise NoSuchProbeError(f"{options.config}: probe {options.name!r} has targets; expected one: --target")
        try:
            return probe.spec(Target(check_address(options.target)))
        except ValueError as cause:
            raise NoSuchProbeError(f"--target: {cause}") from cause
    specs = {spec.name: spec for spec in config.probes}
    if options.name not in specs:
        known = ", ".join((*specs, *targeted)) or "none: it has no probes"
        raise NoSuchProbeError(f"{options.config}: no probe {options.name!r}; expected one of: {known}")
    if options.target is not None:
        raise NoSuchProbeError(f"{options.config}: probe {options.name!r} has no targets; expected no --target")
    return specs[options.name]


def lines(spec: ProbeSpec, outcome: Outcome, *, debug: bool) -> Iterator[str]:
    """What is shown: the verdict, the phases that took place, and for `debug` how the probe is set up and its notes."""
    yield f"{spec.name}: {_verdict(outcome)}"
    for field in fields(outcome.phases):
        spent_us = getattr(outcome.phases, field.name)
        if spent_us is not None:
            yield f"  {field.name.removesuffix('_us').replace('_', ' '):<10} {_ms(spent_us):>10}"
    yield f"  {'in all':<10} {_ms(outcome.latency_us):>10}"
    if outcome.status_code is not None:
        yield f"  status code {outcome.status_code}"
    if debug:
        yield f"  {spec.kind} probe of {spec.service} {spec.endpoint}, timeout {spec.timeout_s:g} s"
        yield from (f"  {note}" for note in outcome.notes)


def _verdict(outcome: Outcome) -> str:
    match outcome:
        case Up():
            return "up"
        case Down(reason=reason, detail=detail):
            return f"down ({reason}): {detail}"
        case Timeout(phase=phase):
            return f"timeout in phase {phase.replace('_', ' ')}"


def _ms(us: int) -> str:
    return f"{us / 1_000:,.3f} ms"
