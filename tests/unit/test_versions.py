"""Which objectives judge a slice: the same for everyone who may count, whenever it is counted."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from unittest import mock

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from streams.core.calendars import Calendar
from streams.core.objectives import Objective, Selector, TimeSlices
from streams.core.versions import (
    CONFIRMED_FOR_MS,
    KEPT_MS,
    SPARE_MS,
    Announce,
    Announcement,
    Outdated,
    Same,
    Stretch,
    Timeline,
    in_force,
    propose,
)
from streams.engine import partials
from streams.slo_command import describe
from streams.sql.library import find
from tests.unit.exactness import START_MS, Event, Labels, Logged, Promise, draw_log
from tests.unit.versions_world import (
    KNOWN_BEFORE_MS,
    LEAD_MS,
    JudgesByTheNewest,
    KnowsTooLate,
    RandomVersionedWorld,
    Said,
    ScriptedWorld,
    VersionedWorld,
    objectives_of,
    promises_at,
    timeline_of,
)

SHOP: Labels = ("shop", "/cart", "us", "http")
ANYTHING = (None, None, None, None)
LOOSE, STRICT = (Promise("o", ANYTHING, 1_000),), (Promise("o", ANYTHING, 100),)
BASE_S = START_MS // 1_000
assert START_MS % 1_000 == 0


def objective(limit: int | None, name: str = "o", target: float = 0.99) -> Objective:
    return Objective(name, "s", name, Selector(), limit, target, 60)


def said(
    append_s: float, objectives: tuple[Objective, ...], asked_s: float = 0, offset: int | None = None
) -> Announcement:
    offset = int(append_s * 10) if offset is None else offset
    return Announcement(offset, int(append_s * 1_000), int(asked_s * 1_000), objectives)


A, B, C = (objective(1),), (objective(2),), (objective(3),)


@pytest.mark.parametrize(
    ("announced", "eras"),
    [
        pytest.param([], [], id="nothing was announced"),
        pytest.param([said(5, A)], [(0, A)], id="the first set judges what was before it too"),
        pytest.param([said(5, A), said(7, B)], [(0, A), (37, B)], id="30 s after it was announced"),
        pytest.param([said(5, A), said(7.001, B)], [(0, A), (38, B)], id="only whole slices change"),
        pytest.param([said(5, A), said(7, B, asked_s=99)], [(0, A), (99, B)], id="as late as was asked for"),
        pytest.param([said(5, A), said(7, B, asked_s=8)], [(0, A), (37, B)], id="never sooner"),
        pytest.param(
            [said(5, A), said(7, B, asked_s=99), said(8, C)], [(0, A), (38, C)], id="replaced before it started"
        ),
        pytest.param([said(5, A), said(7, A)], [(0, A)], id="two workers said the same"),
        pytest.param([said(5, A), said(7, B), said(8, A)], [(0, A), (37, B), (38, A)], id="taken back"),
        pytest.param([said(5, A), said(7, B, asked_s=99), said(8, A)], [(0, A)], id="taken back before it started"),
        pytest.param([said(7, B), said(5, A)], [(0, A), (37, B)], id="the order of offsets counts"),
    ],
)
def test_eras(announced: list[Announcement], eras: list[tuple[int, tuple[Objective, ...]]]) -> None:
    assert [(era.since_s, era.objectives) for era in Timeline(announced).eras] == eras


def test_a_change_of_what_does_not_judge_makes_no_new_stretch() -> None:
    timeline = Timeline(
        [said(5, A), said(10, (objective(1, target=0.5),)), said(20, B), said(30, (objective(9, "p"),))]
    )
    one, two = A[0].version, B[0].version
    assert timeline.stretches("o") == (Stretch(one, 0, 50), Stretch(two, 50, 60))
    assert timeline.stretches("p") == (Stretch(objective(9, "p").version, 60),)
    assert in_force(timeline.stretches("o"), 49, 51) == timeline.stretches("o")
    assert in_force(timeline.stretches("o"), 50, 60) == timeline.stretches("o")[1:]
    assert in_force(timeline.stretches("o"), 60, 99) == ()
    assert timeline.era(41_000).objectives[0].target == 0.5


def test_what_judges_nothing_any_more_can_be_forgotten_and_nothing_else() -> None:
    announced = [said(5, A), said(50, B), said(90, C)]
    timeline = Timeline(announced)
    assert timeline.ended_before(79_999 + KEPT_MS) == announced[0].offset
    assert timeline.ended_before(80_000 + KEPT_MS) == announced[1].offset
    assert [(e.since_s, e.objectives) for e in Timeline(announced[1:]).eras] == [(0, B), (120, C)]


SETS = st.lists(st.tuples(st.integers(0, 99_000), st.sampled_from((0, 50_000, 120_000)), st.integers(0, 3)), min_size=1)


@settings(deadline=None)
@given(SETS, st.integers(0, 99_000), st.integers(0, 150))
def test_a_timeline_is_the_plain_rule_and_what_comes_later_changes_no_slice_that_may_be_counted(
    drawn: list[tuple[int, int, int]], until_ms: int, second: int
) -> None:
    log = [Said(at, asked, (Promise("o", ANYTHING, limit),)) for at, asked, limit in sorted(drawn)]
    wanted = objectives_of(promises_at(log, second))
    assert timeline_of(log, 1 << 40).era(second * 1_000).objectives == wanted
    if second * 1_000 <= until_ms + LEAD_MS and log[0].append_ms <= until_ms:
        assert timeline_of(log, until_ms).era(second * 1_000).objectives == wanted


@pytest.mark.parametrize(
    ("announced", "file_s", "does"),
    [
        pytest.param([], 0, Announce(A), id="nothing is there"),
        pytest.param([said(5, A)], 0, Same(), id="it is there already"),
        pytest.param([said(5, B)], 0, Announce(A), id="an old file that nobody knows"),
        pytest.param([said(5, A), said(9, B)], 4, Outdated(9_000), id="an old file of before the newest set"),
        pytest.param(
            [said(5, A), replace(said(9, B), host="own")], 4, Announce(A), id="an old file where the newest one was"
        ),
        pytest.param([said(5, A), said(9, B)], 10, Announce(A), id="a file that was written again"),
    ],
)
def test_what_a_starting_worker_does_with_its_file(
    announced: list[Announcement], file_s: int, does: Announce | Same | Outdated
) -> None:
    assert propose(A, file_s * 1_000, "own", announced) == does


def test_the_bounds_leave_something_for_clocks_that_differ() -> None:
    assert CONFIRMED_FOR_MS + SPARE_MS == KNOWN_BEFORE_MS
    assert SPARE_MS >= 10_000


def test_the_command_names_every_version_with_its_time() -> None:
    timeline = Timeline([said(5, A), said(10, B, asked_s=60), said(30, (objective(2, target=0.5),), asked_s=120)])
    assert list(describe(timeline, 61_000)) == [
        "o: 0.5 over 60 s, of everything: good when it succeeds within 2 µs",
        f"  {A[0].version}  from the beginning to 1970-01-01T00:01:00Z",
        f"  {B[0].version}  since 1970-01-01T00:01:00Z",
        "  what is promised changes at 1970-01-01T00:02:00Z",
        "  why: fleetbeat sql --name worst_series --param latency_us_le=2",
    ]
    assert list(describe(timeline, 61_000, "p")) == []


def test_the_command_fills_in_the_query_that_says_why() -> None:
    asked = replace(objective(1), latency_us_le=None, selector=Selector(service="check out", region="eu"))
    *_, why = describe(Timeline.of([asked]), 0)
    assert why == "  why: fleetbeat sql --name worst_series --param 'service=check out' --param region=eu"
    arguments = shlex.split(why.removeprefix("  why: "))
    pairs = (pair.split("=", 1) for flag, pair in pairwise(arguments) if flag == "--param")
    assert find(arguments[3]).fill(dict(pairs), datetime.now(UTC))["service"] == "check out"
    *_, last = describe(Timeline.of([replace(asked, source="request-counts")]), 0)
    assert "why" not in last


def test_the_command_says_slices_and_calendars() -> None:
    calendar = Calendar("2026-01-01 00:00:00", "Europe/Berlin", 1, "M")
    sliced = replace(objective(1), time_slices=TimeSlices(300, 0.95), calendar=calendar)
    told = next(iter(describe(Timeline.of([sliced]), 0)))
    assert told.startswith(
        "o: 0.99 of slices of 300 s, each 0.95 every 1M from 2026-01-01 00:00:00 Europe/Berlin, of ev"
    )


# Worlds --------------------------------------------------------------------------------------------------------------


def at(append_s: float, ts_s: float, latency_us: int = 500) -> Logged:
    event = Event(SHOP, START_MS + int(ts_s * 1_000), success=True, latency_us=latency_us)
    return Logged(START_MS + int(append_s * 1_000), event)


# The second set starts at 40 s; the fourth event is as far ahead of its append time as it may be.
CHANGE = [Said(START_MS, 0, LOOSE), Said(START_MS + 10_000, 0, STRICT)]
AROUND = [at(1, 1), at(34, 34), at(34.9, 39.9), at(35, 40), at(41, 41), at(41.5, 39.5), at(55, 39), at(56, 56)]


def play(kind: type[ScriptedWorld], *cuts: int, restart: bool) -> str:
    world = kind([AROUND], CHANGE)
    for end in (*cuts, len(AROUND)):
        world.count(world.counters[0], (0, world.counters[0].next[0], end))
        if restart:
            world.restart_counters()
    return world.finish()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("cuts", [(), (4,), (1, 2, 3, 4, 5, 6, 7)])
def test_each_slice_is_judged_by_the_set_of_its_time(cuts: tuple[int, ...], restart: bool) -> None:  # noqa: FBT001 - a parameter
    assert play(ScriptedWorld, *cuts, restart=restart) == ""


@pytest.mark.parametrize("without", [JudgesByTheNewest, KnowsTooLate], ids=lambda kind: kind.__name__)
def test_not_without_the_rule(without: type[VersionedWorld]) -> None:
    kind = type(f"Scripted{without.__name__}", (without, ScriptedWorld), {})
    assert play(kind, 4, restart=False) != ""


def run(seed: int, kind: type[RandomVersionedWorld], acts: int) -> tuple[str, str]:
    """What differs in the end, and the story that led there."""
    rng = Random(seed)
    with mock.patch.object(partials, "MAX_RECORD_BYTES", 3_000):
        world = kind(draw_log(rng, 3, 30), rng)
        differs = world.lived(acts)
    return differs, "\n".join([*map(str, world.said), *world.story])


@settings(max_examples=2, deadline=None, print_blob=True)
@given(seed=st.integers(0, (1 << 32) - 1))
def test_whatever_happens_every_slice_is_judged_by_the_set_of_its_time(seed: int) -> None:
    differs, story = run(seed, RandomVersionedWorld, 40)
    note(story)
    assert differs == ""


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=200, deadline=None, print_blob=True)
@given(seed=st.integers(0, (1 << 32) - 1), acts=st.integers(10, 100))
def test_whatever_happens_for_longer(seed: int, acts: int) -> None:
    differs, story = run(seed, RandomVersionedWorld, acts)
    note(story)
    assert differs == ""


def test_random_worlds_notice_a_worker_that_judges_by_its_file() -> None:
    kind = type("RandomNewest", (JudgesByTheNewest, RandomVersionedWorld), {})
    assert any(run(seed, kind, 20)[0] for seed in range(30))
