"""From the bytes of an agent's file to what the agent runs by, or to all that is wrong with it at once."""

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from agents.config.file import DEFAULT_TIMEOUT_S, NO_KIND, AgentConfig, AgentFile, IdFrom, ProbeFile, ProbeSpec
from agents.probes.base import Probe, ProbeKind
from agents.probes.registry import PluginError, UnknownKindError, probe_kind, probe_kind_names, probe_kinds
from agents.targets.probe import TargetedProbe
from agents.targets.template import plain
from schemas.documents import judge, position
from schemas.listen import listen_address
from schemas.records import Label
from schemas.yaml_files import DocumentError, Problem, config_version, only_document, printable, read_bytes, short

NODE_ID = "FLEETBEAT_NODE_ID"

Kinds = Mapping[str, ProbeKind[Any]]


def load_agent(path: Path) -> AgentConfig:
    """The config in a file, its probes built. Raises schemas.documents.DocumentError with every problem found."""
    return build_agent(read_bytes(path), path)


def build_agent(content: bytes, path: Path) -> AgentConfig:
    """The config that these bytes of a file are. Raises DocumentError with every problem found."""
    problems: list[Problem] = []
    told = _Told(path, only_document(content, path, problems), problems)
    kinds = _kinds(told)
    file = judge(told.values(), _file_model(kinds), str(path), told.document)
    _tell_doubles(told)
    if isinstance(file, AgentFile):
        good = list(enumerate(file.probes))
    else:
        told.add_all(file)
        good = list(_good_probes(kinds, told))
    specs = [_built(place, probe, kinds, told) for place, probe in good]
    targeted = [_targeted(*one, kinds, spec, told) for one, spec in zip(good, specs, strict=True) if spec is not None]
    if problems or not isinstance(file, AgentFile):
        raise DocumentError([problem.sentence for problem in sorted(problems)])
    built = [spec for spec, many in zip(specs, targeted, strict=True) if spec is not None and many is None]
    return _config(file, tuple(built), tuple(filter(None, targeted)), config_version(content))


def whole_model() -> type[AgentFile]:
    """The file's definition with every kind of probe there is, installed plugins too. Raises PluginError."""
    return _file_model(probe_kinds())


@dataclass(frozen=True, slots=True)
class _Told:
    """A document and what is wrong with it so far. `strangers`: keys of probes, by place, that are told already."""

    path: Path
    document: Any
    problems: list[Problem]
    strangers: dict[int, set[str]] = field(default_factory=dict)

    def add(self, place: tuple[str | int, ...], text: str) -> None:
        line, column = position(self.document, place)
        dotted = ".".join(map(str, place))
        self.problems.append(Problem(line, column, f"{self.path}:{line}:{column}: {printable(dotted)}: {text}", place))

    def add_all(self, found: list[Problem]) -> None:
        """But that a probe has no kind is no news where the name of its kind is what is wrong."""
        named = {("probes", place) for place in self.strangers}
        self.problems.extend(one for one in found if not (one.path in named and NO_KIND in one.sentence))

    def entries(self, section: str) -> Iterator[tuple[int, Mapping[Any, Any]]]:
        """(place, keys) of each in a list, as far as it has the right shape."""
        entries = self.document.get(section) if isinstance(self.document, Mapping) else None
        for place, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, Mapping):
                yield place, entry

    def values(self) -> Any:  # noqa: ANN401 - whatever stood in the file
        """What is to be judged: all but the strangers."""
        if not self.strangers:
            return self.document
        known = {place: self._without_strangers(place, entry) for place, entry in self.entries("probes")}
        probes = [known.get(place, entry) for place, entry in enumerate(self.document["probes"])]
        return {**self.document, "probes": probes}

    def _without_strangers(self, place: int, entry: Mapping[Any, Any]) -> dict[Any, Any]:
        return {key: value for key, value in entry.items() if key not in self.strangers.get(place, ())}


