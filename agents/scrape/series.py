"""One series of a target: its last value, and by how much a page raised it. Pure.

Counters only go up. One that is lower than before began anew with its process, and all that it says now is new.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise

from agents.scrape.meters import Meter
from schemas.buckets import BOUNDS_US, MAX_LATENCY_US, bucket_of

MAX_COUNT = (1 << 63) - 1
# Between two pages. More is no service's: the counter is another one, or counts bytes.
MAX_RAISE = 1_000_000_000
_DIGITS = 18
_MAX_TEXT = 64
_INFINITY = Decimal("Infinity")


class BadSampleError(ValueError):
    """A value that no counter has; the series keeps what it had before."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is counted together."""

    meter: Meter
    endpoint: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests that took at most `upper_us` and longer than the cell before."""

    upper_us: int
    total: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What a series has counted since the page before. Without cells no latencies are known, and `sum_us` is 0."""

    key: Key
    is_good: bool
    total: int
    cells: tuple[Cell, ...] = ()
    sum_us: int = 0


def count_of(text: bytes) -> int:
    """A number of events. Raises BadSampleError."""
    if len(text) <= _DIGITS and text.isdigit():
        return int(text)
    value = _float(text)
    if not value.is_integer() or not 0 <= value <= MAX_COUNT:
        raise BadSampleError(f"value {text.decode('utf-8', 'replace')[:40]!r}; expected a whole number from 0 on")
    return int(value)


Part = Decimal | BadSampleError | None
"""What a sample is of its series: the bucket with this bound, one whose bound is none, or the only one, or the sum."""


class CounterSeries:
    """A counter. A page is `hear` and then `settle`. `shown` is what messages call it."""

    __slots__ = ("_doubted", "_heard", "_last", "is_good", "key", "resets", "shown")

    def __init__(self, key: Key, shown: str, *, is_good: bool) -> None:
        self.key = key
        self.shown = shown
        self.is_good = is_good
        self.resets = 0
        self._last: int | None = None
        self._heard: int | None = None
        self._doubted = False

    def hear(self, part: Part, text: bytes) -> None:  # noqa: ARG002 - it has one part only
        """Its sample on a page. Raises BadSampleError."""
        if self._heard is not None:
            raise BadSampleError("it is there twice; expected each series once on a page")
        self._heard = count_of(text)

    def settle(self, *, from_zero: bool) -> Delta | None:
        """What it counted; a series that is new counts from 0, or gives nothing yet."""
        now, self._heard = self._heard, None
        if now is None:
            return None
        if self._last is None:
            base = 0 if from_zero and not self._doubted else now
        else:
            base = self._last if now >= self._last else 0
            self.resets += now < self._last
        self._last = now
        return _believed(Delta(self.key, self.is_good, now - base))

    def doubt(self) -> None:
        """Nothing of this page counts."""
        self._heard, self._doubted = None, True


