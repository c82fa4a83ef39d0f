"""Deltas of many targets added up by what they count, until they are records. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from agents.node import Node
from agents.scrape.counts import Reading
from agents.scrape.series import Key
from schemas.buckets import bucket_of
from schemas.records import BucketCount, RequestCount

# What one record may hold, and how long its window may be. As in schemas.rules, which needs polars: an agent has none.
MAX_REQUESTS = 100_000_000
MAX_SUM_US = 100_000_000_000_000
MAX_WINDOW_MS = 10_000


@dataclass(slots=True)
class Bucket:
    """Requests in one bucket of the contract; none of them is known to have taken longer than `upper_us`."""

    upper_us: int = 0
    total: int = 0
    good: int = 0


@dataclass(slots=True)
class Sum:
    """What was counted of one key from `since_ms` on, up to `until_ms`."""

    since_ms: int
    until_ms: int
    total: int = 0
    good: int = 0
    sum_us: int = 0
    buckets: dict[int, Bucket] = field(default_factory=dict)

    def add(self, other: "Sum") -> None:
        """Takes over all that the other one has."""
        self.since_ms = min(self.since_ms, other.since_ms)
        self.until_ms = max(self.until_ms, other.until_ms)
        self.total += other.total
        self.good += other.good
        self.sum_us += other.sum_us
        for number, theirs in other.buckets.items():
            mine = self.buckets.setdefault(number, Bucket())
            mine.upper_us = max(mine.upper_us, theirs.upper_us)
            mine.total += theirs.total
            mine.good += theirs.good


class Tally:
    """Sums by key. Nothing leaves it but by `take`."""

    def __init__(self) -> None:
        self._sums: dict[Key, Sum] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, reading: Reading) -> None:
        """All of a page."""
        for delta in reading.deltas:
            one = self._sums.get(delta.key)
            if one is None:
                one = self._sums[delta.key] = Sum(reading.since_ms, reading.until_ms)
            one.since_ms = min(one.since_ms, reading.since_ms)
            one.until_ms = max(one.until_ms, reading.until_ms)
            one.total += delta.total
            one.good += delta.total if delta.is_good else 0
            one.sum_us += delta.sum_us
            for cell in delta.cells:
                bucket = one.buckets.setdefault(bucket_of(cell.upper_us), Bucket())
                bucket.upper_us = max(bucket.upper_us, cell.upper_us)
                bucket.total += cell.total
                bucket.good += cell.total if delta.is_good else 0

    def take(self) -> Iterator[tuple[Key, Sum]]:
        """Everything, in parts that fit into a record each; what was not taken yet stays."""
        while self._sums:
            key, one = next(iter(self._sums.items()))
            part = _part(one)
            one.total -= part.total
            one.good -= part.good
            one.sum_us -= part.sum_us
            if not one.total:
                del self._sums[key]
            yield key, part

    def put_back(self, key: Key, part: Sum) -> None:
        """Adds a sum, perhaps one that was taken."""
        if key in self._sums:
            self._sums[key].add(part)
        else:
            self._sums[key] = part


def _part(one: Sum) -> Sum:
    """As much as fits into a record. Of buckets it is taken away; the sum of latencies goes along as far as it can."""
    if not one.buckets:
        total = min(one.total, MAX_REQUESTS)
        return Sum(one.since_ms, one.until_ms, total, min(one.good, total))
    part, most_us = Sum(one.since_ms, one.until_ms), 0
    for number, bucket in sorted(one.buckets.items()):
        total = min(bucket.total, MAX_REQUESTS - part.total)
        if not total:
            break
        good = min(bucket.good, total)
        part.buckets[number] = Bucket(bucket.upper_us, total, good)
        part.total += total
        part.good += good
        most_us += total * bucket.upper_us
        bucket.total -= total
        bucket.good -= good
        if bucket.total:
            break
        del one.buckets[number]
    part.sum_us = min(one.sum_us, most_us, MAX_SUM_US)
    return part


def request_count(node: Node, key: Key, one: Sum, seq: int) -> RequestCount:
    """The record. Of more time than a window may have, its end is said: that is the second in which they count."""
    since_ms = max(one.since_ms, one.until_ms - MAX_WINDOW_MS)
    buckets = sorted(one.buckets.items())
    return RequestCount(
        node_id=node.id,
        ts=min(since_ms, one.until_ms - 1),
        window_ms=max(1, one.until_ms - since_ms),
        boot_id=node.boot_id,
        seq=seq,
        service=key.meter.service,
        endpoint=key.endpoint,
        region=node.region,
        total=one.total,
        good=one.good,
        sum_us=one.sum_us,
        max_us=buckets[-1][1].upper_us if buckets else 0,
        histogram=tuple(BucketCount(number, bucket.total, bucket.good) for number, bucket in buckets),
        labels=key.meter.labels,
    )
