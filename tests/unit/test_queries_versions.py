"""What views and `slo-status` say of an objective that has changed: its history goes on, each part as judged then."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from schemas.codec import decode, encode
from schemas.records import ProbeResult, SloStatus
from streams.core.calendars import Calendar
from streams.core.objectives import TimeSlices
from streams.core.past import Past, Question
from streams.core.rows import Steps
from streams.core.slices import SECONDS
from streams.core.versions import Announcement, Stretch, Timeline
from streams.processors.past import Beginning, Key
from streams.processors.queries import Completeness, PastOf, TableQueries
from streams.processors.status import LOOK_BACK_S, TOPIC, StatusPublisher
from streams.views.payloads import slices_payload, standing_payload
from tests.faults.world import BEGIN_MS, Clock, Worker, World, clock, objective

__all__ = ["clock"]

BEGIN_S = BEGIN_MS // 1_000
OLD, GONE, NEW = objective("o", 500), objective("gone"), objective("new")
SETS = (
    Announcement(0, BEGIN_MS - 60_000, 0, (OLD, GONE)),
    Announcement(1, BEGIN_MS, 0, (replace(OLD, latency_us_le=100), NEW)),
    Announcement(2, BEGIN_MS + 1_000, BEGIN_MS + 90_000, (OLD, NEW)),
    Announcement(3, BEGIN_MS + 2_000, BEGIN_MS + 100_000, (replace(OLD, target=0.5), NEW)),
)
LOG_S = 120
# One event a second of 300 µs: good before second 30 and from second 90 on.
GOOD_S = [*range(30), *range(90, LOG_S)]


class Producer:
    """Keeps what goes to `slo-status`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, SloStatus]] = []

    async def send(self, topic: str, key: bytes, value: bytes, *_: object) -> Any:  # noqa: ANN401 - Faust's future
        assert topic == TOPIC
        status = decode(value)
        assert isinstance(status, SloStatus)
        self.sent.append((key.decode(), status))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def asked(
    clock: Clock,
    question: Callable[[TableQueries], Any],
    sets: tuple[Announcement, ...] = SETS,
    past: PastOf = lambda *_: None,
) -> Any:  # noqa: ANN401 - of the question
    """An answer at the end of the log."""
    timeline = Timeline(sets)

    async def run() -> Any:  # noqa: ANN401 - as above
        world = World(2, sets[0].objectives, clock)
        world.known = lambda: timeline
        worker = Worker(world, random.Random(1))
        await worker.recover()
        for second in range(LOG_S):
            clock.now_ms = BEGIN_MS + second * 1_000 + 500
            labels = ("p", "http", "s", "/", "eu")
            event = ProbeResult("n", clock.now_ms, "b", second, *labels, success=True, latency_us=300)
            assert encode(event)
            world.probe(second % 2, event)
        while worker.behind():
            await worker.count()
            await worker.fold()
        fresh = Completeness(clock.now_ms, 0)
        now_ms = clock.now_ms
        queries = TableQueries(lambda: timeline, worker.objectives, 2, lambda: now_ms, lambda: fresh, past)
        return await question(queries)

    return asyncio.run(run())


def test_every_second_is_there_as_it_was_judged(clock: Clock) -> None:
    slices = asked(clock, lambda queries: queries.slices("o", BEGIN_MS, BEGIN_MS + LOG_S * 1_000))
    assert [step.start_s - BEGIN_S for step in slices.steps] == list(range(LOG_S))
    assert [step.start_s - BEGIN_S for step in slices.steps if step.good] == GOOD_S


def test_windows_add_up_over_changes_and_the_answer_names_them(clock: Clock) -> None:
    standing = asked(clock, lambda queries: queries.standing("o"))
    *_, (_, longest) = standing.figures.windows
    assert (longest.total, longest.good) == (LOG_S, len(GOOD_S))
    answer = standing_payload(standing, Completeness(0, 0))
    assert (answer["target"], answer["version"]) == (0.5, OLD.version)
    strict = replace(OLD, latency_us_le=100).version
    assert answer["versions"] == [
        {"version": OLD.version, "since_ms": 0},
        {"version": strict, "since_ms": BEGIN_MS + 30_000},
        {"version": OLD.version, "since_ms": BEGIN_MS + 90_000},
    ]


def test_a_new_objective_begins_with_its_start_and_one_that_left_is_unknown(clock: Clock) -> None:
    slices = asked(clock, lambda queries: queries.slices("new", BEGIN_MS, BEGIN_MS + LOG_S * 1_000))
    assert [step.start_s - BEGIN_S for step in slices.steps] == list(range(30, LOG_S))
    with pytest.raises(KeyError):
        asked(clock, lambda queries: queries.standing("gone"))


