"""An objective that began lately has the windows of one that was always there: what was before comes from raw events.

Raw events are summed in numpy here; `tests/integration/test_recount.py` shows that ClickHouse makes the same sums.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.histogram import NO_BUCKET, buckets_of
from streams.core.objectives import Objective
from streams.core.past import Past, Question
from streams.core.rollup import Rollup
from streams.core.rows import Steps
from streams.core.series import Judge
from streams.core.slices import COUNTS, HOURS, MINUTES, SECONDS
from streams.core.standing import figures
from streams.core.versions import Announcement, Stretch, Timeline
from streams.processors.past import AGAIN_MS, SETTLED_MS, UNTIL_MS, Beginning, Key, Pasts, next_ms
from streams.processors.queries import Completeness, Standing
from streams.views.payloads import standing_payload
from tests.unit.test_window_math import DAY_S, HOUR_S, NOW_S, OBJECTIVES, PLAIN, Events, Tables, check, draw

NOW_MS = NOW_S * 1_000 + 999


@dataclass(slots=True)
class Raw:
    """Events as ClickHouse has them. `beyond_s`: so many seconds too many come with each answer."""

    events: Events
    beyond_s: int = 0
    failures: int = 0
    asked: list[Question] = field(default_factory=list)

    def parts(self, _source: str, question: Question) -> tuple[Question, ...]:
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        found = self._places(question)
        days = np.unique(self.events.ts[found] // (8 * DAY_S * 1_000) * 8 * DAY_S)[::-1].tolist()
        spans = [(max(day, question.start_s), min(day + 8 * DAY_S, question.end_s)) for day in days]
        return tuple(Question(question.tier, *span) for span in spans)

    def steps(self, _objective: Objective, question: Question) -> Steps:
        self.asked.append(question)
        found = self._places(question)
        latency, one = self.events.latency[found], np.ones(int(found.sum()), np.int64)
        buckets = np.full(len(one), NO_BUCKET) if question.tier is COUNTS else buckets_of(latency)
        columns = {
            "start": self.events.ts[found] // 1_000 // question.tier.step_s * question.tier.step_s,
            "series": np.zeros(len(one), np.uint32),
            "bucket": buckets.astype(np.int16),
            "good": self.events.good[found],
            "n": one,
            "late_n": 0 * one,
            "sum_us": latency,
            "max_us": latency,
        }
        return Steps.from_frame(pl.DataFrame(columns))

    def _places(self, question: Question) -> Any:  # noqa: ANN401 - a mask
        at_s = self.events.ts // 1_000
        return (at_s >= question.start_s) & (at_s < question.end_s + self.beyond_s)


class Late(Tables):
    """Tables whose objectives are announced for `since_s`."""

    def __init__(self, since_s: int) -> None:
        super().__init__()
        sets = (Announcement(0, 0, 0, ()), Announcement(1, 0, since_s * 1_000, OBJECTIVES))
        self.timeline = Timeline(sets)
        self.rollup = Rollup(Judge(self.timeline, self.index))
        self.rollup.open(0, 0)

    def answer_with(self, objective: Objective, past: Past | None) -> dict[str, Any]:
        numbers = [self.index.number(objective.series)]
        found = figures(objective, self.table.show(), numbers, NOW_MS, NOW_MS // 1_000 * 1_000, past)
        standing = Standing(objective, (), found, NOW_MS // 1_000 * 1_000, 0, 0, 0, past)
        return standing_payload(standing, Completeness(0, 0))


def beginning(objective: Objective, since_s: int) -> Beginning:
    return Beginning(Key(objective.id, objective.version, since_s), objective, objective)


def past_of(raw: Raw, objective: Objective, since_s: int, now_ms: int = NOW_MS) -> Past | None:
    pasts = Pasts(raw, lambda: now_ms)
    asyncio.run(pasts.look([beginning(objective, since_s)]))
    return pasts.of(objective.id, Stretch(objective.version, since_s))


def counted_late(events: Events, since_s: int) -> Late:
    tables = Late(since_s)
    half = len(events.ts) // 2
    tables.count(events.part(0, half))
    tables.table.seal()
    tables.count(events.part(half, len(events.ts)))
    return tables


AGES_S = (1, 25, 400, 5_000, 20_000, 2 * DAY_S + 17, 20 * DAY_S)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**32), st.sampled_from(AGES_S))
def test_windows_with_a_past_are_those_of_an_objective_that_was_always_there(seed: int, age_s: int) -> None:
    events, since_s = draw(seed, 400), NOW_S - age_s
    tables = counted_late(events, since_s)
    for objective in OBJECTIVES:
        check(objective, tables.answer_with(objective, past_of(Raw(events), objective, since_s)), events)


@pytest.mark.parametrize(("beyond_s", "right"), [(0, True), (1, False)])
def test_a_slice_that_is_in_both_would_show(beyond_s: int, right: bool) -> None:  # noqa: FBT001 - a column
    """A control."""
    events = draw(3, 400)
    since_s = int(events.ts[-1]) // 1_000  # the table has at least one event of this slice
    tables = counted_late(events, since_s)
    answer = tables.answer_with(PLAIN, past_of(Raw(events, beyond_s), PLAIN, since_s))
    inside = events.ts // 1_000 >= answer["windows"][-1]["from_ms"] // 1_000
    assert (answer["windows"][-1]["total"] == int(inside.sum())) is right


def test_the_answer_says_what_is_of_the_past() -> None:
    events, since_s = draw(4, 400), NOW_S - 400
    tables = counted_late(events, since_s)
    past = past_of(Raw(events), PLAIN, since_s)
    assert past is not None
    first_s = (NOW_S + 1 - 30 * DAY_S) // HOUR_S * HOUR_S
    marked = {"source": "clickhouse", "from_ms": first_s * 1_000, "to_ms": since_s * 1_000, "as_of_ms": NOW_MS}
    assert tables.answer_with(PLAIN, past)["history"] == marked
    assert tables.answer_with(PLAIN, None)["history"] is None


def test_each_second_is_asked_for_once_in_the_finest_tier_that_is_read() -> None:
    raw, since_s = Raw(draw(5, 400)), NOW_S
    assert past_of(raw, PLAIN, since_s) is not None
    begins = [(question.tier, question.start_s, question.end_s) for question in raw.asked]
    assert begins == sorted(begins, key=lambda begin: -begin[1])
    assert {tier for tier, _, _ in begins} == {SECONDS, MINUTES, HOURS}
    assert all(end_s <= before_s for (_, _, end_s), (_, before_s, _) in zip(begins[1:], begins, strict=False))
    raw.asked.clear()
    assert past_of(raw, PLAIN, since_s, NOW_MS + 86_400_000) is not None
    assert {question.tier for question in raw.asked} == {HOURS}


def test_what_no_window_reaches_any_more_is_forgotten() -> None:
    now_ms = NOW_MS
    short = OBJECTIVES[1]
    pasts = Pasts(Raw(draw(6, 400)), lambda: now_ms)

    def tiers(objective: Objective) -> set[str]:
        asyncio.run(pasts.look([beginning(objective, NOW_S)]))
        past = pasts.of(objective.id, Stretch(objective.version, NOW_S))
        return set() if past is None else {tier.name for tier in past.rows}

    for objective, ages in ((PLAIN, {0: {"1s", "1m", "1h"}, 25_000: {"1h"}, 31 * DAY_S: set()}), (short, {40: set()})):
        for age_s, held in ages.items():
            now_ms = NOW_MS + age_s * 1_000
            tiers(objective)
            assert tiers(objective) == held


def test_a_longer_window_is_asked_for_and_a_store_that_is_away_waited_for() -> None:
    now_ms, raw = NOW_MS, Raw(draw(7, 400), failures=2)
    pasts = Pasts(raw, lambda: now_ms)
    day, month = replace(PLAIN, window_s=DAY_S, rules=()), PLAIN

    def look(promise: Objective) -> Past | None:
        asyncio.run(pasts.look([Beginning(Key(PLAIN.id, PLAIN.version, NOW_S), PLAIN, promise)]))
        return pasts.of(PLAIN.id, Stretch(PLAIN.version, NOW_S))

    assert look(day) is None
    assert raw.failures == 1
    assert look(day) is None
    assert raw.failures == 1, "not at once"
    for wait_ms in (2_000, 4_000):
        now_ms += wait_ms
        past = look(day)
    assert past is not None
    assert past.from_s >= NOW_S - 2 * DAY_S
    longer = look(month)
    assert longer is not None
    assert longer.from_s < NOW_S - 10 * DAY_S


@pytest.mark.parametrize(
    ("asked_ms", "took_ms", "due_ms"),
    [
        (100, 200, SETTLED_MS),
        (100, 5_000, 100_100),
        (SETTLED_MS, 200, SETTLED_MS + AGAIN_MS),
        (SETTLED_MS, 30_000, SETTLED_MS + 600_000),
        (UNTIL_MS, 200, None),
    ],
)
def test_it_is_asked_again_when_late_events_may_have_come(asked_ms: int, took_ms: int, due_ms: int | None) -> None:
    found = next_ms(NOW_MS, NOW_MS + asked_ms, took_ms)
    assert found == (None if due_ms is None else NOW_MS + due_ms)
