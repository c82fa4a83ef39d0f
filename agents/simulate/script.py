"""What happens to the fleet and when: services, regions, incidents and faults. Pure; times are ms since the start."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from agents.simulate.rows import Floats, Series

REQUESTS = "requests"


class Fault(Enum):
    """What happens to a node: DIE stops without a word, GOODBYE says so, CUT_OFF spools until it is back."""

    DIE = "die"
    GOODBYE = "goodbye"
    CUT_OFF = "cut-off"


@dataclass(frozen=True, slots=True)
class Service:
    """A probed service; its latency is lognormal, and what takes longer than the timeout fails."""

    name: str
    endpoints: tuple[str, ...]
    kinds: tuple[str, ...]
    median_us: float
    sigma: float
    failure_rate: float
    timeout_us: int


@dataclass(frozen=True, slots=True)
class Region:
    """Where nodes stand; `latency_factor` multiplies the median of every service."""

    name: str
    zones: tuple[str, ...]
    latency_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Incident:
    """From `start_ms` to before `end_ms` the matching series are slower or fail more; None matches all."""

    start_ms: int
    end_ms: int
    service: str | None
    region: str | None
    latency_factor: float
    failure_rate: float | None


@dataclass(frozen=True, slots=True)
class NodeFault:
    """At `at_ms` some healthy nodes fail: of a zone of a region, of a region, or (None) of all.

    `count` of them or, when that is None, a `share` of all nodes there, as far as so many are healthy. Without
    `back_after_ms` they stay away.
    """

    at_ms: int
    fault: Fault
    count: int | None
    share: float
    region: str | None
    zone: str | None
    back_after_ms: int | None


@dataclass(frozen=True, slots=True)
class Late:
    """A share of the probe results is held back for `min_ms` to `max_ms`, drawn evenly."""

    share: float
    min_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True)
class Counting:
    """Services that count their own requests, `per_s` of them all in all regions together.

    Each has `processes` in each region, which say every `window_ms` what they counted; those of `unmeasured` services
    say no latencies.
    """

    per_s: float
    services: tuple[str, ...]
    processes: int
    window_ms: int
    unmeasured: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """All of it. With `repeat_every_ms` incidents and faults come again, each time that much later."""

    services: tuple[Service, ...]
    regions: tuple[Region, ...]
    incidents: tuple[Incident, ...] = ()
    faults: tuple[NodeFault, ...] = ()
    late: Late | None = None
    repeat_every_ms: int | None = None
    counting: Counting | None = None

    @property
    def series(self) -> tuple[Series, ...]:
        """Every series; the one of target t in region r stands at t * regions + r."""
        return tuple(
            Series(service.name, endpoint, region.name, kind)
            for service, endpoint, kind in self._targets()
            for region in self.regions
        )

    @property
    def counted(self) -> tuple[Series, ...]:
        """Every series of counts, the regions of one endpoint in turn; their requests are of no kind of probe."""
        names = self.counting.services if self.counting is not None else ()
        return tuple(
            Series(service.name, endpoint, region.name, REQUESTS)
            for service in self.services
            if service.name in names
            for endpoint in service.endpoints
            for region in self.regions
        )

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(region, zone) of every zone, as the script names them."""
        return tuple((region.name, zone) for region in self.regions for zone in region.zones)

    def places_of(self, fault: NodeFault) -> list[int]:
        """Indices into `places` of where the fault may hit."""
        return [
            index
            for index, (region, zone) in enumerate(self.places)
            if fault.region in (None, region) and fault.zone in (None, zone)
        ]

    def _targets(self) -> Iterator[tuple[Service, str, str]]:
        for service in self.services:
            for endpoint in service.endpoints:
                for kind in service.kinds:
                    yield service, endpoint, kind

    def next_change_ms(self, after_ms: int) -> int | None:
        """The first time later than `after_ms` at which an incident starts or ends or nodes fail."""
        times = [fault.at_ms for fault in self.faults]
        for incident in self.incidents:
            times += [incident.start_ms, incident.end_ms]
        return min((later for time in times if (later := self._next(time, after_ms)) is not None), default=None)

    def faults_at(self, now_ms: int) -> tuple[NodeFault, ...]:
        """The faults of exactly this moment, in the script's order."""
        return tuple(fault for fault in self.faults if self._next(fault.at_ms, now_ms - 1) == now_ms)

    def incidents_at(self, now_ms: int) -> tuple[Incident, ...]:
        """The incidents that are on at this moment."""
        return tuple(incident for incident in self.incidents if self._is_on(incident, now_ms))

    def _next(self, time_ms: int, after_ms: int) -> int | None:
        """The first repetition of a scripted time that is later than `after_ms`."""
        if time_ms > after_ms:
            return time_ms
        if self.repeat_every_ms is None:
            return None
        rounds = (after_ms - time_ms) // self.repeat_every_ms + 1
        return time_ms + rounds * self.repeat_every_ms

    def _is_on(self, incident: Incident, now_ms: int) -> bool:
        since_ms = now_ms - incident.start_ms
        if since_ms < 0:
            return False
        if self.repeat_every_ms is not None:
            since_ms %= self.repeat_every_ms
        return since_ms < incident.end_ms - incident.start_ms


@dataclass(frozen=True, slots=True)
class Weather:
    """How each series behaves at one moment: arrays over the series; `mu` is the log of the median in µs."""

    mu: Floats
    sigma: Floats
    failure_rate: Floats
    timeout_us: Floats = field(repr=False)


def weather(script: Script, incidents: tuple[Incident, ...]) -> Weather:
    """The behaviour of every series with these incidents on, applied in their order."""
    services = {service.name: service for service in script.services}
    factors = {region.name: region.latency_factor for region in script.regions}
    series = script.series
    median = np.array([services[one.service].median_us * factors[one.region] for one in series])
    failure_rate = np.array([services[one.service].failure_rate for one in series])
    for incident in incidents:
        hit = np.array([_matches(incident, one) for one in series])
        median[hit] *= incident.latency_factor
        if incident.failure_rate is not None:
            failure_rate[hit] = incident.failure_rate
    return Weather(
        mu=np.log(median),
        sigma=np.array([services[one.service].sigma for one in series]),
        failure_rate=failure_rate,
        timeout_us=np.array([float(services[one.service].timeout_us) for one in series]),
    )


def _matches(incident: Incident, series: Series) -> bool:
    return incident.service in (None, series.service) and incident.region in (None, series.region)