def _kinds(told: _Told) -> dict[str, ProbeKind[Any]]:
    """The kinds that the file's probes name; keys that are neither field nor kind become strangers."""
    kinds: dict[str, ProbeKind[Any]] = {}
    for place, entry in told.entries("probes"):
        for key in entry:
            if not isinstance(key, str) or key in kinds or key in ProbeFile.model_fields:
                continue
            try:
                kinds[key] = probe_kind(key)
            except UnknownKindError:
                known = f"{', '.join(ProbeFile.model_fields)}, or a kind of probe: {', '.join(probe_kind_names())}"
                text = f"unknown key (value {short(entry[key], key)}); expected {known}"
            except PluginError as cause:
                text = str(cause)
            else:
                continue
            told.add(("probes", place, key), text)
            told.strangers.setdefault(place, set()).add(key)
    return kinds


def _file_model(kinds: Kinds) -> type[AgentFile]:
    """AgentFile whose probes may have these kinds."""
    probe = _probe_model(kinds)
    return create_model("AgentFile", __base__=AgentFile, __doc__=AgentFile.__doc__, probes=(list[probe], []))  # type: ignore[valid-type]


def _probe_model(kinds: Kinds) -> type[ProbeFile]:
    """By alias, since a plugin's name need be no name in Python."""
    fields: dict[str, Any] = {
        f"kind_{place}": (kind.config | None, Field(default=None, alias=name))
        for place, (name, kind) in enumerate(kinds.items())
    }
    return create_model("ProbeFile", __base__=ProbeFile, __doc__=ProbeFile.__doc__, **fields)


def _good_probes(kinds: Kinds, told: _Told) -> Iterator[tuple[int, ProbeFile]]:
    """Those of a bad file with which nothing is wrong so far."""
    bad = {problem.path[1] for problem in told.problems if problem.path[:1] == ("probes",) and problem.path[1:]}
    model = _probe_model(kinds)
    for place, entry in told.entries("probes"):
        if place not in bad:
            probe = judge(entry, model, str(told.path), entry)
            if isinstance(probe, ProbeFile):
                yield place, probe


def _tell_doubles(told: _Told) -> None:
    """Names are what results, metrics and the schedule know probes and scrapes by."""
    first: dict[str, tuple[str, int]] = {}
    for section in ("probes", "scrapes"):
        for place, entry in told.entries(section):
            name = entry.get("name")
            if isinstance(name, str) and first.setdefault(name, (section, place)) != (section, place):
                line, _ = position(told.document, (*first[name], "name"))
                told.add((section, place, "name"), f"value {name!r}: expected each name once; line {line} has it")


def _built(place: int, probe: ProbeFile, kinds: Kinds, told: _Told) -> ProbeSpec | None:
    ((kind, settings),) = probe.kinds().items()
    try:
        return _spec(probe, kind, settings, kinds[kind].build(settings))
    except ValueError as cause:
        told.add(("probes", place, kind), str(cause))
        return None


def _targeted(place: int, probe: ProbeFile, kinds: Kinds, spec: ProbeSpec, told: _Told) -> TargetedProbe | None:
    """The probe of many targets, if it is one; those in the file that do not fit are told."""
    if probe.targets is None:
        return None
    made = TargetedProbe(spec, kinds[spec.kind], plain(told.document["probes"][place][spec.kind]), probe.targets)
    for which, text in made.misfits():
        told.add(("probes", place, "targets", "list", which), text)
    return made


def _config(
    file: AgentFile, probes: tuple[ProbeSpec, ...], targeted: tuple[TargetedProbe, ...], version: str
) -> AgentConfig:
    node_id, id_from = _named(file.node.id)
    return AgentConfig(
        node_id=node_id,
        id_from=id_from,
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
        probes=probes,
        targeted=targeted,
        health=file.health,
        metrics=file.metrics,
        scrapes=tuple(file.scrapes),
        file=file,
        version=version,
    )


def _named(given: str | None) -> tuple[str, IdFrom]:
    """The node's id, and who says it."""
    if given is not None:
        return given, "config"
    # For where one file is everybody's, and host names are no names of hosts: Kubernetes.
    if name := os.environ.get(NODE_ID):
        return name, "FLEETBEAT_NODE_ID"
    return socket.gethostname(), "host name"


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