def test_an_slo_that_changes_to_time_slices_counts_them_from_then_on(clock: Clock) -> None:
    """Events of before are in its windows; the first minute is that of second 30."""
    slices, month = TimeSlices(60, 0.95), Calendar("2025-12-01 00:00:00", "UTC", 1, "M")
    sets = (SETS[0], Announcement(1, BEGIN_MS, 0, (replace(OLD, time_slices=slices, calendar=month, target=0.9),)))
    standing = asked(clock, lambda queries: queries.standing("o"), sets)
    answer = standing_payload(standing, Completeness(0, 0))
    *_, own = answer["windows"]
    assert (own["total"], own["good"]) == (LOG_S, LOG_S)
    assert own["from_ms"] == BEGIN_MS  # the month has just begun
    assert own["time_slices"] == {"from_ms": BEGIN_MS, "to_ms": BEGIN_MS + 60_000, "total": 1, "good": 1}
    assert (answer["attainment"], answer["budget_left"], answer["exhausted_in_s"]) == (1.0, 1.0, None)
    assert [each["version"] for each in answer["versions"]] == [OLD.version, f"{OLD.version}-1m"]


def test_a_minute_is_published_under_one_version(clock: Clock) -> None:
    """The table in ClickHouse has a row for each version of a minute: two rows would be summed."""

    async def publish(queries: TableQueries) -> list[tuple[str, SloStatus]]:
        app: Any = type("App", (), {"producer": Producer()})()
        publisher = StatusPublisher(app, queries)
        for _ in range(2):
            await publisher.publish(BEGIN_MS + LOG_S * 1_000)
            publisher.lose_all()  # everything is published anew
        return app.producer.sent  # type: ignore[no-any-return]

    sent: list[tuple[str, SloStatus]] = asked(clock, publish)
    strict = replace(OLD, latency_us_le=100)
    minutes = {(key, status.objective_version) for key, status in sent if key.startswith("o@")}
    assert minutes == {(f"o@{BEGIN_MS}", OLD.version), (f"o@{BEGIN_MS + 60_000}", strict.version)}
    assert {status.objective_version for key, status in sent if key == "o"} == {OLD.version}


def test_minutes_that_are_not_compared_any_more_are_forgotten(clock: Clock) -> None:
    async def publish(queries: TableQueries) -> list[int]:
        app: Any = type("App", (), {"producer": Producer()})()
        publisher, kept = StatusPublisher(app, queries), []
        for now_ms in (BEGIN_MS + LOG_S * 1_000, BEGIN_MS + (LOOK_BACK_S + 60) * 1_000, BEGIN_MS + 86_400_000):
            await publisher.publish(now_ms)
            kept.append(len(publisher._published["o"]))
        return kept

    assert asked(clock, publish) == [2, 1, 0]


def before_new(objective_id: str, first: Stretch) -> Past | None:
    """Of the objective that is new in second 30 all that the log has of before, in seconds."""
    if (objective_id, first) != ("new", Stretch(NEW.version, BEGIN_S + 30)):
        return None
    seconds, one = BEGIN_S + np.arange(30), np.ones(30, np.int64)
    columns = {"start": seconds, "series": 0 * one, "bucket": 0 * one, "good": one == 1, "n": one}
    rows = pl.DataFrame(columns | {"late_n": 0 * one, "sum_us": 300 * one, "max_us": 300 * one})
    empty = Past.empty(BEGIN_S + 30, BEGIN_MS + 31_000)
    return empty.plus(Question(SECONDS, BEGIN_S, BEGIN_S + 30), Steps.from_frame(rows))


def test_a_new_objective_shows_its_past_and_says_so(clock: Clock) -> None:
    async def both(queries: TableQueries) -> tuple[Any, Any, list[Beginning]]:
        slices = await queries.slices("new", BEGIN_MS, BEGIN_MS + LOG_S * 1_000, with_past=True)
        return slices, await queries.standing("new"), [*queries.beginnings()]

    slices, standing, beginnings = asked(clock, both, past=before_new)
    assert [(step.start_s - BEGIN_S, step.total) for step in slices.steps] == [(second, 1) for second in range(LOG_S)]
    assert [summary.total for _, summary in standing.figures.windows] == [10, 60, LOG_S, LOG_S]
    marked = {"source": "clickhouse", "from_ms": BEGIN_MS, "to_ms": BEGIN_MS + 30_000, "as_of_ms": BEGIN_MS + 31_000}
    for answer in (slices_payload(slices, Completeness(0, 0)), standing_payload(standing, Completeness(0, 0))):
        assert answer["history"] == marked
    assert beginnings == [Beginning(Key("new", NEW.version, BEGIN_S + 30), NEW, NEW)]


def test_minutes_are_published_as_the_tables_have_them(clock: Clock) -> None:
    """Others may count on them to be the stream's."""

    async def publish(queries: TableQueries) -> list[tuple[str, SloStatus]]:
        app: Any = type("App", (), {"producer": Producer()})()
        await StatusPublisher(app, queries).publish(BEGIN_MS + LOG_S * 1_000)
        return app.producer.sent  # type: ignore[no-any-return]

    sent: list[tuple[str, SloStatus]] = asked(clock, publish, past=before_new)
    totals = {key: status.windows[-1].total for key, status in sent if key.startswith("new")}
    assert totals == {"new": LOG_S, f"new@{BEGIN_MS}": 30, f"new@{BEGIN_MS + 60_000}": 60}
