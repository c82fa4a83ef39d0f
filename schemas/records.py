"""The contract's records as frozen dataclasses; fields stand in Avro order, times are milliseconds UTC."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A free key with a value."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One node says that it is alive. `state` is UP, DRAINING or GOODBYE."""

    node_id: str
    ts: int
    boot_id: str
    boot_ts: int
    seq: int
    interval_ms: int
    state: str
    region: str
    zone: str
    agent_version: str
    health: int | None = None
    cpu_permille: int | None = None
    memory_permille: int | None = None
    disk_permille: int | None = None
    spooled: int = 0
    dropped: int = 0
    labels: tuple[Label, ...] = ()
    heartbeat_seq: int | None = None
    spool_age_ms: int | None = None
    config_version: str | None = None
    health_source: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of one probe on one node; durations in microseconds."""

    node_id: str
    ts: int
    boot_id: str
    seq: int
    probe: str
    kind: str
    service: str
    endpoint: str
    region: str
    success: bool
    latency_us: int
    resolve_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    first_byte_us: int | None = None
    transfer_us: int | None = None
    status_code: int | None = None
    error: str | None = None
    impact: str | None = None
    trace_id: str | None = None
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class BucketCount:
    """Requests of one latency bucket (`schemas.buckets`), and how many of them succeeded."""

    bucket: int
    total: int
    good: int


@dataclass(frozen=True, slots=True)
class RequestCount:
    """What one process of a service counted in the window of `window_ms` from `ts` on; durations in microseconds."""

    node_id: str
    ts: int
    window_ms: int
    boot_id: str
    seq: int
    service: str
    endpoint: str
    region: str
    total: int
    good: int
    sum_us: int = 0
    max_us: int = 0
    histogram: tuple[BucketCount, ...] = ()
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """How far one source partition is in a partial; `frontier` is an append time in ms."""

    partition: int
    applied_offset: int
    frontier: int | None = None


@dataclass(frozen=True, slots=True)
class SloPartial:
    """Cumulative cells for the owner of their series; `cells` is an Arrow IPC stream."""

    topic: str
    topic_id: str
    sources: tuple[Source, ...]
    series: tuple[str, ...]
    cells: bytes


@dataclass(frozen=True, slots=True)
class SloWindow:
    """Counts of one window [start, end) of event time."""

    window_s: int
    start: int
    end: int
    final: bool
    total: int
    good: int
    late: int
    sum_us: int
    max_us: int
    p50_us: int
    p90_us: int
    p99_us: int


@dataclass(frozen=True, slots=True)
class SloStatus:
    """One objective now, or one minute of it."""

    slo: str
    service: str
    objective_version: str
    target: float
    ts: int
    complete_to: int
    applied_offset: int
    windows: tuple[SloWindow, ...]


@dataclass(frozen=True, slots=True)
class ObjectiveVersion:
    """What one objective of a set selects, when an event of it is good, and what is promised."""

    slo: str
    version: str
    service: str
    display_name: str
    where_service: str | None
    where_endpoint: str | None
    where_region: str | None
    where_kind: str | None
    latency_us_le: int | None
    target: float
    window_s: int
    source: str = "probe-results"
    slice_s: int | None = None
    slice_target: float | None = None
    calendar_start: str | None = None
    calendar_zone: str | None = None
    calendar_count: int | None = None
    calendar_unit: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveRule:
    """A burn rule of the objective `slo`."""

    slo: str
    name: str
    severity: str
    factor: float
    long_s: int
    short_s: int


@dataclass(frozen=True, slots=True)
class ObjectiveSet:
    """All objectives from a slice on; `start` is the earliest that is asked for."""

    start: int
    announced_by: str
    objectives: tuple[ObjectiveVersion, ...]
    rules: tuple[ObjectiveRule, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node (`kind` NODE) is now and since when, or a zone (ZONE)."""

    subject: str
    kind: str
    state: str
    previous: str | None
    reason: str
    since: int
    last_seen: int
    region: str
    zone: str
    boot_ts: int
    interval_ms: int
    nodes: int
    nodes_known: int
    partition: int
    applied_offset: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, with its reason and where it came from."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    append_ts: int
    detected_by: str
    key: bytes | None
    value: bytes | None
    value_bytes: int


@dataclass(frozen=True, slots=True)
class DeadLetterReplay:
    """How far the replay of a dead letter is: `state` INTENT before its record is sent, DONE with it."""

    topic: str
    partition: int
    offset: int
    append_ts: int
    state: str
    target_partition: int
    target_offset: int
    correction: str = ""


Record = (
    Heartbeat
    | ProbeResult
    | RequestCount
    | SloPartial
    | SloStatus
    | ObjectiveSet
    | NodeState
    | DeadLetter
    | DeadLetterReplay
)

RECORD_TYPES: dict[str, type[Record]] = {
    "heartbeats": Heartbeat,
    "probe-results": ProbeResult,
    "request-counts": RequestCount,
    "slo-partials": SloPartial,
    "slo-status": SloStatus,
    "objectives": ObjectiveSet,
    "node-states": NodeState,
    "dead-letters": DeadLetter,
    "dead-letter-replays": DeadLetterReplay,
}