class HistogramSeries:
    """A histogram: its buckets, by their bound, and the sum of what was observed."""

    __slots__ = ("_doubted", "_heard", "_last", "_last_sum_us", "_sum_us", "is_good", "key", "resets", "shown")

    def __init__(self, key: Key, shown: str, *, is_good: bool) -> None:
        self.key = key
        self.shown = shown
        self.is_good = is_good
        self.resets = 0
        self._last: dict[Decimal, int] | None = None
        self._last_sum_us = 0
        self._heard: dict[Decimal, int] = {}
        self._sum_us: int | None = None
        self._doubted = False

    def hear(self, part: Part, text: bytes) -> None:
        """One sample on a page: a bucket by its bound, or None for the sum. Raises BadSampleError."""
        if part is None:
            self._sum_us = _sum_us(text, self.key.meter.unit_us)
            return
        if isinstance(part, BadSampleError):
            raise part
        if part in self._heard:
            raise BadSampleError(f"its bucket {part} is there twice; expected each once on a page")
        self._heard[part] = count_of(text)

    def settle(self, *, from_zero: bool) -> Delta | None:
        """What it counted; None when that cannot be said from this page but can be from a later one.

        Exporters that raise one bucket after the other may be read between two of them. Raises BadSampleError.
        """
        now = dict(sorted(self._heard.items()))
        sum_us = self._sum_us
        if _INFINITY not in now:
            raise BadSampleError("no bucket with le +Inf; expected one")
        self._heard, self._sum_us = {}, None
        base = self._base(now, from_zero=from_zero)
        raised = [now[bound] - base.get(bound, 0) for bound in now]
        counts = [raised[0], *(after - before for before, after in pairwise(raised))]
        if min(counts) < 0:
            return None
        if self._last is not None and base is not self._last:
            self.resets += 1
        if base is not self._last:
            self._last_sum_us = 0 if base is _NOTHING else sum_us or 0
        delta = self._delta(list(now), counts, None if sum_us is None else max(0, sum_us - self._last_sum_us))
        self._last = now
        self._last_sum_us += delta.sum_us
        return _believed(delta)

    def doubt(self) -> None:
        """Nothing of this page counts."""
        self._heard, self._sum_us, self._doubted = {}, None, True

    def _base(self, now: dict[Decimal, int], *, from_zero: bool) -> dict[Decimal, int]:
        """From where it is counted."""
        last = self._last
        if last is None:
            return _NOTHING if from_zero and not self._doubted else now
        if last.keys() != now.keys() or any(now[bound] < count for bound, count in last.items()):
            return _NOTHING
        return last

    def _delta(self, bounds: list[Decimal], counts: list[int], sum_us: int | None) -> Delta:
        cells = tuple(_cells(bounds, counts, sum_us, self.key.meter.unit_us))
        most_us = sum(cell.upper_us * cell.total for cell in cells)
        return Delta(self.key, self.is_good, sum(counts), cells, min(sum_us or 0, most_us))


_NOTHING: dict[Decimal, int] = {}


def bound_of(le: str) -> Decimal:
    """The bound of a bucket. Raises BadSampleError."""
    try:
        bound = Decimal(le[: _MAX_TEXT + 1])
    except InvalidOperation:
        bound = Decimal("NaN")
    if bound.is_nan() or bound == -_INFINITY or "_" in le or len(le) > _MAX_TEXT:
        raise BadSampleError(f"le {le[:40]!r}; expected a number or +Inf")
    return bound


def _believed(delta: Delta) -> Delta:
    if delta.total > MAX_RAISE:
        raise BadSampleError(f"raised by {delta.total}; expected at most {MAX_RAISE} between two pages")
    return delta


def _float(text: bytes) -> float:
    """NaN for what is no number; Python alone allows underscores."""
    try:
        return float("nan") if b"_" in text or len(text) > _MAX_TEXT else float(text)
    except ValueError:
        return float("nan")


def _sum_us(text: bytes, unit_us: int) -> int | None:
    """Microseconds; None for what is no sum of latencies."""
    value = _float(text) * unit_us
    return round(value) if 0 <= value <= MAX_COUNT else None


def _upper_us(bound: Decimal, unit_us: int) -> int:
    """The greatest latency in whole microseconds that is not above the bound."""
    return MAX_LATENCY_US if bound > MAX_LATENCY_US else max(0, min(MAX_LATENCY_US, int(bound * unit_us)))


def _cells(bounds: list[Decimal], counts: list[int], sum_us: int | None, unit_us: int) -> Iterator[Cell]:
    """Those with requests. Of what is above all bounds the greatest mean is taken that the sum leaves open."""
    lower_us, least_us = 0, 0
    for bound, count in zip(bounds[:-1], counts[:-1], strict=True):
        upper_us = _upper_us(bound, unit_us)
        if count:
            yield Cell(upper_us, count)
        least_us += lower_us * count
        lower_us = upper_us
    count = counts[-1]
    if count:
        above_us = BOUNDS_US[bucket_of(lower_us)] + 1 if len(bounds) > 1 else 0
        mean_us = -((least_us - (sum_us or 0)) // count)
        yield Cell(min(MAX_LATENCY_US, max(above_us, mean_us)), count)
