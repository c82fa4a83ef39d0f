"""Windows, budgets and burn rates of random events equal what numpy computes from the events themselves.

The events go through the rollup and the table, late ones and open cells included, and answers are asked for in between:
what is kept from one to the next must not show.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.burn import recommended_rules
from streams.core.calendars import Calendar
from streams.core.objectives import Objective, Selector, TimeSlices
from streams.core.rollup import Rollup, SourceBatch
from streams.core.rows import OpenCells, Steps
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.core.standing import STANDARD_WINDOWS_S, figures
from streams.core.summaries import Shown, ShownRows
from streams.core.table import Heading, SloTable
from streams.processors.queries import Completeness, Standing
from streams.views.payloads import standing_payload

HOUR_S, DAY_S = 3_600, 86_400
NOW_S = 1_774_857_900  # 30 March 2026, 08:05 UTC: the clocks of Berlin were put forward the day before
LIMIT_US, TARGET = 200_000, 0.99
PLAIN = Objective(
    "plain", "s", "", Selector("shop"), LIMIT_US, TARGET, 30 * DAY_S, recommended_rules(30 * DAY_S, TARGET)
)
MONTH = Calendar("2026-01-01 00:00:00", "Europe/Berlin", 1, "M")
OBJECTIVES = (
    PLAIN,
    replace(PLAIN, id="short", window_s=30, rules=()),
    replace(PLAIN, id="minutes", time_slices=TimeSlices(60, 0.95)),
    replace(PLAIN, id="hours", time_slices=TimeSlices(7_200, 0.7), window_s=28 * DAY_S),
    replace(PLAIN, id="month", calendar=MONTH),
    replace(PLAIN, id="month-of-slices", calendar=MONTH, time_slices=TimeSlices(300, 0.9)),
)

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Events:
    """In the order of the log; times in ms."""

    append: Longs
    ts: Longs
    success: npt.NDArray[np.bool_]
    latency: Longs

    def part(self, low: int, high: int) -> "Events":
        return Events(self.append[low:high], self.ts[low:high], self.success[low:high], self.latency[low:high])

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        return self.success & (self.latency <= LIMIT_US)


def draw(seed: int, count: int) -> Events:
    """Some over 34 days, some in the last hours, some in the last minutes; some late, most of them by a little."""
    rng = np.random.default_rng(seed)
    ages = np.concatenate([rng.integers(0, span, count // 4) for span in (600, 6 * HOUR_S, 3 * DAY_S, 34 * DAY_S)])
    append = np.sort(NOW_S * 1_000 + 999 - ages * 1_000)
    lag = np.where(rng.random(len(append)) < 0.1, rng.integers(0, DAY_S * 1_000, len(append)), rng.integers(0, 3_000))
    trouble = rng.random() < 0.5  # an incident now, or never
    chance = np.where(append > (NOW_S - HOUR_S) * 1_000, 0.6 if trouble else 0.999, rng.choice((0.9, 0.99)))
    latency = np.where(rng.random(len(append)) < 0.9, rng.integers(1, LIMIT_US, len(append)), 0)
    latency = np.where(rng.random(len(append)) < 0.02, rng.choice((LIMIT_US, LIMIT_US + 1, 10**9)), latency)
    return Events(append, append - lag, rng.random(len(append)) < chance, latency)


class Tables:
    """A rollup and the table behind it."""

    def __init__(self, table: type[SloTable] = SloTable) -> None:
        self.index = SeriesIndex()
        self.rollup = Rollup(Judge(OBJECTIVES, self.index))
        self.rollup.open(0, 0)
        self.table = table(histograms_in_hours=True, index=self.index)
        self.read = 0

    def count(self, events: Events) -> None:
        """One poll, one flush, one record of partials."""
        records = len(events.ts)
        columns = {"success": events.success, "ts": events.ts, "latency_us": events.latency}
        labels = dict.fromkeys(LABELS, ["shop"] * records)
        frame = pl.DataFrame({"_row": np.arange(records, dtype=np.uint32), **labels, **columns})
        offsets = np.arange(self.read, self.read + records, dtype=np.int64)
        self.read += records
        flush = self.rollup.step([SourceBatch(0, offsets, events.append)], frame)
        record = self.table.applied + 1
        told = tuple((p, progress.applied_offset, progress.frontier) for p, progress in flush.progress.items())
        rows = flush.objectives
        self.table.fold([Heading(record, told)], OpenCells.arrived(rows, np.full(rows.height, record)))
        self.rollup.settle(flush)

    def answer(self, objective: Objective, now_ms: int) -> dict[str, Any]:
        """As JSON, judged up to now."""
        judged_to_ms = now_ms // 1_000 * 1_000
        found = figures(objective, self.table.show(), [self.index.number(objective.series)], now_ms, judged_to_ms)
        return standing_payload(Standing(objective, (), found, judged_to_ms, 0, 0, 0), Completeness(0, 0))


def within(events: Events, from_ms: int, to_ms: int) -> Events:
    chosen = (events.ts // 1_000 * 1_000 >= from_ms) & (events.ts // 1_000 * 1_000 < to_ms)
    return Events(events.append[chosen], events.ts[chosen], events.success[chosen], events.latency[chosen])


def bad_slices(events: Events, length_s: int, target: float) -> set[int]:
    slices: dict[int, list[int]] = {}
    for at_s, good in zip((events.ts // 1_000).tolist(), events.good.tolist(), strict=True):
        entry = slices.setdefault(at_s // length_s * length_s, [0, 0])
        entry[0] += 1
        entry[1] += good
    return {at for at, (total, good) in slices.items() if Fraction(good, total) < Fraction(str(target))}


def whole(objective: Objective, window: dict[str, Any]) -> tuple[int, int]:
    """Begin and end of all of an objective's own window, in seconds."""
    if objective.calendar is None:
        end = NOW_S + 1
        return end - objective.window_s, end
    zone = ZoneInfo(objective.calendar.zone)
    here = datetime.fromtimestamp(NOW_S, zone)
    first = datetime(here.year, here.month, 1, tzinfo=zone)
    after = (first.replace(tzinfo=None) + timedelta(days=32)).replace(day=1, tzinfo=zone)
    assert window["window_s"] == (after.timestamp() - first.timestamp())
    assert window["from_ms"] == first.timestamp() * 1_000
    return int(first.timestamp()), int(after.timestamp())


