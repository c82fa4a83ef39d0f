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

Labels = tuple[str, str, str, str]  # service, endpoint, region, kind


@dataclass(frozen=True, slots=True)
class Event:
    """What the payload says."""

    labels: Labels
    ts: int
    success: bool
    latency_us: int


@dataclass(frozen=True, slots=True)
class Logged:
    """One record of a source partition, its offset is its place; without an event it could not be read."""

    append_ms: int
    event: Event | None


Log = Sequence[Sequence[Logged]]


@dataclass(frozen=True, slots=True)
class Promise:
    """An objective: None selects any label; without a threshold success is enough."""

    id: str
    where: tuple[str | None, str | None, str | None, str | None]
    latency_us_le: int | None

    def selects(self, labels: Labels) -> bool:
        return all(want in {None, have} for want, have in zip(self.where, labels, strict=True))

    def good(self, event: Event) -> bool:
        return event.success and (self.latency_us_le is None or event.latency_us <= self.latency_us_le)


@dataclass(frozen=True, slots=True)
class Level:
    """Seconds that a tier's steps take, are kept, and how many are stored together."""

    step_s: int
    keep_s: int
    chunk_s: int

    def holds(self, start_s: int, frontier_ms: int) -> bool:
        return start_s // self.chunk_s * self.chunk_s + self.chunk_s + self.keep_s >= frontier_ms // 1_000


LEVELS = {"1s": Level(1, 600, 10), "1m": Level(60, 23_400, 600), "1h": Level(3_600, 35 * 86_400, 86_400)}

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


def series_of(event: Event, promises: Sequence[Promise]) -> list[tuple[str, bool]]:
    """Every series the event counts in, and whether it is good there."""
    own = (json.dumps(event.labels, ensure_ascii=False, separators=(",", ":")), event.success)
    return [own, *((f"slo:{p.id}", p.good(event)) for p in promises if p.selects(event.labels))]


def recompute(log: Log, promises: Sequence[Promise] | Callable[[int], Sequence[Promise]]) -> Rows:
    """Every row that the tables still hold when all of the log has been read; promises may depend on the second."""
    frontier = frontier_of(log)
    rows: Rows = {}
    for partition in log:
        for record, judged in zip(partition, judge(partition), strict=True):
            if record.event is None or judged is None:
                continue
            given = promises(judged.slice_s) if callable(promises) else promises
            for series, good in series_of(record.event, given):
                plain = not series.startswith("slo:")
                for tier, level in LEVELS.items():
                    start = judged.slice_s // level.step_s * level.step_s
                    counts_only = plain and tier == "1m"
                    bucket = NO_BUCKET if counts_only else bucket_of(record.event.latency_us)
                    if level.holds(start, frontier) and not (plain and tier == "1h"):
                        key = (tier, series, start, bucket, good)
                        rows[key] = _plus(rows.get(key), record.event.latency_us, late=judged.late)
    return rows


def _plus(sums: Sums | None, latency_us: int, *, late: bool) -> Sums:
    n, late_n, sum_us, max_us = sums or (0, 0, 0, 0)
    return n + 1, late_n + late, sum_us + latency_us, max(max_us, latency_us)


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
    ("päy", "card\x00\u2028", "eu", "tcp"),
    ("dns", "", "eu", "dns"),
)
PROMISES = (
    Promise("shop", ("shop", None, None, None), 200_000),
    Promise("eu", (None, None, "eu", None), None),
    Promise("all@once", (None, None, None, None), 1_000),
)
_STEPS_MS = (0, 0, 3, 40, 250, 900, 2_000)
_PAUSES_MS = (12_000, 45_000, 700_000, 8 * 3_600_000)


def draw_log(rng: Random, partitions: int, records: int) -> list[list[Logged]]:
    """Partitions with clocks of their own: mostly steady, some pauses, a few append times that go back."""
    return [_draw_partition(rng, rng.randint(records // 2, records)) for _ in range(partitions)]


def _draw_partition(rng: Random, records: int) -> list[Logged]:
    now, log = START_MS + rng.randrange(60_000), list[Logged]()
    for _ in range(records):
        now += rng.choice(_PAUSES_MS) if rng.random() < 0.02 else rng.choice(_STEPS_MS)
        append = now - rng.choice((0, 0, 0, 0, 0, 70, 1_500))
        log.append(Logged(append, None if rng.random() < 0.03 else draw_event(rng, append)))
    return log


def draw_event(rng: Random, append_ms: int) -> Event:
    """On time, around the end of lateness, long after it, ahead of the clock, or absurd."""
    lags = ((0, 3_000), (8_000, 12_500), (20_000, 90_000), (600_000, 18_000_000), (-6_000, 0), (-DAY_MS, 41 * DAY_MS))
    low, high = rng.choices(lags, (60, 15, 10, 8, 4, 3))[0]
    latencies = (0, 1, 1_000, 1_001, 200_000, 200_001, MAX_LATENCY_US, rng.randrange(300), rng.randrange(2_000_000))
    return Event(rng.choice(LABELS), append_ms - rng.randint(low, high), rng.random() < 0.8, rng.choice(latencies))
