"""Who reads the tables waits for no fold, and sees all of one or nothing of it."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from faust.types import TP

from schemas.records import ProbeResult
from streams.core.completeness import Told, complete_to_ms
from streams.core.slices import SECONDS
from streams.core.summaries import Shown
from streams.core.table import SloTable
from streams.engine.pages import take_chunk, take_open
from streams.engine.transport import Poll
from streams.processors.slo_parts import OBJECTIVES, PLAIN, Part, PartFolder
from streams.processors.slo_recovery import PARTIALS
from tests.faults.world import Clock, Worker, World, clock, objective

__all__ = ["clock"]

PARTITIONS = 1
PROMISE = objective("shop", service="shop")


class Stand(Worker):
    """A worker whose tables hold one event; `more` brings another one."""

    async def begin(self) -> None:
        await self.recover()
        await self.more()
        await self.objectives.fold()

    async def more(self, delay_s: int = 0) -> None:
        """Counted and received, not yet folded."""
        self.world.clock.now_ms += 1_000
        number = len(self.world.logs[TP("probe-results", 0)])
        event = ProbeResult(
            *("n", self.world.clock.now_ms - delay_s * 1_000, "b", number, "p", "http", "shop", "/", "eu"),
            success=True,
            latency_us=1_000,
        )
        self.world.probe(0, event)
        await self.rollup.process(self.all_polls("probe-results"))
        await self.rollup.step()
        await self.objectives.process(self.all_polls(PARTIALS))

    async def all_polls(self, topic: str) -> AsyncIterator[Poll]:
        for partition in range(PARTITIONS):
            tp = TP(topic, partition)
            at = self.position.get(tp, 0)
            if waiting := self.world.logs[tp][at:]:
                self.position[tp] = at + len(waiting)
                yield Poll(waiting, at)

    @property
    def part(self) -> Part:
        return self.objectives.parts[0]

    def found(self, shown: Shown) -> tuple[int, int, dict[int, int], dict[int, int], int]:
        """What one state says: how many events, and what that rests on."""
        number = shown.numbers[PROMISE.series]
        total = shown.summarize((number,), SECONDS, 0, 1 << 31).total
        return total, shown.applied, dict(shown.frontiers), dict(shown.told), shown.sealed_to_ms()


@asynccontextmanager
async def standing(clock: Clock, *junk: str) -> AsyncIterator[Stand]:
    """`junk`: names that have the first numbers, and no rows."""
    stand = Stand(World(PARTITIONS, (PROMISE,), clock), random.Random(0))
    for name in junk:
        stand.objectives.index.number(name)
    stand.producer.between = lambda: None
    await stand.begin()
    yield stand


class Halt:
    """Stops a method of the folding thread where it is done, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        self.reached, self._go_on = threading.Event(), threading.Event()
        original = getattr(kind, name)

        def halting(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method
            found = original(*args, **kwargs)
            self.reached.set()
            assert self._go_on.wait(20), "nobody let the fold go on"
            return found

        monkeypatch.setattr(kind, name, halting)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 20), "no fold came by"

    def go_on(self) -> None:
        self._go_on.set()


PLACES = [
    pytest.param(SloTable, "fold", id="between the two tables of a partition"),
    pytest.param(SloTable, "_settled", id="after rows and before chunks"),
    pytest.param(PartFolder, "fold", id="after the fold and before it is shown"),
]


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_a_read_waits_for_no_fold_and_sees_the_state_before_it(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, kind: type, name: str
) -> None:
    async def run() -> None:
        async with standing(clock) as stand:
            before = stand.objectives.read(0, stand.found)
            assert before[0] == 1
            await stand.more()
            halt = Halt(monkeypatch, kind, name)
            fold = asyncio.create_task(stand.objectives.fold())
            await halt.wait()
            try:
                assert stand.objectives.read(0, stand.found) == before
                assert await stand.objectives.read_apart(0, stand.found) == before
                assert not fold.done()
            finally:
                halt.go_on()
            await fold
            after = stand.objectives.read(0, stand.found)
            assert after[0] == 2
            assert after[1] > before[1]

    asyncio.run(run())


