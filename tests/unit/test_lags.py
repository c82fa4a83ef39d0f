"""What a worker concludes from where it has read to and where the log ends."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams.core.completeness import Tip
from streams.core.sources import lane
from streams.engine.fetched import Heard
from streams.engine.transport import ResumePoint
from streams.processors import lags
from streams.processors.lags import Lags

RESULTS, COUNTS, PARTIALS, HEARTBEATS = (TP(topic, 0) for topic in lags.TOPICS)
COUNTS_LANE = lane(COUNTS.topic, 0)
NOW_MS = 5_000_000


class Stand:
    """One partition of each topic, read to their ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = NOW_MS
        self.ends = {RESULTS: 40, COUNTS: 0, PARTIALS: 7, HEARTBEATS: 90}
        self.heard_ms = NOW_MS
        self.published: int | None = None
        self.counted: int | None = 0
        self.table = SimpleNamespace(frontiers={0: 1_000}, told=dict[int, int]())
        self.table.applied = 6
        self.part = SimpleNamespace(applied=6, shown=self.table)
        self.committed = {RESULTS: ResumePoint(40, 0)}
        self.consumer: Any = SimpleNamespace(assignment=lambda: set(self.ends), committed=self.committed)
        self.objectives = SimpleNamespace(parts={0: self.part}, recovered=True)
        self.nodes = SimpleNamespace(read_to=90)
        monkeypatch.setattr(lags, "last_heard", lambda _, tp: Heard(self.ends[tp], self.heard_ms))
        monkeypatch.setattr(lags, "time", SimpleNamespace(time_ns=lambda: self.now_ms * 1_000_000))
        app: Any = SimpleNamespace(consumer=self.consumer)
        rollup: Any = SimpleNamespace(read_to=lambda _: self.published)
        objectives: Any = self.objectives
        liveness: Any = SimpleNamespace(parts={0: self.nodes})
        counts: Any = SimpleNamespace(read_to=lambda _: self.counted)
        self.lags = Lags(app, {RESULTS.topic: rollup, COUNTS.topic: counts}, objectives, liveness, 1)
        self.lags.assigned()

    def complete_to_ms(self) -> int:
        return self.lags.completeness().complete_to_ms

    def look_twice(self) -> None:
        self.lags.look()
        self.lags.look()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def test_what_is_not_worked_off_is_lag(stand: Stand) -> None:
    assert stand.lags.total() == 0
    stand.ends |= {RESULTS: 41, PARTIALS: 9, HEARTBEATS: 93}
    assert stand.lags.total() == 6
    stand.published = 41
    assert stand.lags.total() == 5


def test_what_this_worker_has_published_is_complete_once_its_table_was_told(stand: Stand) -> None:
    stand.published = 40
    assert stand.complete_to_ms() == 1_000
    stand.table.told[0] = 38
    assert stand.complete_to_ms() == 1_000
    stand.table.told[0] = 39
    assert stand.complete_to_ms() == NOW_MS
    stand.ends[RESULTS], stand.now_ms = 41, NOW_MS + 700  # a record that nobody has counted yet
    assert stand.complete_to_ms() == NOW_MS


def test_what_others_had_published_is_complete_once_the_tables_input_was_read_since(stand: Stand) -> None:
    assert stand.complete_to_ms() == 1_000
    stand.table.applied = 5
    stand.look_twice()
    assert stand.complete_to_ms() == 1_000
    stand.table.applied = 6
    stand.look_twice()
    assert stand.complete_to_ms() == NOW_MS


def test_a_table_that_is_being_built_anew_has_read_nothing(stand: Stand) -> None:
    stand.look_twice()
    stand.lags.lose_all()
    stand.objectives.recovered = False
    stand.look_twice()
    stand.lags.assigned()
    stand.now_ms = stand.heard_ms = NOW_MS + 9_000
    stand.look_twice()
    assert stand.complete_to_ms() <= NOW_MS


def test_between_rebalance_and_assignment_nothing_is_said_of_others_words(stand: Stand) -> None:
    stand.counted = None
    stand.lags.lose_all()
    assert stand.lags.own_tips() == {}
    stand.lags.assigned()
    assert stand.lags.own_tips() == {0: Tip(40, NOW_MS, NOW_MS), COUNTS_LANE: Tip(0, NOW_MS, NOW_MS)}


def test_who_hears_nothing_from_the_broker_does_not_say_now(stand: Stand) -> None:
    """Others may write what it does not hear of."""
    stand.published, stand.table.told[0] = 40, 39
    stand.now_ms = NOW_MS + lags.FRESH_MS + 1
    assert stand.complete_to_ms() == NOW_MS
    stand.now_ms = NOW_MS + lags.FRESH_MS
    assert stand.complete_to_ms() == NOW_MS + lags.FRESH_MS


def test_another_workers_word_counts_for_its_partitions(stand: Stand) -> None:
    del stand.ends[RESULTS]
    assert stand.complete_to_ms() == 1_000
    stand.lags.hear({0: Tip(40, NOW_MS - 3), 99: Tip(1, NOW_MS)})
    stand.table.told[0] = 39
    assert stand.complete_to_ms() == NOW_MS - 3
    stand.lags.hear({0: Tip(40, NOW_MS + 60_000)})  # of a clock that is ahead
    assert stand.complete_to_ms() == NOW_MS


def test_a_topic_that_nobody_writes_to_holds_up_nothing_and_one_that_is_behind_does(stand: Stand) -> None:
    stand.published, stand.table.told[0] = 40, 39
    assert stand.complete_to_ms() == NOW_MS
    stand.ends[COUNTS], stand.now_ms = 3, NOW_MS + 900
    stand.heard_ms = stand.now_ms
    assert stand.complete_to_ms() == NOW_MS
    stand.counted, stand.table.told[COUNTS_LANE] = 3, 1
    assert stand.complete_to_ms() == 0  # the first records of all: there is no frontier yet
    stand.table.frontiers[COUNTS_LANE] = 2_000
    assert stand.complete_to_ms() == 2_000
    stand.table.told[COUNTS_LANE] = 2
    assert stand.complete_to_ms() == NOW_MS + 900


def test_nothing_known_is_no_claim(stand: Stand) -> None:
    stand.table.frontiers.clear()
    found = stand.lags.completeness()
    assert (found.complete_to_ms, found.staleness_ms) == (0, -1)


def test_before_faust_has_started_nothing_is_known_and_nothing_fails(stand: Stand) -> None:
    """The views are there already."""

    def not_started() -> set[TP]:
        raise ConsumerNotStarted

    stand.consumer.assignment = not_started
    stand.objectives.parts.clear()
    stand.look_twice()
    assert (stand.complete_to_ms(), stand.lags.own_tips(), stand.lags.readings()) == (0, {}, {})
