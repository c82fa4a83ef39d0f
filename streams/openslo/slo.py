"""SLO and Service: a promise about events, and whose it is."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.buckets import MAX_LATENCY_US
from streams.openslo.alerts import Policy
from streams.openslo.fields import (
    Description,
    Metadata,
    Name,
    OpenSlo,
    Own,
    between,
    duration,
    not_yet,
    only,
    refused,
    required_true,
    single,
)

Source = Literal["probe-results", "request-counts"]


class Where(Own):
    """Which events: all that have these labels."""

    service: Name | None = None
    endpoint: Name | None = None
    region: Name | None = None
    kind: Name | None = None


class _Total(Own):
    source: Source
    where: Where = Where()
    latency_us_le: Annotated[
        None, refused("expected it under good only: a threshold does not change what is counted")
    ] = None


class Good(Own):
    """Where the good events of a ratio are."""

    source: Source
    where: Where = Where()
    latency_us_le: Annotated[int, Field(ge=1, le=MAX_LATENCY_US)] | None = None


class _MetricSource(OpenSlo):
    metric_source_ref: Annotated[None, not_yet("type: fleetbeat")] = None
    type: Annotated[Literal["fleetbeat"], only("fleetbeat")]


class _GoodSource(_MetricSource):
    spec: Good


class _TotalSource(_MetricSource):
    spec: _Total


class _GoodMetric(OpenSlo):
    metric_source: _GoodSource


class _TotalMetric(OpenSlo):
    metric_source: _TotalSource


class _RatioMetric(OpenSlo):
    counter: Annotated[bool, required_true("events are counted")] = True
    good: _GoodMetric
    total: _TotalMetric
    bad: Annotated[None, not_yet("good and total")] = None
    raw: Annotated[None, not_yet("good and total")] = None
    raw_type: Annotated[None, not_yet("good and total")] = None


class _IndicatorSpec(OpenSlo):
    description: Description | None = None
    threshold_metric: Annotated[None, not_yet("ratioMetric, with latency_us_le under good")] = None
    ratio_metric: _RatioMetric


class _Indicator(OpenSlo):
    metadata: Metadata | None = None
    spec: _IndicatorSpec


class _TimeWindow(OpenSlo):
    duration: Annotated[str, AfterValidator(duration)]
    is_rolling: Annotated[bool, required_true("a rolling window")]
    calendar: Annotated[None, not_yet("a rolling window")] = None


class _Target(OpenSlo):
    display_name: Name | None = None
    target: Annotated[float, AfterValidator(between(0, 1))] | None = None
    target_percent: Annotated[float, AfterValidator(between(0, 100))] | None = None
    op: Annotated[None, not_yet("latency_us_le under good")] = None
    value: Annotated[None, not_yet("latency_us_le under good")] = None
    time_slice_target: Annotated[None, not_yet("budgetingMethod: Occurrences")] = None
    time_slice_window: Annotated[None, not_yet("budgetingMethod: Occurrences")] = None


class SloSpec(OpenSlo):
    """The promise itself."""

    description: Description | None = None
    service: Name
    indicator: _Indicator
    indicator_ref: Annotated[None, not_yet("an inline indicator")] = None
    time_window: Annotated[list[_TimeWindow], AfterValidator(single)]
    budgeting_method: Annotated[Literal["Occurrences"], only("Occurrences", "Timeslices")]
    objectives: Annotated[list[_Target], AfterValidator(single)]
    alert_policies: list[Policy] | None = None


class Slo(OpenSlo):
    """A promise about events."""

    api_version: Literal["openslo/v1"]
    kind: Literal["SLO"]
    metadata: Metadata
    spec: SloSpec


class ServiceSpec(OpenSlo):
    """A word about a service."""

    description: Description | None = None


class Service(OpenSlo):
    """Whose promises they are; nothing depends on it."""

    api_version: Literal["openslo/v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()