def check(objective: Objective, answer: dict[str, Any], events: Events) -> None:
    lengths = [length for length in STANDARD_WINDOWS_S if length < objective.window_s]
    assert [window["window_s"] for window in answer["windows"][:-1]] == lengths
    for window in answer["windows"]:
        counted = check_counts(window, events)
        if objective.time_slices:
            counted = check_slices(objective, window, events, own=window is answer["windows"][-1])
        check_budget(objective, answer, window, counted)
    assert answer["attainment"] == answer["windows"][-1]["attainment"]
    assert answer["budget_left"] == answer["windows"][-1]["budget_left"]
    for burn in answer["burns"]:
        for span_s, found in ((burn["long_s"], burn["long_burn_rate"]), (burn["short_s"], burn["short_burn_rate"])):
            assert found == pytest.approx(burning(objective, events, span_s), rel=1e-9)
        assert burn["firing"] == (min(burn["long_burn_rate"] or 0, burn["short_burn_rate"] or 0) > burn["factor"])


def check_counts(window: dict[str, Any], events: Events) -> tuple[int, int]:
    chosen = within(events, window["from_ms"], window["to_ms"])
    total, good = len(chosen.ts), int(chosen.good.sum())
    assert (window["total"], window["good"]) == (total, good)
    assert (window["sum_us"], window["max_us"]) == (int(chosen.latency.sum()), int(chosen.latency.max(initial=0)))
    for name, share in (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99)):
        exact = np.quantile(chosen.latency, share, method="inverted_cdf") if total else None
        assert window[name] == (None if exact is None else pytest.approx(exact, rel=0.0101, abs=0.06))
    return total, good


def check_slices(objective: Objective, window: dict[str, Any], events: Events, *, own: bool) -> tuple[int, int]:
    slices = objective.time_slices
    assert slices is not None
    length = slices.length_s
    begin, end = window["time_slices"]["from_ms"] // 1_000, window["time_slices"]["to_ms"] // 1_000
    if own and objective.calendar:
        first, _ = whole(objective, window)
        assert 0 <= begin - first < length
    else:
        assert window["window_s"] <= end - begin < window["window_s"] + length
    assert NOW_S - length < end <= NOW_S
    assert begin % length == end % length == 0
    since = int(events.ts.min()) // 1_000 // length * length
    counted = set(range(max(begin, since), end, length))
    total = len(counted)
    good = total - len(counted & bad_slices(events, length, slices.target))
    assert (window["time_slices"]["total"], window["time_slices"]["good"]) == (total, good)
    return total, good