def test_the_tables_themselves_would_show_half_a_fold(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The control: what the test above would see if readers were shown tables, and not states of them."""

    async def run() -> None:
        async with standing(clock) as stand:
            part = stand.part
            before = stand.found(part.shown)
            await stand.more()
            halt = Halt(monkeypatch, SloTable, "fold")
            fold = asyncio.create_task(stand.objectives.fold())
            await halt.wait()
            halves = {family: table.applied for family, table in part.tables.items()}
            seen = stand.found(part.shown)
            halt.go_on()
            await fold
            assert seen == before
            assert halves == {OBJECTIVES: before[1] + 1, PLAIN: before[1]}

    asyncio.run(run())


def test_what_an_answer_is_complete_to_is_of_the_state_that_it_shows(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Frontiers come first in a fold: taken from the table they would promise what no reader can see."""

    async def run() -> None:
        async with standing(clock) as stand:
            await stand.more()
            halt = Halt(monkeypatch, PartFolder, "fold")
            shown = dict(stand.part.shown.frontiers)
            fold = asyncio.create_task(stand.objectives.fold())
            await halt.wait()
            tables = [Told(part.shown.frontiers, part.shown.told) for part in stand.objectives.parts.values()]
            assert complete_to_ms(tables, {}, [0]) == min(shown.values())
            halt.go_on()
            await fold
            tables = [Told(part.shown.frontiers, part.shown.told) for part in stand.objectives.parts.values()]
            assert complete_to_ms(tables, {}, [0]) == clock.now_ms > min(shown.values())

    asyncio.run(run())


def test_a_state_stays_as_it_was_whatever_is_folded_and_sealed_afterwards(clock: Clock) -> None:
    async def run() -> None:
        async with standing(clock) as stand:
            kept = [(stand.part.shown, stand.found(stand.part.shown))]
            for number in range(24):
                await stand.more(delay_s=11 * (number % 2))
                await stand.objectives.fold()
                if number % 5 == 0:
                    await stand.objectives.save()
                kept.append((stand.part.shown, stand.found(stand.part.shown)))
            assert [found[0] for _, found in kept] == list(range(1, 26))
            for shown, found in kept:
                fresh = replace(shown, _opened={}, _windows={})
                assert stand.found(fresh) == found

    asyncio.run(run())


def test_a_page_is_of_the_moment_at_which_it_was_taken(clock: Clock) -> None:
    """Its bytes are made later, while the next records are folded and sealed."""

    async def run() -> None:
        async with standing(clock) as stand:
            part, index = stand.part, stand.objectives.index
            for _ in range(13):
                await stand.more()
            await stand.objectives.fold()
            table = part.tables[OBJECTIVES]
            table.seal()
            chunks = dict(table.dirty_chunks())
            assert chunks, "something is sealed"
            taken = [
                take_open(table, part.origin, index),
                *(take_chunk(c, part.origin, index) for c in chunks.values()),
            ]
            at_once = [write() for write in taken]
            for _ in range(13):
                await stand.more()
            await stand.objectives.fold()
            table.seal()
            assert [write() for write in taken] == at_once
            assert take_open(table, part.origin, index)() != at_once[0]

    asyncio.run(run())


def test_a_state_keeps_its_numbers_when_names_are_forgotten(clock: Clock) -> None:
    async def run() -> None:
        async with standing(clock, "[junk]", "[more]") as stand:
            for _ in range(13):
                await stand.more()
            await stand.objectives.fold()
            await stand.objectives.save()
            shown, found = stand.part.shown, stand.found(stand.part.shown)
            before, own = shown.numbers[PROMISE.series], stand.objectives.index
            stand.objectives._folder.forget_series(stand.objectives.parts.values())
            number = own.number(PROMISE.series)
            assert number == before - 2
            assert stand.found(replace(shown, _opened={}, _windows={})) == found
            assert stand.found(stand.part.shown) == found
            assert stand.part.shown.numbers[PROMISE.series] == number
            # The control: what a reader would see that took the new number for the old state.
            assert stand.found(replace(shown, numbers=own.numbers, _opened={}, _windows={})) != found
            await stand.more()
            await stand.objectives.fold()
            assert stand.found(stand.part.shown)[0] == found[0] + 1
            assert stand.found(replace(shown, _opened={}, _windows={})) == found

    asyncio.run(run())


def test_pages_keep_their_names_when_names_are_forgotten_before_they_are_written(clock: Clock) -> None:
    """Also those of a partition that is lost by then: its chunks do not count as changed any more."""

    async def run() -> None:
        async with standing(clock, "[junk]") as stand:
            for _ in range(13):
                await stand.more()
            await stand.objectives.fold()
            part, objectives = stand.part, stand.objectives
            whole = objectives._snapshot(0, part).pages()
            for table in part.tables.values():
                for chunk in table.chunks.values():
                    chunk.dirty = True
            late = objectives._snapshot(0, part)
            objectives._folder.forget_series(())
            assert "[junk]" not in objectives.index.names
            assert late.pages() == whole
            for table in part.tables.values():
                for chunk in table.chunks.values():
                    chunk.dirty = True
            assert objectives._snapshot(0, part).pages() == whole

    asyncio.run(run())


def test_all_that_comes_is_folded_without_being_asked_for(clock: Clock) -> None:
    async def run() -> None:
        async with standing(clock) as stand:
            async with asyncio.timeout(60):
                await stand.objectives.due(60)  # of what came first
            waiting = asyncio.create_task(stand.objectives.due(60))
            await asyncio.sleep(0.01)
            assert not waiting.done(), "nothing has come"
            await stand.more()
            async with asyncio.timeout(60):
                await waiting

    asyncio.run(run())


def test_partitions_that_go_while_pages_are_taken_keep_their_changed_chunks(clock: Clock) -> None:
    """A chunk does not count as changed once its page is taken: the page is written whatever happens meanwhile."""

    async def run() -> None:
        async with standing(clock) as stand:
            for _ in range(13):
                await stand.more()
            await stand.objectives.fold()
            confirm = stand.consumer.confirm

            async def rebalance(topic: str) -> None:
                stand.rebalance()
                await confirm(topic)

            stand.consumer.confirm = rebalance
            await stand.objectives.save()
            pages = {key for log in stand.world.logs.values() for key in (record.key for record in log) if key}
            assert {key for key in pages if key.startswith(b"objectives/1s:")}
            assert not {key for key in pages if b"/open/" in key}
            assert TP(PARTIALS, 0) not in stand.consumer.resume_points

    asyncio.run(run())
