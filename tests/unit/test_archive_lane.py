"""A lane of the archive behind a backlog: one batch is stored while the next one is shaped, in order and bounded."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from streams.archive import lane as lane_module
from streams.archive.blocks import Chunk, RawChunk, Shaped, Shaper
from streams.archive.consumer import Bounds, GivenUpError
from streams.archive.ingest import Refused, Settled
from streams.archive.lane import Lane, Limits
from streams.archive.letters import DeadLetters
from streams.archive.metrics import ArchiveMetrics
from tests.unit.test_archive_batches import NOW, RESULTS, _never
from tests.unit.test_blocks_poison import GOOD, row_of
from tests.unit.waiting import until

LIMITS = Limits(enough_records=10, batch_records=10, wait_s=3_600, records=40)


class Store:
    """Stands in for the threads of a lane; it stores when the test says so."""

    failing = False

    def __init__(self) -> None:
        self.said = list[tuple[str, int]]()
        self.go_on = asyncio.Event()
        self.shaper = Shaper(RESULTS)

    async def shape(self, chunks: Sequence[Chunk | RawChunk]) -> tuple[Shaped, list[Any]]:
        self.said.append(("shape", chunks[0].first))
        return self.shaper.shape(chunks), []

    async def store(self, shaped: Shaped, wanted: Callable[[], bool]) -> Settled:
        if not wanted():
            raise GivenUpError
        self.said.append(("plan", shaped.plans[0].first))
        await self.go_on.wait()
        if not wanted():
            raise GivenUpError
        self.said.append(("stored", shaped.plans[0].first))
        return Settled()


def lane(store: Store) -> Lane:
    """One that owns partition 0 from the offset 0 on."""
    made = Lane(RESULTS, _never, None, DeadLetters(""), ArchiveMetrics(), LIMITS)  # type: ignore[arg-type]
    made._storing = store  # type: ignore[assignment]
    made.assign({0})
    made._expected, made.next = {0: 0}, {0: 0}
    return made


def offer(to: Lane, first: int, count: int) -> None:
    key, value = row_of(GOOD)
    to.offer(
        0,
        [
            ConsumerRecord("probe-results", 0, offset, NOW, 1, key, value, None, 0, 0, ())
            for offset in range(first, first + count)
        ],
    )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def backlog() -> tuple[Lane, Store, "asyncio.Task[None]"]:
    """Three batches, the first of them being stored."""
    store = Store()
    made = lane(store)
    for first in (0, 10, 20):
        offer(made, first, 10)
    running = asyncio.create_task(made.run())
    await settle()
    return made, store, running


async def end(made: Lane, running: "asyncio.Task[None]") -> None:
    made.end(5)
    await asyncio.wait_for(running, 5)


def test_the_next_batch_is_shaped_while_one_is_stored_and_planned_after_it() -> None:
    async def scene() -> None:
        made, store, running = await backlog()
        assert store.said == [("shape", 0), ("plan", 0), ("shape", 10)]
        store.go_on.set()
        await settle()
        assert [what for what in store.said if what[0] != "shape"] == [
            (what, first) for first in (0, 10, 20) for what in ("plan", "stored")
        ]
        assert made.next == {0: 30}
        await end(made, running)

    asyncio.run(scene())


def test_a_batch_that_was_shaped_ahead_is_not_planned_once_its_partitions_are_gone() -> None:
    async def scene() -> None:
        made, store, running = await backlog()
        leaving = asyncio.create_task(made.revoke())
        await settle()
        assert not leaving.done()  # the first batch is still being written
        store.go_on.set()
        await asyncio.wait_for(leaving, 5)
        await settle()
        assert [what for what in store.said if what[0] == "plan"] == [("plan", 0)]
        assert made.next == {}
        await end(made, running)

    asyncio.run(scene())


def test_a_store_that_does_not_answer_holds_back_polls() -> None:
    async def scene() -> None:
        made, store, running = await backlog()
        offered = 30
        while made.places():
            offer(made, offered, 10)
            offered += 10
            await settle()
        # What waits, beside the batch that is stored and the one that is shaped.
        assert offered == LIMITS.records + 2 * LIMITS.batch_records
        store.go_on.set()
        await settle()
        assert made.places()
        await end(made, running)
        assert made.next == {0: offered}

    asyncio.run(scene())


def test_a_hole_is_looked_at_before_the_next_batch_is_shaped() -> None:
    async def scene() -> None:
        made, store, running = await backlog()
        looked = list[tuple[int, int, int]]()

        async def look(partition: int, expected: int, found: int) -> None:
            looked.append((partition, expected, found))

        made._look_for_hole = look  # type: ignore[method-assign]
        offer(made, 35, 10)
        store.go_on.set()
        await settle()
        assert looked == [(0, 30, 35)]
        assert made.next == {0: 45}
        await end(made, running)

    asyncio.run(scene())


class Retention:
    """Stands in for a log whose retention has deleted all before `begin`, and which answers or does not."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.asked = 0

    async def bounds(self, *_: object) -> dict[int, Bounds]:
        return {0: Bounds(self.begin, 1_000)}

    async def read_again(self, *_: object) -> Chunk:
        self.asked += 1
        raise KafkaConnectionError


