"""The intake: what Faust delivers twice counts once, and what it has lost is noticed."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams import metrics
from streams.engine.intake import Intake, PassedOverError
from streams.engine.transport import LOG_APPEND_TIME, Poll, ResumePoint

TOPIC = "t"


def poll(begin: int | None, *offsets: int) -> Poll:
    """Records of partition 0."""
    records = [ConsumerRecord(TOPIC, 0, at, 0, LOG_APPEND_TIME, b"", b"", None, 0, 0, ()) for at in offsets]
    return Poll(records, begin)


def intake(committed: int | None = None, earliest: int = 0) -> Intake:
    async def earliest_offsets(tp: TP) -> dict[TP, int]:
        return {tp: earliest}

    points = {} if committed is None else {TP(TOPIC, 0): ResumePoint(committed, 0)}
    consumer = SimpleNamespace(committed=points, earliest_offsets=earliest_offsets)
    return Intake(SimpleNamespace(consumer=consumer), TOPIC)  # type: ignore[arg-type]


def taken(own: Intake, *polls: Poll) -> list[list[int]]:
    async def run() -> list[list[int]]:
        return [[record.offset for record in await own.take(poll)] for poll in polls]

    return asyncio.run(run())


def missing() -> float:
    value: float = metrics.HOLES.labels(TOPIC)._value.get()
    return value


def test_polls_that_go_on_from_each_other_are_taken_whole() -> None:
    assert taken(intake(5), poll(5, 5, 6), poll(7, 7), poll(8, 8, 9)) == [[5, 6], [7], [8, 9]]


def test_what_comes_again_is_not_taken_again() -> None:
    assert taken(intake(5), poll(5, 5, 6, 7), poll(5, 5, 6), poll(7, 7, 8)) == [[5, 6, 7], [], [8]]


def test_a_poll_that_is_missing_is_an_error() -> None:
    own = intake(5)
    with pytest.raises(PassedOverError, match="t partition 0: a poll from offset 9; expected 7"):
        taken(own, poll(5, 5, 6), poll(9, 9))


def test_the_first_poll_begins_where_the_seek_went() -> None:
    with pytest.raises(PassedOverError):
        taken(intake(5), poll(9, 9))
    with pytest.raises(PassedOverError):
        taken(intake(), poll(9, 9))


def test_a_poll_of_before_the_seek_is_left_for_the_one_after_it() -> None:
    assert taken(intake(5), poll(None, 3, 4), poll(5, 5)) == [[], [5]]


def test_after_a_rebalance_polls_begin_at_the_commit_again() -> None:
    own = intake(5)
    taken(own, poll(5, 5, 6))
    own.lose_all()
    assert taken(own, poll(5, 5, 6, 7)) == [[5, 6, 7]]


def test_what_retention_has_deleted_is_counted() -> None:
    before = missing()
    assert taken(intake(5, earliest=20), poll(5, 20, 21)) == [[20, 21]]
    assert missing() - before == 15


@pytest.mark.parametrize("committed", [None, 5])
def test_offsets_that_never_held_a_record_are_not_missing(committed: int | None) -> None:
    """A producer's transactions end with a mark of their own; what is older than the first commit was never ours."""
    before, begin = missing(), committed or 0
    own = intake(committed, earliest=30 if committed is None else 0)
    assert taken(own, poll(begin, begin + 30), poll(begin + 31, begin + 33)) == [[begin + 30], [begin + 33]]
    assert missing() == before
