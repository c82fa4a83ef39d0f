"""What one target has counted, page after page. Pure.

Its first page gives nothing: nobody knows when it was counted. From then on each page gives what has been added, also
over pages that were missed. A series that is new on a later page counts from 0, since client libraries make a series
with its first request. A page has what is read of it as a whole, or not at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agents.scrape.exposition import labels_of
from agents.scrape.meters import Endpoints
from agents.scrape.series import BadSampleError, CounterSeries, Delta, HistogramSeries, Key, Part, bound_of

_LE = "le"
_SHOWN = 120
_Series = CounterSeries | HistogramSeries
_Parts = tuple[tuple[_Series, Part], ...]
_Identity = tuple[Endpoints, frozenset[tuple[str, str]]]


@dataclass(slots=True)
class Reading:
    """What a page has added since the one before, which was read at `since_ms`. `problems` are sentences.

    `postponed` series are told of by a later page; `missing` metrics have to be there and are not.
    """

    since_ms: int
    until_ms: int
    deltas: list[Delta] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    postponed: int = 0
    resets: int = 0
    series: int = 0


class TargetCounts:
    """The series of one target. At most about `max_series` ways of writing them are kept."""

    def __init__(self, meters: Sequence[Endpoints], max_series: int) -> None:
        self._meters = meters
        self._max_series = max_series
        self._by_name: dict[bytes, list[Endpoints]] = {}
        for one in meters:
            for name in one.meter.samples:
                self._by_name.setdefault(name.encode(), []).append(one)
        self._parts: dict[bytes, _Parts] = {}
        self._series: dict[_Identity, _Series] = {}
        self._read_ms: int | None = None
        self._has_forgotten = False

    def read(self, samples: Iterable[tuple[bytes, bytes]], until_ms: int) -> Reading:
        """The next page's samples (`exposition.Wanted`), which were counted up to `until_ms`."""
        found: dict[_Series, None] = {}
        faults: dict[_Series, BadSampleError] = {}
        for series, text in samples:
            parts = self._parts.get(series)
            if parts is None:
                parts = self._parts[series] = tuple(self._meet(series))
            for one, part in parts:
                found[one] = None
                try:
                    one.hear(part, text)
                except BadSampleError as cause:
                    faults[one] = cause
        reading = self._settle(found, faults, until_ms)
        self._read_ms = until_ms
        if len(self._parts) > self._max_series:
            self._forget(found)
        return reading

    def _meet(self, series: bytes) -> Iterator[tuple[_Series, Part]]:
        """What a series is part of, whose first sight this is: nothing, when no meter wants its labels."""
        name = series.partition(b"{")[0].rstrip(b" \t")
        labels = labels_of(series)
        for endpoints in self._by_name[name]:
            meter = endpoints.meter
            if not meter.where.holds(labels):
                continue
            part: Part = None
            if meter.is_histogram and name.endswith(b"_bucket"):
                part = _part(labels.get(_LE, ""))
            others = frozenset((key, value) for key, value in labels.items() if key != _LE or not meter.is_histogram)
            one = self._series.get((endpoints, others))
            if one is None:
                make = HistogramSeries if meter.is_histogram else CounterSeries
                shown = f"{meter.metric}{dict(sorted(others))}"[:_SHOWN]
                one = make(Key(meter, endpoints.of(labels)), shown, is_good=meter.is_good(labels))
                self._series[endpoints, others] = one
            yield one, part

    def _settle(self, found: Iterable[_Series], faults: Mapping[_Series, BadSampleError], until_ms: int) -> Reading:
        from_zero = self._read_ms is not None and not self._has_forgotten
        reading = Reading(until_ms if self._read_ms is None else self._read_ms, until_ms)
        metrics = set()
        for one in found:
            reading.series += 1
            reading.resets -= one.resets
            metrics.add(one.key.meter.metric)
            try:
                if one in faults:
                    raise faults[one]
                delta = one.settle(from_zero=from_zero)
            except BadSampleError as cause:
                one.doubt()
                reading.problems.append(f"{one.shown}: {cause}")
            else:
                reading.postponed += delta is None
                if delta is not None and delta.total:
                    reading.deltas.append(delta)
            reading.resets += one.resets
        required = (one.meter.metric for one in self._meters if one.meter.is_required)
        reading.missing = [metric for metric in required if metric not in metrics]
        return reading

    def _forget(self, found: Mapping[_Series, None]) -> None:
        """Series that are not on the page. One that comes back would count from 0: from now on none does."""
        kept = {identity: one for identity, one in self._series.items() if one in found}
        self._has_forgotten |= len(kept) < len(self._series)
        self._series = kept
        self._parts = {series: parts for series, parts in self._parts.items() if parts and parts[0][0] in found}


def _part(le: str) -> Part:
    try:
        return bound_of(le)
    except BadSampleError as cause:
        return cause