@pytest.mark.parametrize(
    ("begin", "lost"),
    [
        pytest.param(0, 0, id="offsets without records are no loss"),
        pytest.param(5, 5, id="of the first hole all was deleted, of the second nothing"),
        pytest.param(12, 5, id="what was deleted after it was read is no loss"),
        pytest.param(900, 10, id="both holes were deleted"),
    ],
)
def test_of_several_holes_each_is_looked_at(begin: int, lost: int) -> None:
    async def scene() -> None:
        store = Store()
        store.go_on.set()
        made = lane(store)
        made._source = Retention(begin)  # type: ignore[assignment]
        offer(made, 5, 10)  # 0 to 4 were not there
        offer(made, 20, 10)  # 15 to 19 neither
        running = asyncio.create_task(made.run())
        await settle()
        await end(made, running)
        assert made._metrics.lost.labels(made.topic)._value.get() == lost

    asyncio.run(scene())


def test_it_ends_also_while_kafka_does_not_give_a_refused_row_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Store):
        async def store(self, shaped: Shaped, wanted: Callable[[], bool]) -> Settled:
            await super().store(shaped, wanted)
            return Settled(9, (Refused(0, 3, "it is too large"),))

    async def scene() -> None:
        monkeypatch.setattr(lane_module, "_RETRY_S", 0.01)
        store, log = Refusing(), Retention(0)
        store.go_on.set()
        made = lane(store)
        made._source = log  # type: ignore[assignment]
        offer(made, 0, 10)
        running = asyncio.create_task(made.run())
        await until(lambda: log.asked > 1)
        made.end(0.1)
        await asyncio.wait_for(running, 5)
        assert made.next == {0: 0}

    asyncio.run(scene())


@pytest.mark.parametrize("count", [9, 10])
def test_a_batch_waits_until_there_are_enough(count: int) -> None:
    async def scene() -> None:
        store = Store()
        store.go_on.set()
        made = lane(store)
        offer(made, 0, count)
        running = asyncio.create_task(made.run())
        await settle()
        assert (("stored", 0) in store.said) == (count >= LIMITS.enough_records)
        await end(made, running)
        assert made.next == {0: count}  # asked to end, it stores what waits

    asyncio.run(scene())


def test_batches_are_made_by_other_limits_from_the_moment_they_are_given() -> None:
    async def scene() -> None:
        store = Store()
        made = lane(store)
        offer(made, 0, 5)
        running = asyncio.create_task(made.run())
        await settle()
        assert store.said == [], "five are not enough, and nobody has waited for an hour"
        made.follow(replace(LIMITS, enough_records=5, records=5))
        assert made.places() == [], "and no more may wait"
        await settle()
        assert store.said[0] == ("shape", 0)
        store.go_on.set()
        await end(made, running)

    asyncio.run(scene())
