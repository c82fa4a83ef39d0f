"""The objectives file: OpenSLO v1 documents → objectives. What cannot be done yet is refused by name, not ignored."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.documents import DocumentError, parse, position, read_all
from schemas.rules import MAX_LATENCY_US, MAX_NAME_BYTES
from streams.core.objectives import Objective, Selector

_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SHORTEST_S, _LONGEST_S = 10, 30 * 86_400
_LATER_KINDS = ("AlertPolicy", "AlertCondition", "AlertNotificationTarget", "DataSource", "SLI")
_GOOD_WHERE = ("spec", "indicator", "spec", "ratioMetric", "good", "metricSource", "spec", "where")


def load_objectives(path: Path | str) -> tuple[Objective, ...]:
    """The objectives of a file, in its order. Raises DocumentError with every problem in it."""
    problems: list[str] = []
    objectives: list[Objective] = []
    seen: dict[tuple[str, str], int] = {}
    for document in read_all(path):
        try:
            kind = _kind(document, str(path))
            model = parse(document, _KINDS[kind], str(path))
        except DocumentError as error:
            problems += error.problems
            continue
        line, column = position(document, ("metadata", "name"))
        first = seen.setdefault((kind, model.metadata.name), line)
        if first != line:
            where = f"{path}:{line}:{column}: metadata.name: value {model.metadata.name!r}"
            problems.append(f"{where}: the {kind} in line {first} has that name; expected one of its own")
        if isinstance(model, _Slo):
            problems += _contradictions(document, model, str(path))
            objectives.append(_objective(model))
    if not problems and not objectives:
        problems = [f"{path}: no document of kind SLO; expected at least one"]
    if problems:
        raise DocumentError(problems)
    return tuple(objectives)


def _kind(document: Any, name: str) -> str:  # noqa: ANN401 - YAML is any structure
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind in _KINDS:
        return kind
    line, column = position(document, ("kind",))
    said = "missing" if kind is None else f"value {kind!r}: not supported" + (" yet" if kind in _LATER_KINDS else "")
    raise DocumentError([f"{name}:{line}:{column}: kind: {said}; expected SLO or Service"])


def _refused(why: str) -> BeforeValidator:
    def refuse(_: object) -> None:
        raise ValueError(why)

    return BeforeValidator(refuse)


def _not_yet(instead: str) -> BeforeValidator:
    return _refused(f"not supported yet; expected {instead}")


def _only(supported: str, later: str | None = None) -> BeforeValidator:
    def check(value: object) -> object:
        if value != supported:
            raise ValueError(f"not supported{' yet' if value == later else ''}; expected {supported}")
        return value

    return BeforeValidator(check)


def _true(meaning: str) -> AfterValidator:
    def check(value: bool) -> bool:  # noqa: FBT001 - it is what stood in the file
        if not value:
            raise ValueError(f"not supported yet; expected true: {meaning}")
        return value

    return AfterValidator(check)


def _single(value: list[Any]) -> list[Any]:
    if len(value) != 1:
        raise ValueError(f"{len(value)} items; expected exactly one")
    return value


def _duration_s(value: str) -> str:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([A-Za-z])", value)
    if match and match[2] in "MQY":
        raise ValueError("months, quarters and years are not supported; expected s, m, h, d or w, as in 30d")
    if not match or match[2] not in _UNIT_S:
        raise ValueError("expected a whole number and s, m, h, d or w, as in 30d")
    if not _SHORTEST_S <= _seconds(value) <= _LONGEST_S:
        raise ValueError("expected 10s to 30d")
    return value


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNIT_S[duration[-1]]


def _between(low: int, high: int) -> Callable[[float], float]:
    def check(value: float) -> float:
        if not low < value < high:
            raise ValueError(f"expected a number above {low} and below {high}")
        return value

    return check


def _name(value: str) -> str:
    if not 1 <= len(value.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"expected 1 to {MAX_NAME_BYTES} bytes")
    return value


def _dns_label(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("expected a DNS label: 1 to 63 of a-z, 0-9 and -, the first and last not -")
    return value


Name = Annotated[str, AfterValidator(_name)]
Description = Annotated[str, Field(max_length=1050)]


class _Own(BaseModel):
    """What fleetbeat puts where OpenSLO leaves the form to each tool."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _OpenSlo(BaseModel):
    """What OpenSLO says, under its names: github.com/OpenSLO/OpenSLO, README.md of v1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class _Metadata(_OpenSlo):
    name: Annotated[str, AfterValidator(_dns_label)]
    display_name: Name | None = None
    labels: dict[str, str | list[str]] = {}
    annotations: dict[str, str] = {}


class _Where(_Own):
    service: Name | None = None
    endpoint: Name | None = None
    region: Name | None = None
    kind: Name | None = None


class _Total(_Own):
    source: Annotated[Literal["probe-results"], _only("probe-results", "request-counts")]
    where: _Where = _Where()
    latency_us_le: Annotated[
        None, _refused("expected it under good only: a threshold does not change what is counted")
    ] = None


class _Good(_Own):
    source: Annotated[Literal["probe-results"], _only("probe-results", "request-counts")]
    where: _Where = _Where()
    latency_us_le: Annotated[int, Field(ge=1, le=MAX_LATENCY_US)] | None = None


class _MetricSource(_OpenSlo):
    metric_source_ref: Annotated[None, _not_yet("type: fleetbeat")] = None
    type: Annotated[Literal["fleetbeat"], _only("fleetbeat")]


class _GoodSource(_MetricSource):
    spec: _Good


class _TotalSource(_MetricSource):
    spec: _Total


class _GoodMetric(_OpenSlo):
    metric_source: _GoodSource


class _TotalMetric(_OpenSlo):
    metric_source: _TotalSource


class _RatioMetric(_OpenSlo):
    counter: Annotated[bool, _true("probe results are counted")] = True
    good: _GoodMetric
    total: _TotalMetric
    bad: Annotated[None, _not_yet("good and total")] = None
    raw: Annotated[None, _not_yet("good and total")] = None
    raw_type: Annotated[None, _not_yet("good and total")] = None


class _IndicatorSpec(_OpenSlo):
    description: Description | None = None
    threshold_metric: Annotated[None, _not_yet("ratioMetric, with latency_us_le under good")] = None
    ratio_metric: _RatioMetric


class _Indicator(_OpenSlo):
    metadata: _Metadata | None = None
    spec: _IndicatorSpec


class _TimeWindow(_OpenSlo):
    duration: Annotated[str, AfterValidator(_duration_s)]
    is_rolling: Annotated[bool, _true("a rolling window")]
    calendar: Annotated[None, _not_yet("a rolling window")] = None


class _Target(_OpenSlo):
    display_name: Name | None = None
    target: Annotated[float, AfterValidator(_between(0, 1))] | None = None
    target_percent: Annotated[float, AfterValidator(_between(0, 100))] | None = None
    op: Annotated[None, _not_yet("latency_us_le under good")] = None
    value: Annotated[None, _not_yet("latency_us_le under good")] = None
    time_slice_target: Annotated[None, _not_yet("budgetingMethod: Occurrences")] = None
    time_slice_window: Annotated[None, _not_yet("budgetingMethod: Occurrences")] = None


class _SloSpec(_OpenSlo):
    description: Description | None = None
    service: Name
    indicator: _Indicator
    indicator_ref: Annotated[None, _not_yet("an inline indicator")] = None
    time_window: Annotated[list[_TimeWindow], AfterValidator(_single)]
    budgeting_method: Annotated[Literal["Occurrences"], _only("Occurrences", "Timeslices")]
    objectives: Annotated[list[_Target], AfterValidator(_single)]
    alert_policies: Annotated[None, _not_yet("none")] = None


class _Slo(_OpenSlo):
    api_version: Literal["openslo/v1"]
    kind: Literal["SLO"]
    metadata: _Metadata
    spec: _SloSpec


class _ServiceSpec(_OpenSlo):
    description: Description | None = None


class _Service(_OpenSlo):
    api_version: Literal["openslo/v1"]
    kind: Literal["Service"]
    metadata: _Metadata
    spec: _ServiceSpec = _ServiceSpec()


_KINDS: dict[str, type[_Slo] | type[_Service]] = {"SLO": _Slo, "Service": _Service}


def _contradictions(document: Any, slo: _Slo, name: str) -> Iterator[str]:  # noqa: ANN401 - YAML is any structure
    """What each field allows but not all of them together."""
    metric = slo.spec.indicator.spec.ratio_metric
    good, total = metric.good.metric_source.spec.where, metric.total.metric_source.spec.where
    if good != total:
        line, column = position(document, _GOOD_WHERE)
        where = f"{name}:{line}:{column}: {'.'.join(_GOOD_WHERE)}: value {good.model_dump(exclude_none=True)}"
        yield f"{where}: expected the same as under total, {total.model_dump(exclude_none=True)}"
    target = slo.spec.objectives[0]
    if (target.target is None) == (target.target_percent is None):
        line, column = position(document, ("spec", "objectives", 0))
        said = "neither" if target.target is None else "both"
        yield f"{name}:{line}:{column}: spec.objectives.0: {said} of target and targetPercent; expected one of them"


def _objective(slo: _Slo) -> Objective:
    spec = slo.spec
    metric = spec.indicator.spec.ratio_metric
    where = metric.good.metric_source.spec.where
    target = spec.objectives[0]
    # In decimals, as 99.95 / 100 is not 0.9995 in binary.
    share = Decimal(str(target.target)) if target.target is not None else Decimal(str(target.target_percent or 0)) / 100
    return Objective(
        id=slo.metadata.name,
        service=spec.service,
        display_name=slo.metadata.display_name or slo.metadata.name,
        selector=Selector(where.service, where.endpoint, where.region, where.kind),
        latency_us_le=metric.good.metric_source.spec.latency_us_le,
        target=float(share),
        window_s=_seconds(spec.time_window[0].duration),
    )
