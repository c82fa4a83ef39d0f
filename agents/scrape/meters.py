"""What is counted of a page: which series, which of them are good, and the endpoint that each one belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from re import Pattern

from agents.fields import MAX_NAME_BYTES
from schemas.records import Label

OTHER = "other"
"""The endpoint of what names more endpoints than there may be, or one that no record can have."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """Label values that all have to match as a whole; a label that is not there is empty, as in PromQL."""

    patterns: tuple[tuple[str, Pattern[str]], ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """For these labels."""
        return all(pattern.fullmatch(labels.get(name, "")) is not None for name, pattern in self.patterns)


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """A counter, or a histogram of latencies, whose series are requests. `unit_us`: microseconds in a unit of `le`.

    With neither `good` nor `bad` all that is counted has succeeded.
    """

    metric: str
    is_histogram: bool
    service: str
    endpoint: str
    unit_us: int = 1_000_000
    endpoint_label: str | None = None
    max_endpoints: int = 100
    is_required: bool = False
    where: Matcher = Matcher()
    good: Matcher | None = None
    bad: Matcher | None = None
    labels: tuple[Label, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """Names in front of the lines that it is made of."""
        return (f"{self.metric}_bucket", f"{self.metric}_sum") if self.is_histogram else (self.metric,)

    def is_good(self, labels: Mapping[str, str]) -> bool:
        """Whether the requests of a series with these labels have succeeded."""
        if self.good is not None:
            return self.good.holds(labels)
        return self.bad is None or not self.bad.holds(labels)


@dataclass(frozen=True, slots=True, eq=False)
class Endpoints:
    """The endpoints of a meter, over all of its targets; once there are as many as there may be, new ones are one."""

    meter: Meter
    known: set[str] = field(default_factory=set)

    def of(self, labels: Mapping[str, str]) -> str:
        """The endpoint of a series with these labels."""
        meter = self.meter
        name = "" if meter.endpoint_label is None else labels.get(meter.endpoint_label, "")
        if not name:
            return meter.endpoint
        if name not in self.known:
            if len(self.known) >= meter.max_endpoints or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
                return OTHER
            self.known.add(name)
        return name
