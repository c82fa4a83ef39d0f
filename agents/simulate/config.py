"""The script's YAML file, and a script for those who bring none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.simulate.script import Counting, Fault, Incident, Late, NodeFault, Region, Script, Service
from schemas.documents import DocumentError, parse, position, read_one

Name = Annotated[str, Field(min_length=1, max_length=255)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400)]
Factor = Annotated[float, Field(gt=0, le=1_000)]
Share = Annotated[float, Field(ge=0, le=1)]

MAX_REQUESTS_PER_S = 1_000_000
_ZONES = ("a", "b", "c")
_SERVICE_NAMES = ("checkout", "search", "login", "cart", "profile")
_REGION_NAMES = ("eu-1", "us-1", "ap-1")
_MEDIANS_MS = (40, 25, 15, 60, 90)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceFile(_Strict):
    """A service that the fleet probes; its latency is lognormal."""

    name: Name
    endpoints: Annotated[list[Name], Field(min_length=1)] = ["/"]
    kinds: Annotated[list[Name], Field(min_length=1)] = ["http"]
    latency_ms: Annotated[float, Field(gt=0, le=600_000)] = 20
    sigma: Annotated[float, Field(ge=0, le=3)] = 0.5
    failure_rate: Share = 0.001
    timeout_ms: Annotated[float, Field(ge=1, le=600_000)] = 5_000


class RegionFile(_Strict):
    """A region that nodes stand in."""

    name: Name
    zones: Annotated[list[Name], Field(min_length=1)] = list(_ZONES)
    latency_factor: Factor = 1


class IncidentFile(_Strict):
    """A time in which a service, a region, or both together are slower or fail more."""

    from_s: Seconds
    to_s: Seconds
    service: Name | None = None
    region: Name | None = None
    latency_factor: Factor = 1
    failure_rate: Share | None = None

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g}; expected more than from_s {self.from_s:g}")
        if self.latency_factor == 1 and self.failure_rate is None:
            raise ValueError("changes nothing; expected latency_factor, failure_rate or both")
        return self


class FaultFile(_Strict):
    """Something that happens to healthy nodes; `restart` is to die and be back at once."""

    at_s: Seconds
    do: Literal["die", "goodbye", "restart", "cut-off"]
    count: Annotated[int, Field(ge=1)] | None = None
    share: Share | None = None
    region: Name | None = None
    zone: Name | None = None
    back_after_s: Seconds | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.count is None) == (self.share is None):
            raise ValueError("count and share: expected exactly one of them")
        if self.zone is not None and self.region is None:
            raise ValueError(f"zone {self.zone!r} without a region; expected the region that it is a part of")
        if self.do == "cut-off" and self.back_after_s is None:
            raise ValueError("back_after_s missing; expected how long the nodes are cut off")
        if self.do == "restart" and self.back_after_s is not None:
            raise ValueError("back_after_s given; a restart is back at once: expected none, or `do: die`")
        return self


class LateFile(_Strict):
    """A share of the probe results that arrives late."""

    share: Share
    by_s: tuple[Seconds, Seconds]

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.by_s[1] < self.by_s[0]:
            raise ValueError(f"by_s {list(self.by_s)}; expected the shorter delay first")
        return self


class RequestsFile(_Strict):
    """Services count their own requests, `per_s` of them all together; without `services` all of them do."""

    per_s: Annotated[float, Field(ge=0, le=MAX_REQUESTS_PER_S)]
    services: Annotated[list[Name], Field(min_length=1)] | None = None
    processes: Annotated[int, Field(ge=1, le=1_000)] = 1
    window_ms: Annotated[int, Field(ge=100, le=10_000)] = 1_000
    without_latency: list[Name] = []

    @model_validator(mode="after")
    def _says_latencies_of_what_is_counted(self) -> Self:
        strangers = set(self.without_latency) - set(self.services or self.without_latency)
        if strangers:
            raise ValueError(f"without_latency {sorted(strangers)}: expected names of `services` beside it")
        return self


class ScriptFile(_Strict):
    """The file as a whole; without services or regions those of the command line are used."""

    services: Annotated[list[ServiceFile], Field(min_length=1)] | None = None
    regions: Annotated[list[RegionFile], Field(min_length=1)] | None = None
    incidents: list[IncidentFile] = []
    faults: list[FaultFile] = []
    late: LateFile | None = None
    repeat_every_s: Annotated[float, Field(ge=1)] | None = None
    requests: RequestsFile | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, entries in (("services", self.services), ("regions", self.regions)):
            names = [entry.name for entry in entries or ()]
            if len(set(names)) < len(names):
                raise ValueError(f"{what} {names}: expected each name once")
        return self

    @model_validator(mode="after")
    def _fits_its_repetition(self) -> Self:
        ends = [incident.to_s for incident in self.incidents] + [fault.at_s for fault in self.faults]
        if self.repeat_every_s is not None and max(ends, default=0) > self.repeat_every_s:
            raise ValueError(
                f"repeat_every_s {self.repeat_every_s:g}; expected at least {max(ends):g}, the script's last time"
            )
        return self


class ScriptError(ValueError):
    """The script is well-formed but does not fit: one sentence."""


def load_script(
    path: Path | None,
    services: int | None = None,
    endpoints: int | None = None,
    regions: int | None = None,
    requests_per_s: float | None = None,
) -> Script:
    """The script of a file, or a quiet one; counts fill in what the file leaves out.

    `requests_per_s` is instead of the file's.
    Raises schemas.documents.DocumentError for the file and ScriptError where file and counts disagree.
    """
    document = None if path is None else read_one(path)
    file = ScriptFile() if path is None else parse(document, ScriptFile, str(path))
    if file.services is not None and (services is not None or endpoints is not None):
        raise ScriptError(f"{path}: names its services; expected no number of services or endpoints beside it")
    if file.regions is not None and regions is not None:
        raise ScriptError(f"{path}: names its regions; expected no number of regions beside it")
    some_services = file.services or _services(services or len(_SERVICE_NAMES), endpoints or 2)
    some_regions = file.regions or _regions(regions or len(_REGION_NAMES))
    zones = {one.name: set(one.zones) for one in some_regions}
    strangers = _strangers(file, {one.name for one in some_services}, zones)
    if strangers:
        raise DocumentError([_sentence(path, document, stranger) for stranger in strangers])
    return Script(
        services=tuple(_service(one) for one in some_services),
        regions=tuple(Region(one.name, tuple(one.zones), one.latency_factor) for one in some_regions),
        incidents=tuple(_incident(one) for one in file.incidents),
        faults=tuple(_fault(one) for one in file.faults),
        late=None if file.late is None else Late(file.late.share, _ms(file.late.by_s[0]), _ms(file.late.by_s[1])),
        repeat_every_ms=None if file.repeat_every_s is None else _ms(file.repeat_every_s),
        counting=_counting(file.requests, requests_per_s, tuple(one.name for one in some_services)),
    )


@dataclass(frozen=True, slots=True)
class _Stranger:
    """A name that the script uses and nothing defines."""

    place: tuple[str | int, ...]
    name: str
    known: frozenset[str]


def _strangers(file: ScriptFile, services: set[str], zones: dict[str, set[str]]) -> list[_Stranger]:
    """What is named and not there; `zones` are those of each region."""
    regions = set(zones)
    used: list[tuple[tuple[str | int, ...], str | None, set[str]]] = []
    for place, incident in enumerate(file.incidents):
        used.append((("incidents", place, "service"), incident.service, services))
        used.append((("incidents", place, "region"), incident.region, regions))
    for place, fault in enumerate(file.faults):
        used.append((("faults", place, "region"), fault.region, regions))
        if fault.region in zones:
            used.append((("faults", place, "zone"), fault.zone, zones[fault.region]))
    if file.requests is not None:
        for field in ("services", "without_latency"):
            names = getattr(file.requests, field) or ()
            used += [(("requests", field, place), name, services) for place, name in enumerate(names)]
    return [
        _Stranger(place, name, frozenset(known))
        for place, name, known in used
        if name is not None and name not in known
    ]


def _sentence(path: Path | None, document: object, stranger: _Stranger) -> str:
    line, column = position(document, stranger.place)
    field = ".".join(str(part) for part in stranger.place)
    return f"{path}:{line}:{column}: {field}: value {stranger.name!r}: expected one of {sorted(stranger.known)}"


def _services(count: int, endpoints: int) -> list[ServiceFile]:
    return [
        ServiceFile(
            name=_SERVICE_NAMES[place] if place < len(_SERVICE_NAMES) else f"service-{place:03d}",
            endpoints=[f"/api/v1/{chr(ord('a') + one) if one < 26 else one}" for one in range(endpoints)],  # noqa: PLR2004 - letters
            kinds=["http", "tcp"],
            latency_ms=_MEDIANS_MS[place % len(_MEDIANS_MS)],
        )
        for place in range(count)
    ]


def _regions(count: int) -> list[RegionFile]:
    return [
        RegionFile(
            name=_REGION_NAMES[place] if place < len(_REGION_NAMES) else f"region-{place:03d}",
            latency_factor=1 + place % 3 / 4,
        )
        for place in range(count)
    ]


def _service(file: ServiceFile) -> Service:
    return Service(
        name=file.name,
        endpoints=tuple(file.endpoints),
        kinds=tuple(file.kinds),
        median_us=file.latency_ms * 1_000,
        sigma=file.sigma,
        failure_rate=file.failure_rate,
        timeout_us=round(file.timeout_ms * 1_000),
    )


def _incident(file: IncidentFile) -> Incident:
    return Incident(_ms(file.from_s), _ms(file.to_s), file.service, file.region, file.latency_factor, file.failure_rate)


def _fault(file: FaultFile) -> NodeFault:
    is_restart = file.do == "restart"
    back_after_s = 0.0 if is_restart else file.back_after_s
    return NodeFault(
        at_ms=_ms(file.at_s),
        fault=Fault.DIE if is_restart else Fault(file.do),
        count=file.count,
        share=file.share or 0.0,
        region=file.region,
        zone=file.zone,
        back_after_ms=None if back_after_s is None else _ms(back_after_s),
    )


def _counting(file: RequestsFile | None, per_s: float | None, services: tuple[str, ...]) -> Counting | None:
    if file is None and per_s is None:
        return None
    file = file or RequestsFile(per_s=0)
    return Counting(
        per_s=file.per_s if per_s is None else per_s,
        services=tuple(file.services) if file.services is not None else services,
        processes=file.processes,
        window_ms=file.window_ms,
        unmeasured=tuple(file.without_latency),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