def check_budget(
    objective: Objective, answer: dict[str, Any], window: dict[str, Any], counted: tuple[int, int]
) -> None:
    total, good = counted
    if not total:
        assert (window["attainment"], window["burn_rate"], window["budget_left"]) == (None, None, None)
        return
    allowed = 1 - Fraction(str(objective.target))
    burn = float(Fraction(total - good, total) / allowed)
    assert window["attainment"] == good / total
    assert window["burn_rate"] == pytest.approx(burn, rel=1e-9, abs=1e-12)
    own = answer["windows"][-1]
    share, (begin, end) = 1.0, whole(objective, own)
    if window is own and objective.time_slices:
        length = objective.time_slices.length_s
        share = total / (-(-end // length) - -(-begin // length))
    elif window is own and objective.calendar:
        share = (NOW_S + 1 - begin) / (end - begin)
    assert window["budget_left"] == pytest.approx(1 - burn * share, rel=1e-9, abs=1e-9)
    lasts = max(own["budget_left"], 0) * (end - begin) / burn if own["budget_left"] is not None and burn else None
    if lasts is not None and objective.calendar and lasts > end - NOW_S:
        lasts = None
    assert window["exhausted_in_s"] == (None if lasts is None else pytest.approx(lasts, rel=1e-6, abs=1e-6))


def burning(objective: Objective, events: Events, span_s: int) -> float | None:
    """By the traffic that is usual, up to the last whole second."""

    def counted(window_s: int) -> tuple[int, int, int]:
        """(total, bad, over how many seconds)."""
        step = 1 if window_s <= 600 else 60 if window_s <= 23_400 else HOUR_S
        begin, end = (NOW_S - window_s) // step * step, ((NOW_S - 1) // step + 1) * step
        if objective.time_slices:
            length = objective.time_slices.length_s
            end = NOW_S // length * length
            begin = max(end - -(-window_s // length) * length, int(events.ts.min()) // 1_000 // length * length)
            slices = set(range(begin, end, length))
            return len(slices), len(slices & bad_slices(events, length, objective.time_slices.target)), begin
        chosen = within(events, begin * 1_000, end * 1_000)
        since = int(chosen.ts.min()) // 1_000 // step * step if len(chosen.ts) else begin
        return len(chosen.ts), int((~chosen.good).sum()), end - since

    total, bad, _ = counted(span_s)
    usual_total, _, usual_s = counted(objective.window_s)
    usual = 0.0 if objective.time_slices or not usual_s else usual_total * min(1.0, span_s / usual_s)
    expected = max(float(total), usual)
    return bad / expected / (1 - objective.target) if expected else None


def played(events: Events, cuts: Iterable[int], table: type[SloTable] = SloTable) -> Tables:
    """Counted in batches; answers are asked for at each cut, and cells sealed at every second one."""
    tables, low = Tables(table), 0
    for number, high in enumerate([*sorted(set(cuts) - {0, len(events.ts)}), len(events.ts)]):
        tables.count(events.part(low, high))
        if number % 2:
            tables.table.seal()
        for objective in OBJECTIVES:
            tables.answer(objective, int(events.append[high - 1]))
        low = high
    return tables


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 399), max_size=3), st.booleans())
def test_windows_are_what_numpy_makes_of_the_events(seed: int, cuts: Sequence[int], seal: bool) -> None:  # noqa: FBT001 - drawn
    events = draw(seed, 400)
    tables = played(events, cuts)
    if seal:
        tables.table.seal()
    for objective in OBJECTIVES:
        check(objective, tables.answer(objective, NOW_S * 1_000 + 999), events)


class NeverForgets(SloTable):
    """A table that shows what it made of a chunk when the chunk has changed."""

    def show(self) -> Shown:
        before = dict(self._shown)
        shown = super().show()
        self._shown.update(before)
        return replace(shown, chunks=self._shown)


def late_in_old_hours() -> Events:
    """A day of events, three an hour, and then ten bad ones of its fourth hour."""
    begin_ms = (NOW_S - 3 * DAY_S) // DAY_S * DAY_S * 1_000
    append = begin_ms + np.arange(72) * 1_200_000
    late = np.full(10, begin_ms + 4 * HOUR_S * 1_000)
    ages = np.full(10, begin_ms + 2 * DAY_S * 1_000)
    success = np.concatenate([np.ones(72, np.bool_), np.zeros(10, np.bool_)])
    return Events(np.concatenate([append, ages]), np.concatenate([append, late]), success, np.zeros(82, np.int64))


@pytest.mark.parametrize(("table", "right"), [(SloTable, True), (NeverForgets, False)])
def test_late_events_change_what_was_known_of_old_hours_and_slices(table: type[SloTable], right: bool) -> None:  # noqa: FBT001 - a column
    events = late_in_old_hours()
    tables = Tables(table)
    last = events.append[-1] + 60_000
    end = Events(np.array([last]), np.array([last]), np.ones(1, np.bool_), np.zeros(1, np.int64))
    for part in (events.part(0, 72), events.part(72, 82), end):
        tables.count(part)
        tables.table.seal()
        answers = [tables.answer(objective, NOW_S * 1_000 + 999) for objective in (PLAIN, OBJECTIVES[2])]
    plain, minutes = (answer["windows"][-1] for answer in answers)
    assert ((plain["total"], plain["good"]) == (83, 73)) is right
    found = minutes["time_slices"]
    assert (found["total"] - found["good"] == 1) is right


def test_hours_and_slices_of_the_past_are_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of a long history costs as much as what has changed."""
    tables = Tables()
    tables.count(draw(1, 400))
    tables.table.seal()
    made: list[int] = []

    rows_of = ShownRows._rows_of

    def noted(self: ShownRows, number: int) -> tuple[Steps, npt.NDArray[np.int64]]:
        made.append(number)
        return rows_of(self, number)

    monkeypatch.setattr(ShownRows, "_rows_of", noted)
    looked: list[int] = []
    for _ in range(2):
        for objective in (PLAIN, OBJECTIVES[2]):
            tables.answer(objective, NOW_S * 1_000)
        looked.append(len(made))
        made.clear()
    first, again = looked
    assert first > 150  # days and quarters of days
    assert again < 100  # where windows begin, what goes on, and where cells are open
