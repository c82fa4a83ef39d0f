"""SLO and Service: a promise about events, and whose it is."""

from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from schemas.buckets import MAX_LATENCY_US
from streams.core.calendars import START_FORMAT
from streams.openslo.alerts import Policy
from streams.openslo.fields import (
    Description,
    Metadata,
    Name,
    OpenSlo,
    Own,
    between,
    duration,
    either,
    not_yet,
    one_of,
    period,
    refused,
    required_true,
    single,
    slice_s,
    some,
)

Source = Literal["probe-results", "request-counts"]
_NO_GAUGES = "not supported, as events are counted; expected ratioMetric, with latency_us_le"
_NO_RATIOS = "events are counted, not ratios; expected total, and good or bad"
_NO_THRESHOLD = "is for thresholdMetric, which is not supported; expected latency_us_le under good"
_NO_COMPOSITES = "composite SLOs are not supported; expected the indicator under spec"
_YEARS = (1970, 2100)
_FINEST = 10**9


def _wall_time(value: object) -> object:
    """YAML makes a time of what looks like one."""
    if isinstance(value, datetime) and not getattr(value, "_yaml", {}).get("tz"):
        value = value.strftime(START_FORMAT)
    try:
        found = datetime.strptime(value, START_FORMAT) if isinstance(value, str) else None  # noqa: DTZ007 - a wall's
    except ValueError:
        found = None
    if found is None or not _YEARS[0] <= found.year <= _YEARS[1]:
        raise ValueError("expected a date and a time without a zone, as in 2026-01-31 12:30:00")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone that this host knows, as in Europe/Berlin") from None
    return value


def _rolls(value: bool) -> bool:  # noqa: FBT001 - it is what stood in the file
    if not value:
        raise ValueError("expected true, or a calendar")
    return value


def _stands(value: bool) -> bool:  # noqa: FBT001 - it is what stood in the file
    if value:
        raise ValueError("expected false beside a calendar")
    return value


def _share(value: float) -> float:
    if not 0 < value <= 1 or Fraction(str(value)).denominator > _FINEST:
        raise ValueError("expected a number above 0 and up to 1, with at most 9 decimals")
    return value


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


class _Good(Own):
    source: Source
    where: Where = Where()
    latency_us_le: Annotated[int, Field(ge=1, le=MAX_LATENCY_US)] | None = None


class _MetricSource(OpenSlo):
    metric_source_ref: Annotated[None, not_yet("type: fleetbeat")] = None
    type: Annotated[Literal["fleetbeat"], one_of("fleetbeat")]


class _Bad(_Total):
    """The rest is good: what succeeded and took at most `latency_us_gt`."""

    latency_us_gt: Annotated[int, Field(ge=1, le=MAX_LATENCY_US)] | None = None


class _GoodSource(_MetricSource):
    spec: _Good


class _BadSource(_MetricSource):
    spec: _Bad


class _TotalSource(_MetricSource):
    spec: _Total


class _GoodMetric(OpenSlo):
    metric_source: _GoodSource


class _BadMetric(OpenSlo):
    metric_source: _BadSource


class _TotalMetric(OpenSlo):
    metric_source: _TotalSource


class RatioMetric(OpenSlo):
    """What is counted: `total`, and either what is `good` of it or what is `bad`."""

    counter: Annotated[bool, required_true("events are counted, no gauge is read")] = True
    good: _GoodMetric | None = None
    bad: _BadMetric | None = None
    total: _TotalMetric
    raw: Annotated[None, refused(_NO_RATIOS)] = None
    raw_type: Annotated[None, refused(_NO_RATIOS)] = None


class IndicatorSpec(OpenSlo):
    """What is measured."""

    description: Description | None = None
    threshold_metric: Annotated[None, refused(_NO_GAUGES)] = None
    ratio_metric: RatioMetric


class _Indicator(OpenSlo):
    metadata: Metadata | None = None
    spec: IndicatorSpec


class _Calendar(OpenSlo):
    start_time: Annotated[str, BeforeValidator(_wall_time)]
    time_zone: Annotated[str, AfterValidator(_zone)]


class RollingWindow(OpenSlo):
    """The last so many seconds."""

    duration: Annotated[str, AfterValidator(duration)]
    is_rolling: Annotated[bool, AfterValidator(_rolls)]


class CalendarWindow(OpenSlo):
    """Days, weeks or months."""

    duration: Annotated[str, AfterValidator(period)]
    is_rolling: Annotated[bool, AfterValidator(_stands)] = False
    calendar: _Calendar


if TYPE_CHECKING:
    TimeWindow = CalendarWindow | RollingWindow
else:
    TimeWindow = either("calendar", CalendarWindow, RollingWindow)


class Target(OpenSlo):
    """One objective of an SLO."""

    display_name: Name | None = None
    target: Annotated[float, AfterValidator(between(0, 1))] | None = None
    target_percent: Annotated[float, AfterValidator(between(0, 100))] | None = None
    time_slice_target: Annotated[float, AfterValidator(_share)] | None = None
    time_slice_window: Annotated[int, BeforeValidator(slice_s)] | None = None
    op: Annotated[None, refused(_NO_THRESHOLD)] = None
    value: Annotated[None, refused(_NO_THRESHOLD)] = None
    indicator: Annotated[None, refused(_NO_COMPOSITES)] = None
    indicator_ref: Annotated[None, refused(_NO_COMPOSITES)] = None
    composite_weight: Annotated[None, refused(_NO_COMPOSITES)] = None


class SloSpec(OpenSlo):
    """The promise itself."""

    description: Description | None = None
    service: Name
    indicator: _Indicator | None = None
    indicator_ref: Name | None = None
    time_window: Annotated[list[TimeWindow], AfterValidator(single)]
    budgeting_method: Annotated[Literal["Occurrences", "Timeslices"], one_of("Occurrences", "Timeslices")]
    objectives: Annotated[list[Target], AfterValidator(some)]
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


class Sli(OpenSlo):
    """An indicator that SLOs refer to."""

    api_version: Literal["openslo/v1"]
    kind: Literal["SLI"]
    metadata: Metadata
    spec: IndicatorSpec
