"""When the watchdog ends a worker, and when it holds its peace: a clock, a log and a broker that are values."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from streams import metrics
from streams.core.stall import Reading
from streams.engine.fetched import Heard
from streams.processors import watchdog
from streams.processors.watchdog import StalledError, Watchdog

ONE = TP("probe-results", 3)


class Stand:
    """A worker as the watchdog sees it; `look` lets a second pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit_s: float = 60.0) -> None:
        self.now_s = 1_000.0
        self.read_to, self.end, self.true_end = 100, 100, 100
        self.answers_fetches = self.answers_otherwise = self.works = True
        self.heard_s = self.now_s
        self.asked = 0
        monkeypatch.setattr(
            watchdog, "time", SimpleNamespace(monotonic=lambda: self.now_s, time_ns=lambda: int(self.now_s * 1e9))
        )
        monkeypatch.setattr(watchdog, "ask_ends", self._ask_ends)
        lags: Any = SimpleNamespace(
            readings=lambda: {ONE: Reading(self.read_to, self.end)},
            heard=lambda _: Heard(self.end, int(self.heard_s * 1_000)),
            read_to=lambda _: self.read_to,
        )
        app: Any = None
        self.dog = Watchdog(app, lags, limit_s, lambda: self.works)

    async def _ask_ends(self, *_: object) -> dict[TP, int]:
        self.asked += 1
        if not self.answers_otherwise:
            raise KafkaConnectionError("gone")
        return {ONE: self.true_end}

    def look(self) -> None:
        self.now_s += 1
        if self.answers_fetches:
            self.heard_s, self.end = self.now_s, self.true_end
        asyncio.run(self.dog.look())

    def for_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.look()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def stalled_s() -> float:
    return float(metrics.STALLED.labels(ONE.topic)._value.get())


def test_no_progress_with_records_to_read_ends_the_worker(stand: Stand) -> None:
    stand.true_end = 150
    stand.for_seconds(60)
    assert stalled_s() == 59
    with pytest.raises(StalledError) as caught:
        stand.look()
    assert str(caught.value) == (
        "probe-results partition 3: no progress for 60 s at offset 100, 50 records behind; expected some within 60 s"
    )


def test_the_limit_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand(monkeypatch, limit_s=5)
    stand.true_end = 101
    stand.for_seconds(5)
    with pytest.raises(StalledError, match="expected some within 5 s"):
        stand.look()


def test_a_fetcher_that_is_stuck_does_not_know_its_lag_and_is_found_all_the_same(stand: Stand) -> None:
    stand.answers_fetches = False
    stand.true_end = 101
    with pytest.raises(StalledError):
        stand.for_seconds(70)


def test_without_records_a_silent_fetcher_is_no_stall(stand: Stand) -> None:
    stand.answers_fetches = False
    stand.for_seconds(300)
    assert stand.asked > 200


def test_a_broker_that_is_paused_is_not_the_consumers_fault(stand: Stand) -> None:
    """Also when it was paused in the middle of a backlog, and the group cannot hear of the worker either."""
    stand.true_end = 5_000
    stand.for_seconds(10)
    stand.answers_fetches = stand.answers_otherwise = False
    stand.for_seconds(5)
    stand.works = False
    stand.for_seconds(300)
    stand.answers_fetches = stand.answers_otherwise = stand.works = True
    for _ in range(100):
        stand.read_to += 40
        stand.look()


def test_a_leader_that_is_gone_while_the_group_answers_is_not_either(stand: Stand) -> None:
    stand.true_end, stand.answers_fetches, stand.answers_otherwise = 5_000, False, False
    stand.for_seconds(300)
    assert stalled_s() == 0


def test_rebalances_and_recovery_are_not_watched(stand: Stand) -> None:
    stand.true_end = 5_000
    for _ in range(10):
        stand.works = True
        stand.for_seconds(55)
        stand.works = False
        stand.look()
    assert stalled_s() == 0


def test_slow_progress_is_progress(stand: Stand) -> None:
    stand.true_end = 1_000_000
    for _ in range(6):
        stand.for_seconds(50)
        stand.read_to += 1


def test_a_worker_that_was_stopped_for_long_is_given_time(stand: Stand) -> None:
    stand.true_end = 150
    stand.look()
    stand.now_s += 600
    stand.for_seconds(5)
    stand.read_to = 150
    stand.for_seconds(100)
    assert stalled_s() == 0
