"""The agent's YAML file: one definition is its schema, its defaults and the source of its error messages."""

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from agents.health.settings import HealthFile
from agents.metric_labels import MAX_PROBES, MaxProbes, MetricLabels
from agents.probes.base import Probe, ProbeKind
from agents.probes.registry import PluginError, UnknownKindError, probe_kind, probe_kind_names, probe_kinds
from agents.scrape.settings import ScrapeFile
from agents.targets.probe import TargetedProbe
from agents.targets.settings import TargetsFile
from agents.targets.template import plain, sampled_probe
from agents.tracing import TraceFile
from schemas.documents import DocumentError, parse, position
from schemas.kafka.settings import SecurityFile
from schemas.listen import ListenAddress, listen_address
from schemas.records import Label
from schemas.yaml_files import only_document, read_bytes

MAX_NAME_BYTES = 255
NODE_ID = "FLEETBEAT_NODE_ID"
MAX_LABELS = 32
DEFAULT_TIMEOUT_S = 5.0
VERSION_DIGITS = 12
_LAST_PORT = 65_535


def _check_name(text: str) -> str:
    size = len(text.encode(errors="replace"))
    if not 1 <= size <= MAX_NAME_BYTES or not text.isprintable():
        raise ValueError(f"{size} bytes; expected 1 to {MAX_NAME_BYTES} bytes of printable text")
    return text


