"""What may stand in the agent's YAML file, and what it means: one definition is schema, defaults and error messages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agents.fields import Labels, Name, Seconds
from agents.health.settings import HealthFile
from agents.metric_labels import MAX_PROBES, MaxProbes, MetricLabels
from agents.probes.base import Probe
from agents.probes.registry import probe_kind_names
from agents.scrape.settings import ScrapeFile
from agents.targets.probe import TargetedProbe
from agents.targets.settings import TargetsFile
from agents.targets.template import sampled_probe
from agents.tracing import TraceFile
from schemas.kafka.settings import SecurityFile, check_addresses
from schemas.listen import ListenAddress, listen_address
from schemas.records import Label

DEFAULT_TIMEOUT_S = 5.0
NO_KIND = "has no kind"
IdFrom = Literal["config", "FLEETBEAT_NODE_ID", "host name"]


def _check_listen(text: str) -> str:
    listen_address(text)
    return text


def _says(text: str) -> Any:  # noqa: ANN401 - pydantic's own word for it
    return Field(description=text)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class NodeFile(_Strict):
    """Who this host is."""

    id: Annotated[Name | None, _says("The key of every record; without it $FLEETBEAT_NODE_ID, else the host name.")] = (
        None
    )
    region: Annotated[Name, _says("In every heartbeat and result.")] = "default"
    zone: Annotated[Name, _says("In every heartbeat.")] = "default"
    labels: Annotated[Labels, _says("In every heartbeat.")] = {}
    key_file: Annotated[Path | None, _says("With a key, of `fleetbeat enroll`, it signs.")] = None


class KafkaFile(SecurityFile):
    """Where records go, and what becomes of them while Kafka does not take any."""

    brokers: Annotated[str, AfterValidator(check_addresses), _says("HOST:PORT, several separated by commas.")] = (
        "127.0.0.1:19092"
    )
    compression: Annotated[Literal["lz4", "zstd"], _says("Of batches on their way to Kafka.")] = "lz4"
    buffer_records: Annotated[
        int, Field(ge=1, le=1_000_000), _says("Of each topic, in memory, where there is no spool or its disk is full.")
    ] = 10_000
    give_up_after_s: Annotated[Seconds, _says("What waits in memory for longer is dropped and counted.")] = 120


class SpoolFile(_Strict):
    """Where records are kept on disk until Kafka has them, by topic, and what becomes of them when it never does."""

    dir: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        _says("Without it $STATE_DIRECTORY/spool, as systemd sets it; where that is not set, in memory alone."),
    ] = None
    max_bytes: Annotated[int, Field(ge=1_048_576, le=1_099_511_627_776), _says("Of each topic.")] = 67_108_864
    max_age_s: Annotated[
        float, Field(ge=1, le=3_024_000, allow_inf_nan=False), _says("What waits for longer is dropped and counted.")
    ] = 86_400
    when_full: Annotated[
        Literal["drop_oldest", "drop_newest", "block"], _says("What gives way; with `block` probes wait for room.")
    ] = "drop_oldest"
    fsync_after_s: Annotated[
        float,
        Field(ge=1, le=3_600, allow_inf_nan=False),
        _says("What waits for so long is synced to the disk, to outlive a loss of power."),
    ] = 10


class HeartbeatFile(_Strict):
    """How often the node says that it is alive."""

    interval_s: Annotated[Seconds, _says("Between two heartbeats, give or take a twentieth.")] = 10


class MetricsFile(_Strict):
    """What the agent says of itself over HTTP."""

    listen: Annotated[
        Annotated[str, AfterValidator(_check_listen)] | None,
        _says("Where /metrics, /-/healthy, /-/ready and POST /-/reload answer, on loopback; null: nowhere."),
    ] = "127.0.0.1:9118"
    labels: Annotated[MetricLabels, _says("Those of the probes' `labels` that /metrics shows.")] = ()
    max_probes: Annotated[MaxProbes, _says("With series of their own; the others share one set.")] = MAX_PROBES


class ProbeFile(_Strict):
    """A probe; beside these keys stands the name of its kind, and below that the kind's own settings."""

    name: Annotated[Name, _says("Once in a file: results, metrics and the schedule know it by that.")]
    service: Annotated[Name, _says("What its results count for; objectives select by it.")]
    endpoint: Annotated[Name | None, _says("As `service`; without it the name.")] = None
    every_s: Annotated[Seconds, _says("Its period.")] = 15
    timeout_s: Annotated[Seconds | None, _says("At most `every_s`; without it 5, or `every_s` when that is less.")] = (
        None
    )
    impact: Annotated[Literal["P0", "P1", "P2"] | None, _says("How much it matters when it fails.")] = None
    labels: Annotated[Labels, _says("Go with each of its results.")] = {}
    targets: Annotated[TargetsFile | None, _says("One probe for each of them.")] = None

    @model_validator(mode="before")
    @classmethod
    def _stands_for_all_targets(cls, data: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        return sampled_probe(data, ProbeFile.model_fields)

    @model_validator(mode="after")
    def _has_no_endpoint_beside_targets(self) -> Self:
        if self.targets is not None and self.endpoint is not None:
            raise ValueError(f"endpoint {self.endpoint!r} beside targets; expected one: each target is an endpoint")
        return self

    @model_validator(mode="after")
    def _ends_before_the_next(self) -> Self:
        if self.timeout_s is not None and self.timeout_s > self.every_s:
            raise ValueError(f"timeout_s {self.timeout_s:g}; expected at most every_s, {self.every_s:g}")
        return self

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = sorted(self.kinds())
        if not kinds:
            raise ValueError(f"{NO_KIND}; expected one of the keys {', '.join(probe_kind_names())}")
        if len(kinds) > 1:
            raise ValueError(f"has the kinds {' and '.join(kinds)}; expected one: write two probes")
        return self

    def kinds(self) -> dict[str, BaseModel]:
        """The settings that stand below the names of kinds."""
        fields = type(self).model_fields
        found = {str(field.alias): getattr(self, name) for name, field in fields.items() if field.alias is not None}
        return {kind: settings for kind, settings in found.items() if settings is not None}


class AgentFile(_Strict):
    """Who the host is, where its records go, and what it probes. Everything may be left out."""

    node: NodeFile = NodeFile()
    kafka: KafkaFile = KafkaFile()
    spool: Annotated[SpoolFile | None, _says("`null`: records wait in memory, and are lost with the process.")] = (
        SpoolFile()
    )
    heartbeat: HeartbeatFile = HeartbeatFile()
    metrics: MetricsFile = MetricsFile()
    health: HealthFile = HealthFile()
    workers: Annotated[int, Field(ge=1, le=10_000), _says("Probes that run at once, at most.")] = 512
    queue: Annotated[int, Field(ge=1, le=100_000), _says("Probes that wait for a worker, at most.")] = 10_000
    trace: TraceFile = TraceFile()
    probes: list[ProbeFile] = []
    scrapes: list[ScrapeFile] = []


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One configured probe, built."""

    name: str
    kind: str
    service: str
    endpoint: str
    every_s: float
    timeout_s: float
    impact: str | None
    labels: tuple[Label, ...]
    probe: Probe
    settings: BaseModel | None = None
    """What the probe was built from; None when it was not built from a file."""
    target: str | None = None
    """Which one it is, of a probe with targets."""

    @property
    def key(self) -> str:
        """No other probe of this agent has it."""
        return self.name if self.target is None else f"{self.name}\0{self.target}"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the agent runs by. `id_from`: who names the node, the file or its surroundings.

    `version` is made of the file's bytes: `sha256sum agent.yaml` begins with it.
    """

    node_id: str
    id_from: IdFrom
    key_file: Path | None
    region: str
    zone: str
    labels: tuple[Label, ...]
    kafka: KafkaFile
    spool: SpoolFile | None
    interval_s: float
    listen: ListenAddress | None
    workers: int
    queue: int
    trace: TraceFile
    probes: tuple[ProbeSpec, ...]
    targeted: tuple[TargetedProbe, ...]
    health: HealthFile
    metrics: MetricsFile
    scrapes: tuple[ScrapeFile, ...]
    file: AgentFile
    version: str
