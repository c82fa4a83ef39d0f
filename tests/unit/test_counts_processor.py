"""The rollup of request-counts: from the broker's batches to partials of its own topic, commits and dead letters."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.buckets import bucket_of
from schemas.codec import decode, encode
from schemas.records import BucketCount, DeadLetter, RequestCount, SloPartial
from streams import pieces
from streams.core.rows import OpenCells
from streams.core.series import Judge, SeriesIndex
from streams.core.slices import SECONDS
from streams.core.sources import COUNTS, lane
from streams.core.table import SloTable
from streams.engine.partials import heading, read_partial
from streams.engine.transport import LOG_APPEND_TIME, Poll, RawPoll
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_recovery import PARTIALS
from tests.unit.exactness import START_MS
from tests.unit.raw_batches import raw_batches
from tests.unit.test_rollup_processor import Fake

HISTOGRAM = (BucketCount(bucket_of(400), 7, 7), BucketCount(bucket_of(90_000), 3, 1))
GOOD = RequestCount("n", START_MS, 1_000, "b", 0, "s", "/", "eu", 10, 8, 272_800, 90_000, HISTOGRAM)
LIAR = replace(GOOD, good=11)


class Keeping(Fake):
    """Takes dead letters too."""

    def __init__(self) -> None:
        super().__init__()
        self.letters: list[DeadLetter] = []

    async def send(self, topic: str, key: object, value: bytes, partition: int | None, *rest: object) -> Any:  # noqa: ANN401 - as Fake
        if topic == PARTIALS:
            return await super().send(topic, key, value, partition, *rest)
        letter = decode(value)
        assert isinstance(letter, DeadLetter)
        self.letters.append(letter)
        acked = asyncio.get_running_loop().create_future()
        acked.set_result(None)
        return acked


def record(offset: int, said: RequestCount) -> ConsumerRecord[bytes, bytes]:
    value = encode(replace(said, seq=offset))
    return ConsumerRecord(COUNTS, 0, offset, START_MS + 1_100, LOG_APPEND_TIME, b"n", value, None, 1, len(value), ())


def counted(fake: Keeping, *polls: Poll | RawPoll) -> tuple[RollupProcessor, list[SloPartial]]:
    index = SeriesIndex()
    judge = Judge((), index, COUNTS)
    own = RollupProcessor(fake, judge, index, 1, lambda: judge.timeline)  # type: ignore[arg-type]

    async def run() -> None:
        own._pending += polls
        await own.step()

    asyncio.run(run())
    return own, [sent for _, sent in fake.sent]


def totals(partials: list[SloPartial]) -> list[tuple[int, int, int, int]]:
    """(n, good, sum_us, max_us) of what the only series has in its second."""
    table, index = SloTable(histograms_in_hours=True), SeriesIndex()
    for offset, partial in enumerate(partials):
        _, rows = read_partial(encode(partial), index)
        table.fold([heading(offset, partial)], OpenCells.arrived(rows, np.full(rows.height, offset)))
    assert index.names == ['["s","/","eu","requests","request-counts"]']
    assert set(table.told) == {lane(COUNTS, 0)}
    found = table.read(0, SECONDS, 0, 1 << 32)
    assert found["start"].unique().to_list() == [START_MS // 1_000]
    return [(found["n"].sum(), found.filter("good")["n"].sum(), found["sum_us"].sum(), found["max_us"].max())]  # type: ignore[list-item]


@pytest.mark.parametrize("raw", [False, True], ids=["records", "batches"])
@pytest.mark.parametrize("worth_it", [1, 100], ids=["as blocks", "record by record"])
def test_what_was_counted_is_published_under_its_topic_and_committed(
    monkeypatch: pytest.MonkeyPatch,
    raw: bool,  # noqa: FBT001 - a case
    worth_it: int,
) -> None:
    monkeypatch.setattr(pieces, "WORTH_IT", worth_it)
    records = [record(0, GOOD), record(1, replace(GOOD, histogram=(), sum_us=0, max_us=0)), record(2, GOOD)]
    fake = Keeping()
    own, partials = counted(fake, RawPoll(raw_batches(records), 0) if raw else Poll(records, 0))
    assert {(partial.topic, partial.topic_id) for partial in partials} == {(COUNTS, "first")}
    assert totals(partials) == [(30, 24, 2 * 272_800, 90_000)]
    assert fake.consumer.resume_points == {TP(COUNTS, 0): (0, 0)}
    assert own.read_to(0) == 3


@pytest.mark.parametrize("raw", [False, True], ids=["records", "batches"])
def test_what_cannot_be_is_a_dead_letter_and_the_rest_counts(raw: bool) -> None:  # noqa: FBT001 - a case
    records = [record(offset, LIAR if offset == 5 else GOOD) for offset in range(12)]
    fake = Keeping()
    _, partials = counted(fake, RawPoll(raw_batches(records), 0) if raw else Poll(records, 0))
    assert totals(partials) == [(110, 88, 11 * 272_800, 90_000)]
    assert [(letter.reason, letter.topic, letter.offset, letter.detail) for letter in fake.letters] == [
        ("invalid-value", COUNTS, 5, "good: '11'; expected 0 to total")
    ]


def test_what_there_is_no_room_for_is_counted_in_the_next_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.Room.__init__, "__defaults__", (1,))  # of which one batch is more than enough
    fake, index = Keeping(), SeriesIndex()
    judge = Judge((), index, COUNTS)
    own = RollupProcessor(fake, judge, index, 1, lambda: judge.timeline)  # type: ignore[arg-type]
    batches = [batch for first in (0, 9, 18) for batch in raw_batches([record(first + at, GOOD) for at in range(9)])]
    waiting = []

    async def run() -> None:
        own._pending.append(RawPoll(batches, 0))
        own._pending_count = 27
        for _ in batches:
            await own.step()
            waiting.append(own._pending_count)

    asyncio.run(run())
    assert waiting == [18, 9, 0]
    assert totals([sent for _, sent in fake.sent]) == [(270, 216, 27 * 272_800, 90_000)]
    assert own.read_to(0) == 27


def test_nothing_but_what_cannot_be_moves_the_commit_too() -> None:
    fake = Keeping()
    own, _ = counted(fake, Poll([record(0, LIAR)], 0))
    assert (len(fake.letters), own.read_to(0)) == (1, 1)
    assert fake.consumer.resume_points[TP(COUNTS, 0)].offset == 1
