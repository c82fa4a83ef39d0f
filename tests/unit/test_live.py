"""The last minute by the millisecond, against a plain count of the events it has been told of."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event_time import FUTURE_LIMIT_MS
from streams.core.live import SLOTS, WIDTH_MS, Live, LiveCounts, Ring, complete_since_ms
from streams.core.objectives import Objective, Selector
from streams.core.rollup import Rollup, SourceBatch
from streams.core.series import Judge, SeriesIndex
from streams.core.versions import Announcement, Timeline
from streams.engine.transport import ResumePoint
from streams.processors.live_queries import NOT_COUNTED, LiveAnswer, LiveQueries, NoRingError
from streams.processors.queries import NotHereError
from streams.processors.rollup import RollupProcessor
from tests.unit.view_workers import NOW_MS, PARTITIONS, SLOS, Group, Worker

T_MS = 1_800_000_000_000
FAST = Objective("fast", "checkout", "", Selector(service="checkout"), 200_000, 0.99, 3_600)

Batch = list[tuple[int, int, bool]]  # ts, n, good
# Steps of time that are small, or as long as the ring, or longer.
batches = st.lists(
    st.lists(st.tuples(st.integers(-70_000, 140_000), st.integers(1, 5), st.booleans()), max_size=20), max_size=8
)


def filled(ring: Ring, told: list[Batch]) -> None:
    for batch in told:
        ts, n, good = (np.array(column) for column in zip(*batch, strict=True)) if batch else [np.zeros(0)] * 3
        ring.add(ts.astype(np.int64), n.astype(np.int64), good.astype(np.bool_))


def recount(told: list[Batch], counts: LiveCounts, step_ms: int) -> tuple[list[int], list[int]]:
    """What the ring has to say of the part of the span that it says it has."""
    totals, goods = Counter[int](), Counter[int]()
    for ts, n, good in (row for batch in told for row in batch):
        if counts.from_ms <= ts < counts.to_ms and ts >= counts.since_ms:
            totals[(ts - counts.from_ms) // step_ms] += n
            goods[(ts - counts.from_ms) // step_ms] += n * good
    steps = range((counts.to_ms - counts.from_ms) // step_ms)
    return [totals[step] for step in steps], [goods[step] for step in steps]


@given(batches, st.integers(-70_000, 140_000), st.sampled_from([1, 7, 500, 60_000]))
@settings(deadline=None)
def test_a_ring_counts_what_a_plain_recount_counts(offsets: list[Batch], to: int, step_ms: int) -> None:
    told = [[(T_MS + at, n, good) for at, n, good in batch] for batch in offsets]
    ring = Ring()
    filled(ring, told)
    width_ms = 42 * step_ms if step_ms < 1_000 else WIDTH_MS
    counts = ring.counts(T_MS + to - width_ms, T_MS + to, step_ms)
    assert (counts.totals.tolist(), counts.goods.tolist()) == recount(told, counts, step_ms)


def test_nothing_is_left_of_the_round_before() -> None:
    ring = Ring()
    filled(ring, [[(T_MS, 3, True)], [(T_MS + SLOTS, 1, False)]])
    counts = ring.counts(T_MS + SLOTS, T_MS + SLOTS + 1, 1)
    assert (counts.totals.tolist(), counts.goods.tolist(), counts.since_ms) == ([1], [0], T_MS + 1)


def test_a_minute_is_there_although_an_event_is_as_far_ahead_as_may_be() -> None:
    ring = Ring()
    filled(ring, [[(T_MS - WIDTH_MS + 1, 2, True), (T_MS, 1, True), (T_MS + FUTURE_LIMIT_MS, 1, True)]])
    counts = ring.counts(T_MS - WIDTH_MS + 1, T_MS + 1, WIDTH_MS)
    assert counts.totals.tolist() == [3]
    assert counts.since_ms <= counts.from_ms


def test_who_begins_in_the_middle_says_so() -> None:
    """What was appended until then may be dated up to 5 s later: only what is later than that is all there."""
    assert complete_since_ms(T_MS) == T_MS + FUTURE_LIMIT_MS + 1
    assert complete_since_ms(0) == 0
    assert Ring().counts(T_MS, T_MS + 10, 1, since_ms=T_MS + 5).since_ms == T_MS + 5


def events(*rows: tuple[int, str, bool, int]) -> pl.DataFrame:
    """Of (ts after T_MS, service, success, latency_us), one record each."""
    return pl.DataFrame(
        [(place, service, "/", "eu", "http", T_MS + ts, ok, us) for place, (ts, service, ok, us) in enumerate(rows)],
        schema={
            "_row": pl.UInt32,
            **dict.fromkeys(("service", "endpoint", "region", "kind"), pl.String),
            "ts": pl.Int64,
            "success": pl.Boolean,
            "latency_us": pl.Int64,
        },
        orient="row",
    )


def stepped(rollup: Rollup, first: int, *rows: tuple[int, str, bool, int]) -> None:
    offsets = np.arange(first, first + len(rows))
    rollup.step([SourceBatch(0, offsets, np.full(len(rows), T_MS + 100))], events(*rows))


def test_events_are_judged_as_in_the_tables_and_a_repeat_is_none() -> None:
    live = Live(["fast"])
    rollup = Rollup(Judge([FAST], SeriesIndex()), live)
    rollup.open(0, 0)
    rows = [
        (0, "checkout", True, 200_000),
        (0, "checkout", True, 200_001),
        (7, "checkout", False, 1),
        (7, "other", True, 1),
    ]
    stepped(rollup, 0, *rows)
    stepped(rollup, 2, *rows[2:], (8, "checkout", True, 1))
    counts = live.rings["fast"].counts(T_MS, T_MS + 10, 1)
    assert counts.totals.tolist() == [2, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert counts.goods.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_ring_outlives_a_version_of_its_objective_and_each_event_is_judged_by_its_own() -> None:
    slower = Objective("fast", "checkout", "", Selector(service="checkout"), 300_000, 0.99, 3_600)
    live = Live(["fast"])
    announced = [Announcement(0, 0, 0, (FAST,)), Announcement(1, 1, T_MS + 2_000, (slower,))]
    rollup = Rollup(Judge(Timeline(announced), SeriesIndex()), live)
    rollup.open(0, 0)
    stepped(rollup, 0, (1_999, "checkout", True, 250_000), (2_000, "checkout", True, 250_000))
    counts = live.rings["fast"].counts(T_MS + 1_998, T_MS + 2_002, 1)
    assert (counts.totals.tolist(), counts.goods.tolist()) == ([0, 1, 1, 0], [0, 0, 1, 0])


def test_what_was_counted_is_gone_with_the_assignment_and_the_ring_says_since_when_it_counts() -> None:
    judge = Judge([FAST], index := SeriesIndex())
    app = SimpleNamespace(rebalancing=False, consumer=Reader({}))
    own = RollupProcessor(app, judge, index, 1, lambda: judge.timeline, ["fast"])  # type: ignore[arg-type]
    queries = LiveQueries(app, {FAST.source: own})  # type: ignore[arg-type]
    own._rollup.open(0, 0)
    stepped(own._rollup, 0, (3, "checkout", True, 1))
    answer = queries.counts(FAST, T_MS, T_MS + 10, 10)
    assert (answer.counts.totals.tolist(), answer.offsets) == ([1], {0: NOT_COUNTED})
    assert answer.counts.since_ms < T_MS - WIDTH_MS
    own.lose_all()
    app.consumer = Reader({TP(FAST.source, 0): ResumePoint(7, T_MS - 5_000)})
    counts = queries.counts(FAST, T_MS, T_MS + 10, 10).counts
    assert (counts.totals.tolist(), counts.since_ms) == ([0], T_MS + 1)
    app.rebalancing = True
    with pytest.raises(NotHereError, match="the group is being joined"):
        queries.counts(FAST, T_MS, T_MS + 10, 10)


class Reader:
    """A consumer that has partition 0 of probe-results."""

    def __init__(self, committed: dict[TP, ResumePoint]) -> None:
        self.committed = committed

    def holds_assignment(self) -> bool:
        return True

    def assignment(self) -> set[TP]:
        return {TP(FAST.source, 0)}


@dataclass
class Rings:
    """Of `SLOS[0]` only: an event a millisecond, and so many more a step."""

    kept: list[int]
    more: int
    why: str = ""

    def counts(self, objective: Objective, from_ms: int, to_ms: int, step_ms: int) -> LiveAnswer:
        if self.why:
            raise NotHereError(self.why)
        if objective.id != SLOS[0]:
            raise NoRingError(objective.id)
        totals = np.full((to_ms - from_ms) // step_ms, step_ms + self.more)
        counts = LiveCounts(from_ms, to_ms, from_ms + self.more, totals, totals - 1)
        return LiveAnswer(counts, objective.source, dict.fromkeys(self.kept, 5))


def asked(*parts: list[int], path: str, why: str = "") -> tuple[int, dict[str, Any]]:
    """What the first worker answers; `why`: the last one cannot."""
    workers = [Worker(kept) for kept in parts]
    for place, (worker, kept) in enumerate(zip(workers, parts, strict=True)):
        worker.rings.counts = Rings(kept, place, why if place == len(parts) - 1 else "").counts

    async def run() -> tuple[int, dict[str, Any]]:
        async with Group(*workers) as group:
            return await group.get(workers[0], path)

    return asyncio.run(run())


ALL = list(range(PARTITIONS))
LIVE = f"/api/v1/slos/{SLOS[0]}/live"


def test_the_answer_is_the_sum_over_all_workers() -> None:
    status, said = asked([0, 2], [1, 3], path=f"{LIVE}?width_ms=20&step_ms=10&to_ms={NOW_MS}")
    assert status == 200
    assert (said["from_ms"], said["to_ms"], said["step_ms"]) == (NOW_MS - 20, NOW_MS, 10)
    assert (said["totals"], said["goods"]) == ([21, 21], [19, 19])
    assert (said["total"], said["good"], said["attainment"]) == (42, 38, 38 / 42)
    assert said["complete_from_ms"] == NOW_MS - 20 + 1
    assert said["offsets"] == {"probe-results": dict.fromkeys(map(str, ALL), 5)}


def test_without_parameters_it_is_the_last_minute_by_seconds() -> None:
    status, said = asked(ALL, path=LIVE)
    assert (status, said["to_ms"] - said["from_ms"], said["step_ms"], len(said["totals"])) == (200, 60_000, 1_000, 60)


def test_a_part_that_is_missing_is_no_answer() -> None:
    status, said = asked([0, 2], [1, 3], path=LIVE, why="recovering")
    assert (status, "recovering" in said["error"]) == (503, True)
    status, said = asked([0, 2], [1], path=LIVE)
    assert (status, said["error"]) == (503, said["error"])
    assert "no worker answers for partitions [3] of probe-results" in said["error"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("width_ms=0", "width_ms: value '0'; expected 1 to 60000"),
        ("width_ms=60001", "width_ms: value '60001'; expected 1 to 60000"),
        ("width_ms=10&step_ms=11", "step_ms: value '11'; expected 1 to 10"),
        ("width_ms=10&step_ms=3", "step_ms: value 3; expected a whole part of width_ms, which is 10"),
        ("to_ms=-1", "to_ms: value '-1'; expected 1 to 999999999999999"),
        ("steps=3", "steps: not a parameter; expected width_ms, step_ms, to_ms"),
    ],
)
def test_what_cannot_be_meant_is_named(query: str, says: str) -> None:
    assert asked(ALL, path=f"{LIVE}?{query}") == (400, {"error": says})


def test_without_a_ring_it_says_how_to_get_one() -> None:
    status, said = asked(ALL, path=f"/api/v1/slos/{SLOS[1]}/live")
    assert (status, said["error"]) == (404, f"no ring of '{SLOS[1]}'; expected a worker started with --live {SLOS[1]}")
