"""A log as a broker keeps it, and what the tables must hold for it: plain Python, one event at a time, no `streams`."""

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

START_MS = 1_763_000_000_000
DAY_MS = 86_400_000
MAX_LATENCY_US = DAY_MS * 1_000
NO_BUCKET = -1
REQUESTS = "requests"

PROBES, COUNTS = "probe-results", "request-counts"

Labels = tuple[str, str, str, str]  # service, endpoint, region, kind
Part = tuple[int, bool, int, int, int]  # bucket, success, n, sum_us, max_us


@dataclass(frozen=True, slots=True)
class Event:
    """What the payload of a probe result says."""

    labels: Labels
    ts: int
    success: bool
    latency_us: int
    source = PROBES

    @property
    def series(self) -> str:
        return _json(*self.labels)

    @property
    def parts(self) -> list[Part]:
        """One event."""
        return [(bucket_of(self.latency_us), self.success, 1, self.latency_us, self.latency_us)]

    def within(self, limit_us: int, _: int) -> bool:
        return self.latency_us <= limit_us


@dataclass(frozen=True, slots=True)
class Counted:
    """What the payload of a request count says; `histogram`: (bucket, total, good), or nothing."""

    labels: Labels
    began: int
    window_ms: int
    total: int
    good: int
    sum_us: int
    max_us: int
    histogram: tuple[tuple[int, int, int], ...] = ()
    source = COUNTS

    @property
    def ts(self) -> int:
        """The last millisecond of the window."""
        return self.began + self.window_ms - 1

    @property
    def series(self) -> str:
        return _json(*self.labels, COUNTS)

    @property
    def parts(self) -> list[Part]:
        """By bucket and success; the sums stand with the last of them."""
        counts: dict[tuple[int, bool], int] = {}
        for bucket, total, good in self.histogram or ((NO_BUCKET, self.total, self.good),):
            for success, n in ((False, total - good), (True, good)):
                counts[bucket, success] = counts.get((bucket, success), 0) + n
        found = sorted(key for key, n in counts.items() if n)
        return [(*key, counts[key], *((self.sum_us, self.max_us) if key == found[-1] else (0, 0))) for key in found]

    def within(self, limit_us: int, bucket: int) -> bool | None:
        """None when nobody knows."""
        return None if bucket == NO_BUCKET else bucket <= bucket_of(limit_us)


@dataclass(frozen=True, slots=True)
class Logged:
    """One record of a source partition, its offset is its place; without an event it could not be read."""

    append_ms: int
    event: Event | Counted | None


Log = Sequence[Sequence[Logged]]


@dataclass(frozen=True, slots=True)
class Promise:
    """An objective: None selects any label; without a threshold success is enough."""

    id: str
    where: tuple[str | None, str | None, str | None, str | None]
    latency_us_le: int | None
    source: str = PROBES
    by_minute: bool = False

    def selects(self, event: Event | Counted) -> bool:
        named = all(want in {None, have} for want, have in zip(self.where, event.labels, strict=True))
        return named and event.source == self.source

    def good(self, event: Event | Counted, bucket: int, *, success: bool) -> bool | None:
        """Of a part of the event; None when it cannot be judged."""
        within = True if self.latency_us_le is None else event.within(self.latency_us_le, bucket)
        return None if within is None else success and within


@dataclass(frozen=True, slots=True)
class Level:
    """Seconds that a tier's steps take, are kept, and how many are stored together."""

    step_s: int
    keep_s: int
    chunk_s: int

    def holds(self, start_s: int, frontier_ms: int) -> bool:
        return start_s // self.chunk_s * self.chunk_s + self.chunk_s + self.keep_s >= frontier_ms // 1_000


LEVELS = {
    "1s": Level(1, 600, 10),
    "1m": Level(60, 23_400, 600),
    "1m-counts": Level(60, 35 * 86_400, 21_600),
    "1h": Level(3_600, 35 * 86_400, 86_400),
}

# (tier, series, start in s, bucket, good) → (n, late, sum_us, max_us). A series is `slo:<id>` or its labels as JSON.
Row = tuple[str, str, int, int, bool]
Sums = tuple[int, int, int, int]
Rows = dict[Row, Sums]


