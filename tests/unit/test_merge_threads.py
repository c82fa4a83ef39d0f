"""When merges of the embedded store give way: the rule, an engine that does not answer, and what is logged of it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from streams.archive import merge_threads
from streams.archive.embedded import Answer, Handle, SqlError
from streams.archive.merge_threads import FEW_PARTS, MANY_PARTS, GivingWay, give_way, giving_way
from streams.archive.metrics import ArchiveMetrics
from tests.unit.waiting import until


class Engine:
    """Has as many parts as it is told, or an error."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = iter(answers)
        self.may_answer = threading.Event()
        self.may_answer.set()

    @contextmanager
    def handle(self) -> Iterator[Handle]:
        yield cast("Handle", self)

    def query(self, _: str) -> Answer:
        assert self.may_answer.wait(30)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return Answer(b"%d\n" % answer)


def gives(way: GivingWay) -> bool:
    return way._idle


def decide(engine: Engine, times: int) -> tuple[list[bool], list[dict[str, Any]]]:
    """Whether merges were to give way after each answer, and what was logged."""
    way = GivingWay(engine, ArchiveMetrics(), allowed=False)
    found = []

    async def ask() -> None:
        for _ in range(times):
            await way.decide()
            found.append(gives(way))

    with capture_logs() as logs:
        asyncio.run(ask())
    return found, cast("list[dict[str, Any]]", logs)


@pytest.mark.parametrize(
    ("parts", "before", "after"),
    [
        (0, True, True),
        (149, True, True),
        (150, True, False),
        (149, False, False),
        (76, False, False),
        (75, False, True),
    ],
)
def test_merges_give_way_until_there_are_many_parts_and_again_when_there_are_few(
    *, parts: int, before: bool, after: bool
) -> None:
    assert give_way(parts, before=before) is after


@given(st.lists(st.integers(0, 2 * MANY_PARTS)), st.booleans())
def test_the_rule_changes_only_at_its_bounds(parts: list[int], before: bool) -> None:  # noqa: FBT001 - drawn
    for number in parts:
        after = give_way(number, before=before)
        if number >= MANY_PARTS or number <= FEW_PARTS:
            assert after is (number <= FEW_PARTS)
        else:
            assert after is before
        before = after


def test_what_was_decided_counts_for_the_next_answer() -> None:
    assert decide(Engine(100, 150, 100, 75, 100), 5)[0] == [True, False, False, True, True]


def test_an_error_of_the_engine_is_logged_once_and_merges_give_no_way() -> None:
    broken = SqlError(241, "Code: 241. DB::Exception: memory limit")
    found, logs = decide(Engine(1, broken, OSError("gone"), 1, broken), 5)
    assert found == [True, False, False, True, False]
    assert [(line["event"], line["why"]) for line in logs] == [("parts-unknown", broken.text)] * 2


def test_merges_give_no_way_while_an_answer_is_late_and_until_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(1, 2, 3)
    metrics = ArchiveMetrics()
    way = GivingWay(engine, metrics, allowed=False)

    async def ask() -> None:
        monkeypatch.setattr(merge_threads, "_ANSWER_S", 30.0)
        await way.decide()
        assert gives(way)
        monkeypatch.setattr(merge_threads, "_ANSWER_S", 0.01)
        engine.may_answer.clear()
        late = asyncio.create_task(way.decide())
        await until(lambda: not gives(way))
        engine.may_answer.set()
        await late
        assert not gives(way)
        assert metrics.registry.get_sample_value("fleetbeat_archive_parts") == 2
        monkeypatch.setattr(merge_threads, "_ANSWER_S", 30.0)
        await way.decide()
        assert gives(way)

    with capture_logs() as logs:
        asyncio.run(ask())
    assert [line["why"] for line in logs] == ["none within 0.01 s"]


def test_where_they_may_not_it_is_said_once_and_parts_are_still_counted() -> None:
    metrics = ArchiveMetrics()

    async def run() -> None:
        async with giving_way(Engine(7), metrics, lambda: "the sandbox says no"):
            await until(lambda: metrics.registry.get_sample_value("fleetbeat_archive_parts") == 7)

    with capture_logs() as logs:
        asyncio.run(run())
    assert [(line["event"], line["why"]) for line in logs] == [("merges-at-normal-priority", "the sandbox says no")]
    assert metrics.registry.get_sample_value("fleetbeat_archive_merges_give_way") == 0
