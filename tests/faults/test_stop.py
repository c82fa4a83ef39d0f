"""A worker is asked to stop in the middle of a step: what the step had taken is not passed over by the last words."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faust.types import TP

from streams import metrics
from streams.core.sources import PROBES as SOURCE
from streams.engine.rounds import let_end, pause
from streams.engine.transport import Poll
from streams.processors.slo_recovery import PARTIALS
from tests.faults.test_short import PARTITIONS, Scenario
from tests.faults.world import Clock, Worker, clock

__all__ = ["clock"]


@pytest.fixture(params=["_snapshot", "_count"])
def cut(request: pytest.FixtureRequest) -> str:
    """The part of a step that runs in a thread: of a save, and of counting."""
    return str(request.param)


async def stop_within(worker: Worker, cut: str, *, cancels: bool) -> None:
    """The stop comes when the thread has its result, and the loop has not heard of it."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    processor: Any = worker.objectives if cut == "_snapshot" else worker.rollup
    inner: Callable[..., Any] = getattr(processor, cut)

    def told(*args: Any) -> Any:  # noqa: ANN401 - passed on
        found = inner(*args)
        if cancels:
            loop.call_soon_threadsafe(task.cancel)
        else:
            loop.call_soon_threadsafe(stop.set)
        setattr(processor, cut, inner)
        return found

    async def steps() -> None:
        while not stop.is_set():
            await (processor.save() if cut == "_snapshot" else processor.step())
            await pause(stop, 0)

    setattr(processor, cut, told)
    task = asyncio.create_task(steps())
    if cancels:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        await asyncio.wait([task], timeout=60)
        assert await let_end([task], 0)


@pytest.mark.parametrize("cancels", [False, True], ids=["lets it end", "the control cancels it"])
def test_a_stop_within_a_step_loses_nothing(clock: Clock, cut: str, cancels: bool) -> None:  # noqa: FBT001 - a parameter
    async def run() -> None:
        scenario = Scenario(11, clock)
        world = scenario.world
        worker = Worker(world, random.Random(1))
        await worker.recover()
        for _ in range(60):
            scenario._traffic()
            await worker.count()
            await worker.fold()
        unreadable = metrics.UNREADABLE_PAGES._value.get()
        await read_all(scenario, worker)
        if cut == "_snapshot":
            await worker.rollup.step()
            await worker.objectives.process(rest(worker, PARTIALS))
        await stop_within(worker, cut, cancels=cancels)
        await read_all(scenario, worker)
        await last_words(worker)
        differs = ""
        try:
            scenario._verify(await scenario._settled())
        except AssertionError as found:
            differs = str(found)
        lost = bool(differs) or metrics.UNREADABLE_PAGES._value.get() > unreadable
        assert lost is cancels, differs

    asyncio.run(run())


async def read_all(scenario: Scenario, worker: Worker) -> None:
    """So much later that what came before is sealed."""
    for _ in range(5):
        scenario._traffic()
    scenario.world.clock.now_ms += 14_000
    for _ in range(5):
        scenario._traffic()
    await worker.rollup.process(rest(worker, SOURCE))


async def rest(worker: Worker, topic: str) -> AsyncIterator[Poll]:
    """All that waits."""
    for partition in range(PARTITIONS):
        tp = TP(topic, partition)
        at = worker.position.get(tp, 0)
        if waiting := worker.world.logs[tp][at:]:
            worker.position[tp] = at + len(waiting)
            yield Poll(waiting, at)


async def last_words(worker: Worker) -> None:
    """As the app has them; what has come in the meantime is in them too."""
    await worker.rollup.step()
    await worker.objectives.process(rest(worker, PARTIALS))
    await worker.objectives.save()
    worker.commit()


def test_who_takes_too_long_is_cut_off() -> None:
    async def run() -> None:
        slow = asyncio.create_task(asyncio.sleep(60))
        quick = asyncio.create_task(asyncio.sleep(0))
        assert not await let_end([slow, quick], 0.05)
        assert slow.cancelled()
        assert not quick.cancelled()

    asyncio.run(run())


def test_a_pause_ends_with_the_stop() -> None:
    async def run() -> None:
        stop = asyncio.Event()
        await pause(stop, 0.001)
        asyncio.get_running_loop().call_soon(stop.set)
        async with asyncio.timeout(50):
            await pause(stop, 60)

    asyncio.run(run())
