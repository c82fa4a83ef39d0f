"""From an SLO's words to promises: one for each of its objectives, with an id of its own."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from schemas.buckets import BOUNDS_US, bucket_of, is_bound
from streams.core.calendars import Calendar, begins_at_whole_hours
from streams.core.objectives import TimeSlices
from streams.core.sources import COUNTS
from streams.openslo.fields import seconds
from streams.openslo.slo import CalendarWindow, IndicatorSpec, Slo, Target, Where

Problem = tuple[tuple[Any, ...], str]


@dataclass(frozen=True, slots=True)
class Promise:
    """What one objective of an SLO promises."""

    id: str
    display_name: str
    target: float
    time_slices: TimeSlices | None


@dataclass(frozen=True, slots=True)
class Counted:
    """Which events an indicator selects, and which of them are good."""

    where: Where
    latency_us_le: int | None
    source: str


def promises_of(slo: Slo) -> list[Promise]:
    """Of an SLO without contradictions. One objective goes by the SLO's name, several by that and their own."""
    name, title = slo.metadata.name, slo.metadata.display_name or slo.metadata.name
    asked = slo.spec.objectives
    if len(asked) == 1:
        return [Promise(name, title, _share(asked[0]), _slices(asked[0]))]
    return [
        Promise(f"{name}.{own}", f"{title}: {each.display_name or own}", _share(each), _slices(each))
        for own, each in zip(_names(asked), asked, strict=True)
    ]


def window_of(slo: Slo) -> tuple[int, Calendar | None]:
    """The length in seconds, of a period the usual one, and the calendar."""
    window = slo.spec.time_window[0]
    if not isinstance(window, CalendarWindow):
        return seconds(window.duration), None
    where = window.calendar
    calendar = Calendar(where.start_time, where.time_zone, int(window.duration[:-1]), window.duration[-1])
    return calendar.nominal_s, calendar


def counted(indicator: IndicatorSpec) -> Counted:
    """Of an indicator without contradictions."""
    metric = indicator.ratio_metric
    if metric.good is not None:
        good = metric.good.metric_source.spec
        return Counted(good.where, good.latency_us_le, good.source)
    assert metric.bad is not None  # noqa: S101 - for the type
    bad = metric.bad.metric_source.spec
    return Counted(bad.where, bad.latency_us_gt, bad.source)


def contradictions(slo: Slo) -> Iterator[Problem]:
    """What each field of an SLO allows but not all of them together, but for its indicator."""
    spec = slo.spec
    if (spec.indicator is None) == (spec.indicator_ref is None):
        which = "neither" if spec.indicator is None else "both"
        yield ("spec",), f"{which} of indicator and indicatorRef; expected one of them"
    window_s, calendar = window_of(slo)
    if calendar and not begins_at_whole_hours(calendar):
        sentence = (
            f"value {calendar.start!r}: in {calendar.zone} no whole hour of UTC; expected one, as long windows are "
            "made of hours"
        )
        yield ("spec", "timeWindow", 0, "calendar", "startTime"), sentence
    names = _names(spec.objectives)
    for number, asked in enumerate(spec.objectives):
        path = ("spec", "objectives", number)
        yield from ((path + own, sentence) for own, sentence in _of_target(asked, spec.budgeting_method))
        if asked.time_slice_window and calendar is None and window_s % asked.time_slice_window:
            sentence = f"value {asked.time_slice_window} s: expected a whole part of the window, {window_s} s"
            yield (*path, "timeSliceWindow"), sentence
        if names[number] in names[:number]:
            sentence = f"value {asked.display_name!r}: objective {names[number]!r} is there already; expected another"
            yield (*path, "displayName"), sentence


def indicator_contradictions(indicator: IndicatorSpec, path: tuple[Any, ...]) -> Iterator[Problem]:
    """`path`: where the indicator's spec is in its document."""
    metric, path = indicator.ratio_metric, (*path, "ratioMetric")
    if (metric.good is None) == (metric.bad is None):
        which = "neither" if metric.good is None else "both"
        yield path, f"{which} of good and bad; expected one of them"
        return
    part, limit = ("bad", "latency_us_gt") if metric.good is None else ("good", "latency_us_le")
    some, total = counted(indicator), metric.total.metric_source.spec
    path = (*path, part, "metricSource", "spec")
    if some.where != total.where:
        said, wanted = (where.model_dump(exclude_none=True) for where in (some.where, total.where))
        yield (*path, "where"), f"value {said}: expected the same as under total, {wanted}"
    if some.source != total.source:
        yield (*path, "source"), f"value {some.source!r}: expected the same as under total, {total.source!r}"
    elif some.source == COUNTS:
        yield from _uncountable(some, path, limit)


def _uncountable(counted: Counted, path: tuple[Any, ...], limit: str) -> Iterator[Problem]:
    """What cannot be asked of requests that a service has counted; `limit` is the field with the threshold."""
    if counted.where.kind is not None:
        sentence = f"value {counted.where.kind!r}: request-counts have no kind; expected service, endpoint or region"
        yield (*path, "where", "kind"), sentence
    value = counted.latency_us_le
    if value is not None and not is_bound(value):
        above = bucket_of(value)
        sentence = (
            f"value {value}: requests are counted by buckets, so it would be exact at the bound of one only; "
            f"expected {BOUNDS_US[above - 1]} or {BOUNDS_US[above]}"
        )
        yield (*path, limit), sentence


def _of_target(asked: Target, method: str) -> Iterator[Problem]:
    if (asked.target is None) == (asked.target_percent is None):
        which = "neither" if asked.target is None else "both"
        yield (), f"{which} of target and targetPercent; expected one of them"
    for field, value in (("timeSliceTarget", asked.time_slice_target), ("timeSliceWindow", asked.time_slice_window)):
        if method == "Timeslices" and value is None:
            yield (), f"{field} is missing; expected it with budgetingMethod Timeslices"
        elif method != "Timeslices" and value is not None:
            yield (field,), f"value {value!r}: expected it with budgetingMethod Timeslices only"


def _names(asked: list[Target]) -> list[str]:
    """What each objective is called within its SLO: as its displayName, in small letters, or by its place from 1."""
    return [_label(each.display_name or "") or str(number) for number, each in enumerate(asked, start=1)]


def _label(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-")


def _share(asked: Target) -> float:
    # In decimals, as 99.95 / 100 is not 0.9995 in binary.
    return float(Decimal(str(asked.target)) if asked.target is not None else Decimal(str(asked.target_percent)) / 100)


def _slices(asked: Target) -> TimeSlices | None:
    if asked.time_slice_window is None or asked.time_slice_target is None:
        return None
    return TimeSlices(asked.time_slice_window, asked.time_slice_target)
