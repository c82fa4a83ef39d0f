"""This node in this boot, and what it says about itself: heartbeats and the probe results that it signs."""

from dataclasses import dataclass

from agents.config import ProbeSpec
from agents.failures import TIMED_OUT
from agents.host import HostFacts
from agents.probes.base import Down, Outcome, Timeout, Up
from schemas.records import Heartbeat, Label, ProbeResult


@dataclass(frozen=True, slots=True)
class Node:
    """Who speaks. A boot begins when the agent starts: `boot_ts`, ms UTC, orders boots."""

    id: str
    region: str
    zone: str
    labels: tuple[Label, ...]
    boot_id: str
    boot_ts: int
    interval_ms: int
    version: str
    config_version: str | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """What one heartbeat says beyond who sends it."""

    ts: int
    heartbeat_seq: int
    state: str
    facts: HostFacts
    dropped: int
    spooled: int = 0
    spool_age_ms: int | None = None


def heartbeat(node: Node, beat: Beat, seq: int) -> Heartbeat:
    """The record of a heartbeat."""
    return Heartbeat(
        node_id=node.id,
        ts=beat.ts,
        boot_id=node.boot_id,
        boot_ts=node.boot_ts,
        seq=seq,
        interval_ms=node.interval_ms,
        state=beat.state,
        region=node.region,
        zone=node.zone,
        agent_version=node.version,
        health=beat.facts.health.score,
        health_source=beat.facts.health.source,
        cpu_permille=beat.facts.cpu_permille,
        memory_permille=beat.facts.memory_permille,
        disk_permille=beat.facts.disk_permille,
        spooled=beat.spooled,
        spool_age_ms=beat.spool_age_ms,
        dropped=beat.dropped,
        labels=node.labels,
        heartbeat_seq=beat.heartbeat_seq,
        config_version=node.config_version,
    )


def probe_result(  # noqa: PLR0913 - what a record is made of
    node: Node, spec: ProbeSpec, outcome: Outcome, ended_ms: int, seq: int, trace_id: str | None = None
) -> ProbeResult:
    """The record of a probe's outcome; `ended_ms` is the node's clock, UTC."""
    phases = outcome.phases
    return ProbeResult(
        node_id=node.id,
        ts=ended_ms,
        boot_id=node.boot_id,
        seq=seq,
        probe=spec.name,
        kind=spec.kind,
        service=spec.service,
        endpoint=spec.endpoint,
        region=node.region,
        success=isinstance(outcome, Up),
        latency_us=outcome.latency_us,
        resolve_us=phases.resolve_us,
        connect_us=phases.connect_us,
        tls_us=phases.tls_us,
        first_byte_us=phases.first_byte_us,
        transfer_us=phases.transfer_us,
        status_code=outcome.status_code,
        error=error_of(outcome),
        impact=spec.impact,
        trace_id=trace_id,
        labels=spec.labels,
    )


def error_of(outcome: Outcome) -> str | None:
    """The tag of a failure; None for none."""
    match outcome:
        case Up():
            return None
        case Down(reason=reason):
            return reason
        case Timeout():
            return TIMED_OUT
