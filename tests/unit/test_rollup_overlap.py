"""Two flushes under way: one waits for its acknowledgements, the next one is counted. What may move, and when."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.records import SloPartial
from streams.core.rollup import Flush, Rollup
from streams.core.series import Judge, SeriesIndex
from streams.core.sources import PROBES as SOURCE
from streams.engine.transport import LOG_APPEND_TIME, Poll
from streams.processors import rollup as processor
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_recovery import PARTIALS
from tests.unit.exactness import START_MS
from tests.unit.test_rollup_processor import LOUD, PARTITIONS, Fake, record

Records = list[ConsumerRecord[bytes, bytes]]
SOURCE_TP = TP(SOURCE, 0)


class Held(Fake):
    """Acknowledges when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[asyncio.Future[None]] = []

    async def send(self, topic: str, key: object, value: bytes, partition: int | None, *rest: object) -> Any:  # noqa: ANN401 - Faust's future
        if topic == PARTIALS:
            await super().send(topic, key, value, partition, *rest)
        acked = asyncio.get_running_loop().create_future()
        self._waiting.append(acked)
        return acked

    def ack(self) -> None:
        for acked in self._waiting:
            acked.set_result(None)
        self._waiting.clear()

    def told(self) -> list[SloPartial]:
        """In order, what one owner has been told."""
        return [partial for owner, partial in self.sent if owner == 0]


def junk(offset: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(SOURCE, 0, offset, START_MS + offset, LOG_APPEND_TIME, b"n", b"junk", None, 1, 4, ())


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - of anything
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(fake: Held) -> AsyncIterator[RollupProcessor]:
    index, stop = SeriesIndex(), asyncio.Event()
    judge = Judge((), index)
    own = RollupProcessor(fake, judge, index, PARTITIONS, lambda: judge.timeline)  # type: ignore[arg-type]
    task = asyncio.create_task(own.run(stop))
    yield own
    stop.set()
    while not task.done():
        fake.ack()
        await asyncio.sleep(0.001)
    await task


async def two_under_way(own: RollupProcessor, fake: Held, first: Records, second: Records) -> None:
    """The first is sent and not acknowledged, the second counted."""
    own._pending.append(Poll(first, first[0].offset))
    await until(lambda: len(fake.sent) == PARTITIONS)
    await asyncio.sleep(0.02)
    own._pending.append(Poll(second, second[0].offset))
    await until(lambda: own._rollup.progress[0].applied_offset == second[-1].offset)
    await asyncio.sleep(0.02)


def play(scene: Callable[[RollupProcessor, Held], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        fake = Held()
        async with running(fake) as own:
            await scene(own, fake)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "STEP_EVERY_S", 0.001)
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 0)


def test_a_flush_is_sent_when_the_one_before_it_is_acknowledged() -> None:
    async def scene(own: RollupProcessor, fake: Held) -> None:
        await two_under_way(own, fake, [record(0, 0, 0, LOUD)], [record(1, 1, 1, LOUD)])
        assert len(fake.sent) == PARTITIONS
        assert own.read_to(0) is None
        fake.ack()
        await until(lambda: len(fake.sent) == 2 * PARTITIONS)
        assert own.read_to(0) == 1
        assert [partial.sources[0].applied_offset for partial in fake.told()] == [0, 1]

    play(scene)


@pytest.mark.parametrize("bounded", [True, False])
def test_the_commit_does_not_pass_what_is_counted_and_not_sent(
    monkeypatch: pytest.MonkeyPatch, *, bounded: bool
) -> None:
    """An unreadable record is in no cell: only the bound keeps its letter from being lost in a crash."""
    if not bounded:
        point = Rollup.resume_point
        monkeypatch.setattr(Rollup, "resume_point", lambda self, p, _: point(self, p, self.progress[p]))

    async def scene(own: RollupProcessor, fake: Held) -> None:
        await two_under_way(own, fake, [junk(0)], [junk(1)])
        fake.ack()
        await until(lambda: fake.consumer.resume_points)
        assert (fake.consumer.resume_points[SOURCE_TP].offset == 1) == bounded  # the second letter is not acknowledged

    play(scene)


@pytest.mark.parametrize("own_frontier", [True, False])
def test_a_second_is_done_with_when_the_flush_that_sealed_it_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch, *, own_frontier: bool
) -> None:
    """The second flush holds the last event of the first second, and the frontier that seals it."""
    if not own_frontier:
        settle = Rollup.settle
        newest = lambda self, flush: settle(self, Flush(flush.plain, flush.objectives, self.progress))  # noqa: E731
        monkeypatch.setattr(Rollup, "settle", newest)

    async def scene(own: RollupProcessor, fake: Held) -> None:
        last = [record(1, 10.9, 0.5, LOUD), record(2, 11.5, 11.5, LOUD)]
        await two_under_way(own, fake, [record(0, 0, 0, LOUD)], last)
        fake.ack()
        await until(lambda: fake.consumer.resume_points)
        assert (fake.consumer.resume_points[SOURCE_TP].offset == 0) == own_frontier
        await until(lambda: len(fake.sent) == 2 * PARTITIONS)
        fake.ack()
        await until(lambda: fake.consumer.resume_points[SOURCE_TP].offset == 2)

    play(scene)


@pytest.mark.parametrize("compared", [True, False])
def test_a_rebalance_between_two_flushes_leaves_nothing_of_either(*, compared: bool) -> None:
    async def scene(own: RollupProcessor, fake: Held) -> None:
        await two_under_way(own, fake, [record(0, 0, 0, LOUD)], [record(1, 1, 1, LOUD)])
        epoch = own._epoch
        own.lose_all()
        if not compared:
            own._epoch = epoch
        fake.ack()
        if compared:
            await asyncio.sleep(0.05)
            assert len(fake.sent) == PARTITIONS
            assert not fake.consumer.resume_points
        else:
            await until(lambda: len(fake.sent) > PARTITIONS and fake.consumer.resume_points)
            fake.ack()
            return
        own._pending.append(Poll([record(0, 0, 0, LOUD), record(1, 1, 1, LOUD)], 0))
        await until(lambda: fake.told()[-1].sources[0].applied_offset == 1)
        fake.ack()
        await until(lambda: own.read_to(0) == 2)

    play(scene)


def test_a_failed_flush_ends_the_run_and_the_next_one_is_not_sent() -> None:
    async def run() -> None:
        fake, index = Held(), SeriesIndex()
        judge = Judge((), index)
        own = RollupProcessor(fake, judge, index, PARTITIONS, lambda: judge.timeline)  # type: ignore[arg-type]
        task = asyncio.create_task(own.run(asyncio.Event()))
        await two_under_way(own, fake, [record(0, 0, 0, LOUD)], [record(1, 1, 1, LOUD)])
        for acked in fake._waiting:
            acked.set_exception(ConnectionError("the broker is gone"))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(task, 60)
        assert len(fake.sent) == PARTITIONS
        assert not fake.consumer.resume_points

    asyncio.run(run())