def _check_label_key(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError("expected a letter or _, then letters, digits, _, . and -, 63 at most")
    return text


def _check_listen(text: str) -> str:
    listen_address(text)
    return text


def check_brokers(text: str) -> str:
    """The text, when it is Kafka's addresses. Raises ValueError."""
    for address in text.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= _LAST_PORT:
            raise ValueError(f"{address.strip()!r}; expected HOST:PORT, several separated by commas")
    return text


Name = Annotated[str, AfterValidator(_check_name)]
LabelKey = Annotated[str, AfterValidator(_check_label_key)]
Labels = Annotated[dict[LabelKey, Name], Field(max_length=MAX_LABELS)]
Seconds = Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class NodeFile(_Strict):
    """Who this host is; without an id it is called by $FLEETBEAT_NODE_ID, else by its host name.

    With a key, of `fleetbeat enroll`, it signs.
    """

    id: Name | None = None
    region: Name = "default"
    zone: Name = "default"
    labels: Labels = {}
    key_file: Path | None = None


class KafkaFile(SecurityFile):
    """Where records go, and what becomes of them while Kafka does not take any."""

    brokers: Annotated[str, AfterValidator(check_brokers)] = "127.0.0.1:19092"
    compression: Literal["lz4", "zstd"] = "lz4"
    buffer_records: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    give_up_after_s: Seconds = 120


class SpoolFile(_Strict):
    """Where records are kept on disk until Kafka has them, by topic, and what becomes of them when it never does.

    Without a `dir` in $STATE_DIRECTORY, which systemd sets; where that is not set either, in memory alone.
    """

    dir: Annotated[str, Field(min_length=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1_048_576, le=1_099_511_627_776)] = 67_108_864
    max_age_s: Annotated[float, Field(ge=1, le=3_024_000, allow_inf_nan=False)] = 86_400
    when_full: Literal["drop_oldest", "drop_newest", "block"] = "drop_oldest"
    fsync_after_s: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 10


class HeartbeatFile(_Strict):
    """How often the node says that it is alive."""

    interval_s: Seconds = 10


class MetricsFile(_Strict):
    """Where /metrics, /-/healthy and /-/ready answer; null: nowhere. Probes' own `labels` are shown when listed here.

    `max_probes` of them have series of their own, the others share one set.
    """

    listen: Annotated[str, AfterValidator(_check_listen)] | None = "127.0.0.1:9118"
    labels: MetricLabels = ()
    max_probes: MaxProbes = MAX_PROBES


class ProbeFile(_Strict):
    """A probe; beside these keys stands the name of its kind, and below that the kind's own settings."""

    name: Name
    service: Name
    endpoint: Name | None = None
    every_s: Seconds = 15
    timeout_s: Seconds | None = None
    impact: Literal["P0", "P1", "P2"] | None = None
    labels: Labels = {}
    targets: TargetsFile | None = None

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
            raise ValueError(f"has no kind; expected one of the keys {', '.join(probe_kind_names())}")
        if len(kinds) > 1:
            raise ValueError(f"has the kinds {' and '.join(kinds)}; expected one: write two probes")
        return self

    def kinds(self) -> dict[str, BaseModel]:
        """The settings that stand below the names of kinds."""
        fields = type(self).model_fields
        found = {str(field.alias): getattr(self, name) for name, field in fields.items() if field.alias is not None}
        return {kind: settings for kind, settings in found.items() if settings is not None}


class AgentFile(_Strict):
    """The file as a whole. `workers` run probes at the same time, at most `queue` wait for one."""

    node: NodeFile = NodeFile()
    kafka: KafkaFile = KafkaFile()
    spool: SpoolFile | None = SpoolFile()
    heartbeat: HeartbeatFile = HeartbeatFile()
    metrics: MetricsFile = MetricsFile()
    health: HealthFile = HealthFile()
    workers: Annotated[int, Field(ge=1, le=10_000)] = 512
    queue: Annotated[int, Field(ge=1, le=100_000)] = 10_000
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
    """What the agent runs by. `id_is_given`: the file names the node; else its surroundings do.

    `version` is made of the file's bytes: `sha256sum agent.yaml` begins with it.
    """

    node_id: str
    id_is_given: bool
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


def load_agent(path: Path) -> AgentConfig:
    """The config in a file, its probes built. Raises schemas.documents.DocumentError with every problem found."""
    return build_agent(read_bytes(path), path)


def build_agent(content: bytes, path: Path) -> AgentConfig:
    """The config that these bytes of a file are. Raises DocumentError with every problem found."""
    document = only_document(content, path)
    kinds = _kinds(document, path)
    file = parse(document, _file_model(kinds), str(path))
    _refuse_doubles(file, document, path)
    specs = _specs(file, kinds, document, path)
    targeted = _targeted(file, kinds, specs, document, path)
    # The variable is for where one file is everybody's, and host names are no names of hosts: Kubernetes.
    node_id = file.node.id or os.environ.get(NODE_ID) or socket.gethostname()
    return AgentConfig(
        node_id=node_id,
        id_is_given=file.node.id is not None or NODE_ID in os.environ,
        key_file=file.node.key_file,
        region=file.node.region,
        zone=file.node.zone,
        labels=_labels(file.node.labels),
        kafka=file.kafka,
        spool=file.spool,
        interval_s=file.heartbeat.interval_s,
        listen=None if file.metrics.listen is None else listen_address(file.metrics.listen),
        workers=file.workers if targeted else max(1, min(file.workers, len(file.probes))),
        queue=file.queue,
        trace=file.trace,
        probes=tuple(spec for spec, probe in zip(specs, file.probes, strict=True) if probe.targets is None),
        targeted=targeted,
        health=file.health,
        metrics=file.metrics,
        scrapes=tuple(file.scrapes),
        file=file,
        version=config_version(content),
    )


def config_version(content: bytes) -> str:
    """Names the file that an agent runs by."""
    return hashlib.sha256(content).hexdigest()[:VERSION_DIGITS]


def _kinds(document: object, path: Path) -> dict[str, ProbeKind[Any]]:
    """The kinds that the file's probes name. Raises DocumentError for keys that are neither field nor kind."""
    kinds: dict[str, ProbeKind[Any]] = {}
    problems = []
    for place, key in _unusual_keys(document):
        if key in kinds:
            continue
        try:
            kinds[key] = probe_kind(key)
        except UnknownKindError:
            expected = f"{', '.join(ProbeFile.model_fields)}, or a kind of probe: {', '.join(probe_kind_names())}"
            problems.append(_problem(path, document, ("probes", place, key), f"unknown key; expected {expected}"))
        except PluginError as cause:
            problems.append(_problem(path, document, ("probes", place, key), str(cause)))
    if problems:
        raise DocumentError(problems)
    return kinds


def _unusual_keys(document: object) -> Iterator[tuple[int, str]]:
    """(place of the probe, key) of all that is no field of ProbeFile; what has the wrong shape is left to pydantic."""
    probes = document.get("probes") if isinstance(document, dict) else None
    for place, probe in enumerate(probes if isinstance(probes, list) else ()):
        for key in probe if isinstance(probe, dict) else ():
            if isinstance(key, str) and key not in ProbeFile.model_fields:
                yield place, key


def _file_model(kinds: Mapping[str, ProbeKind[Any]]) -> type[AgentFile]:
    """AgentFile whose probes may have these kinds; by alias, since a plugin's name need be no name in Python."""
    fields: dict[str, Any] = {
        f"kind_{place}": (kind.config | None, Field(default=None, alias=name))
        for place, (name, kind) in enumerate(kinds.items())
    }
    probe = create_model("ProbeFile", __base__=ProbeFile, __doc__=ProbeFile.__doc__, **fields)
    return create_model("AgentFile", __base__=AgentFile, __doc__=AgentFile.__doc__, probes=(list[probe], []))  # type: ignore[valid-type]


def whole_model() -> type[AgentFile]:
    """The file's definition with every kind of probe there is, installed plugins too. Raises PluginError."""
    return _file_model(probe_kinds())


def _refuse_doubles(file: AgentFile, document: object, path: Path) -> None:
    first: dict[str, tuple[str, int]] = {}
    problems = []
    named = [("probes", *one) for one in enumerate(file.probes)] + [
        ("scrapes", *one) for one in enumerate(file.scrapes)
    ]
    for section, place, probe in named:
        if first.setdefault(probe.name, (section, place)) != (section, place):
            line, _ = position(document, (*first[probe.name], "name"))
            text = f"value {probe.name!r}: expected each name once; line {line} has it"
            problems.append(_problem(path, document, (section, place, "name"), text))
    if problems:
        raise DocumentError(problems)


def _specs(file: AgentFile, kinds: Mapping[str, ProbeKind[Any]], document: object, path: Path) -> tuple[ProbeSpec, ...]:
    specs, problems = [], []
    for place, probe in enumerate(file.probes):
        ((kind, settings),) = probe.kinds().items()
        try:
            specs.append(_spec(probe, kind, settings, kinds[kind].build(settings)))
        except ValueError as cause:
            problems.append(_problem(path, document, ("probes", place, kind), str(cause)))
    if problems:
        raise DocumentError(problems)
    return tuple(specs)


def _targeted(
    file: AgentFile,
    kinds: Mapping[str, ProbeKind[Any]],
    specs: Sequence[ProbeSpec],
    document: Any,  # noqa: ANN401 - YAML is any structure
    path: Path,
) -> tuple[TargetedProbe, ...]:
    """Those with targets. Raises DocumentError, also for targets in the file that do not fit."""
    found, problems = [], []
    for place, (probe, spec) in enumerate(zip(file.probes, specs, strict=True)):
        if probe.targets is not None:
            template = plain(document["probes"][place][spec.kind])
            found.append(TargetedProbe(spec, kinds[spec.kind], template, probe.targets))
            for which, text in found[-1].misfits():
                problems.append(_problem(path, document, ("probes", place, "targets", "list", which), text))
    if problems:
        raise DocumentError(problems)
    return tuple(found)


def _spec(file: ProbeFile, kind: str, settings: BaseModel, probe: Probe) -> ProbeSpec:
    return ProbeSpec(
        name=file.name,
        kind=kind,
        service=file.service,
        endpoint=file.endpoint or file.name,
        every_s=file.every_s,
        timeout_s=min(DEFAULT_TIMEOUT_S, file.every_s) if file.timeout_s is None else file.timeout_s,
        impact=file.impact,
        labels=_labels(file.labels),
        probe=probe,
        settings=settings,
    )


def _labels(labels: Mapping[str, str]) -> tuple[Label, ...]:
    return tuple(Label(key, value) for key, value in labels.items())


def _problem(path: Path, document: object, place: tuple[str | int, ...], text: str) -> str:
    line, column = position(document, place)
    return f"{path}:{line}:{column}: {'.'.join(map(str, place))}: {text}"
