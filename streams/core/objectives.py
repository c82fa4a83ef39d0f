"""Objectives, and the arithmetic of error budgets."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from streams.core.burn import BurnRule
from streams.core.calendars import Calendar
from streams.core.sources import PROBES

# At the end of a version: its counts are kept by the minute for as long as hours are. It is in the name of the series,
# so that what is kept is a function of the log.
_BY_MINUTE = "-1m"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which series an objective is about; None selects any value."""

    service: str | None = None
    endpoint: str | None = None
    region: str | None = None
    kind: str | None = None

    def matches(self, service: str, endpoint: str, region: str, kind: str) -> bool:
        """Whether the series belongs to the objective."""
        wanted = (self.service, self.endpoint, self.region, self.kind)
        return all(
            want is None or want == have for want, have in zip(wanted, (service, endpoint, region, kind), strict=True)
        )


@dataclass(frozen=True, slots=True)
class TimeSlices:
    """Slices of `length_s`, a whole part of six hours, at multiples of it since 1970: what a budget counts.

    A slice is bad when the share of its events that are good is below `target`; one without events is not.
    """

    length_s: int
    target: float


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise: the share `target` of the selected events, or of `time_slices`, within a window is good.

    An event is good when it succeeded and, with a threshold, took at most `latency_us_le` microseconds. The window is
    the last `window_s` or, with a calendar, the period that goes on (`window_s` is its usual length). `rules` say when
    the budget is spent too fast. `source` is the topic of the events; of counted requests a threshold is the bound of a
    bucket.
    """

    id: str
    service: str
    display_name: str
    selector: Selector
    latency_us_le: int | None
    target: float
    window_s: int
    rules: tuple[BurnRule, ...] = ()
    source: str = PROBES
    time_slices: TimeSlices | None = None
    calendar: Calendar | None = None

    @property
    def version(self) -> str:
        """Changes whenever the counts would mean something else: with the source, the selection or the threshold.

        Ends in `-1m` when counts are kept by the minute.
        """
        meaning: dict[str, Any] = {"selector": asdict(self.selector), "latency_us_le": self.latency_us_le}
        if self.source != PROBES:
            meaning["source"] = self.source
        digits = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]
        return digits + (_BY_MINUTE if self.time_slices else "")

    @property
    def series(self) -> str:
        """Name of the series that sums all those it selects."""
        return series_of(self.id, self.version)


def series_of(objective_id: str, version: str) -> str:
    """Name of the series of one version of an objective."""
    return f"slo:{objective_id}@{version}"


def is_kept_by_minute(series: str) -> bool:
    """Whether the counts of a series are kept by the minute for as long as hours are."""
    return series.startswith("slo:") and series.endswith(_BY_MINUTE)


@dataclass(frozen=True, slots=True)
class Budget:
    """How an objective stands over one window. Shares are None while there is nothing to judge.

    `attainment` = good / total. `burn_rate` = (1 - attainment) / (1 - target): 1 spends the budget exactly over
    the objective's window. `budget_left` = 1 - burn_rate over the objective's own window, negative when overspent.
    (The Site Reliability Workbook, chapter 5.) Events or time slices.
    """

    total: int
    good: int
    attainment: float | None
    burn_rate: float | None
    budget_left: float | None


def budget(total: int, good: int, target: float, share: float = 1.0) -> Budget:
    """The budget of `good` out of `total` events against `target` in (0, 1).

    `share`: how much of the window has been; what is left is of the budget of all of it.
    """
    if total == 0:
        return Budget(0, 0, None, None, None)
    burn = ((total - good) / total) / (1.0 - target)
    return Budget(total, good, good / total, burn, 1.0 - burn * share)


def seconds_to_exhaustion(budget_left: float | None, burn_rate: float | None, window_s: int) -> float | None:
    """How long the budget lasts at `burn_rate`; None when it does not shrink, 0 when it is spent."""
    if budget_left is None or not burn_rate:
        return None
    return max(budget_left, 0.0) * window_s / burn_rate