def _bounds() -> list[int]:
    bounds, power = [0], 0
    while bounds[-1] < MAX_LATENCY_US:
        bounds.append(51**power // 50**power)
        power += 1
    return bounds


_BOUNDS = _bounds()


def bucket_of(latency_us: int) -> int:
    """The first bucket whose bound, floor(1.02^(bucket - 1)), is not below the latency."""
    return bisect_left(_BOUNDS, latency_us)


@dataclass(frozen=True, slots=True)
class Judged:
    """Where in event time an event counts: its second, and whether that was sealed at its own record."""

    slice_s: int
    late: bool
    clamped: bool


def judge(log: Sequence[Logged]) -> list[Judged | None]:
    """One source partition from its beginning."""
    frontier, judged = 0, list[Judged | None]()
    for record in log:
        frontier = max(frontier, record.append_ms)
        if record.event is None:
            judged.append(None)
            continue
        ts = min(max(record.event.ts, record.append_ms - 35 * DAY_MS), record.append_ms + 5_000)
        second = ts // 1_000
        judged.append(Judged(second, (second + 1) * 1_000 + 10_000 <= frontier, ts != record.event.ts))
    return judged


def series_of(event: Event | Counted, promises: Sequence[Promise]) -> list[tuple[str, bool, Part]]:
    """Every series that parts of the event count in, and whether they are good there."""
    found = []
    for part in event.parts:
        bucket, success, *_ = part
        found.append((event.series, success, part))
        for promise in promises:
            good = promise.good(event, bucket, success=success)
            if promise.selects(event) and good is not None:
                found.append((f"slo:{promise.id}", good, part))
    return found


def _json(*labels: str) -> str:
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


def recompute(log: Log, promises: Sequence[Promise] | Callable[[int], Sequence[Promise]]) -> Rows:
    """Every row that the tables still hold when all of the log has been read; promises may depend on the second."""
    frontier = frontier_of(log)
    rows: Rows = {}
    for partition in log:
        for record, judged in zip(partition, judge(partition), strict=True):
            if record.event is None or judged is None:
                continue
            given = promises(judged.slice_s) if callable(promises) else promises
            for series, good, part in series_of(record.event, given):
                plain = not series.startswith("slo:")
                by_minute = any(series == f"slo:{promise.id}" and promise.by_minute for promise in given)
                for tier, level in LEVELS.items():
                    if tier == "1m-counts" and not by_minute:
                        continue
                    start = judged.slice_s // level.step_s * level.step_s
                    counts_only = tier == "1m-counts" or (plain and tier == "1m")
                    if level.holds(start, frontier) and not (plain and tier == "1h"):
                        key = (tier, series, start, NO_BUCKET if counts_only else part[0], good)
                        rows[key] = _plus(rows.get(key), part, late=judged.late)
    return rows


def _plus(sums: Sums | None, part: Part, *, late: bool) -> Sums:
    n, late_n, sum_us, max_us = sums or (0, 0, 0, 0)
    _, _, more, sum_more, max_more = part
    return n + more, late_n + late * more, sum_us + sum_more, max(max_us, max_more)


def frontier_of(log: Log) -> int:
    """The greatest append time in ms."""
    return max((record.append_ms for partition in log for record in partition), default=0)


def difference(expected: Mapping[Row, Sums], found: Mapping[Row, Sums]) -> str:
    """The first few rows that differ; empty when none does."""
    differing = sorted(row for row in expected.keys() | found.keys() if expected.get(row) != found.get(row))
    shown = [f"{row}: expected {expected.get(row)}, found {found.get(row)}" for row in differing[:4]]
    return "\n".join([f"{len(differing)} rows differ", *shown]) if differing else ""


# Random logs ---------------------------------------------------------------------------------------------------------

LABELS: tuple[Labels, ...] = (
    ("shop", "/cart", "eu", "http"),
    ("shop", '/"a",b', "us", "http"),
    ("shop", "/cart", "eu", REQUESTS),  # a probe that somebody named so
    ("päy", "card\x00\u2028", "eu", "tcp"),
    ("dns", "", "eu", "dns"),
)
PROMISES = (
    Promise("shop", ("shop", None, None, None), 200_000),
    Promise("eu", (None, None, "eu", None), None, by_minute=True),
    Promise("all@once", (None, None, None, None), 1_000),
    Promise("asked", ("shop", None, None, None), None, COUNTS),
    Promise("asked-quickly", (None, None, None, None), 101_227, COUNTS),
)
_STEPS_MS = (0, 0, 3, 40, 250, 900, 2_000)
_PAUSES_MS = (12_000, 45_000, 700_000, 8 * 3_600_000)


def draw_log(rng: Random, partitions: int, records: int, counted: int = 0) -> list[list[Logged]]:
    """Partitions with clocks of their own: mostly steady, some pauses, a few append times that go back.

    The last `counted` ones are of request-counts.
    """
    draws = [draw_event] * partitions + [draw_counted] * counted
    return [_draw_partition(rng, rng.randint(records // 2, records), draw) for draw in draws]


def _draw_partition(rng: Random, records: int, draw: Callable[[Random, int], Event | Counted]) -> list[Logged]:
    now, log = START_MS + rng.randrange(60_000), list[Logged]()
    for _ in range(records):
        now += rng.choice(_PAUSES_MS) if rng.random() < 0.02 else rng.choice(_STEPS_MS)
        append = now - rng.choice((0, 0, 0, 0, 0, 70, 1_500))
        log.append(Logged(append, None if rng.random() < 0.03 else draw(rng, append)))
    return log


def draw_event(rng: Random, append_ms: int) -> Event:
    """On time, around the end of lateness, long after it, ahead of the clock, or absurd."""
    lags = ((0, 3_000), (8_000, 12_500), (20_000, 90_000), (600_000, 18_000_000), (-6_000, 0), (-DAY_MS, 41 * DAY_MS))
    low, high = rng.choices(lags, (60, 15, 10, 8, 4, 3))[0]
    latencies = (0, 1, 1_000, 1_001, 200_000, 200_001, MAX_LATENCY_US, rng.randrange(300), rng.randrange(2_000_000))
    return Event(rng.choice(LABELS), append_ms - rng.randint(low, high), rng.random() < 0.8, rng.choice(latencies))


def draw_counted(rng: Random, append_ms: int) -> Counted:
    """A window that ends when an event may be; its labels are those of probes, also the kind."""
    event = draw_event(rng, append_ms)
    window_ms = rng.choice((1, 250, 1_000, 10_000))
    latencies = [rng.choice((0, 1, 2, 99_000, 101_227, 101_228, rng.randrange(2_000_000))) for _ in range(5)]
    histogram = tuple(
        (bucket_of(us), total, rng.randint(0, total)) for us in latencies for total in (rng.randrange(4),)
    )
    if not rng.randrange(4):
        histogram = ()
    total = sum(each for _, each, _ in histogram) if histogram else rng.randrange(1_000)
    good = sum(each for *_, each in histogram) if histogram else rng.randint(0, total)
    sum_us, max_us = rng.randrange(1 << 40), rng.randrange(1 << 30)
    labels = (*event.labels[:3], REQUESTS)
    return Counted(labels, event.ts - window_ms + 1, window_ms, total, good, sum_us, max_us, histogram)
