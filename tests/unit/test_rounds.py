"""What ends a worker: every way in which a step can end that is not its return."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import polars as pl
import pytest

from streams.engine.rounds import GivenUpError, Rounds, processor


async def refuse() -> None:
    raise ValueError("a page too large")


async def panic() -> None:
    raise pl.exceptions.PanicException("index out of bounds")


async def wait_for_what_is_called_off() -> None:
    acknowledged = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(acknowledged.cancel)
    await asyncio.gather(acknowledged)


@pytest.mark.parametrize(
    ("step", "kind", "says"),
    [
        pytest.param(refuse, ValueError, "a page too large", id="an error"),
        pytest.param(panic, GivenUpError, "index out of bounds", id="a panic of polars, which is no Exception"),
        pytest.param(wait_for_what_is_called_off, GivenUpError, "Cancelled", id="an acknowledgement called off"),
    ],
)
def test_a_step_that_does_not_return_ends_the_worker_and_is_the_reason(
    step: Callable[[], Awaitable[None]], kind: type[Exception], says: str
) -> None:
    async def run() -> Rounds:
        rounds = Rounds()
        await asyncio.create_task(rounds.guarded(step))
        return rounds

    rounds = asyncio.run(run())
    assert rounds.stop.is_set()
    assert type(rounds.failure) is kind
    assert says in str(rounds.failure)


def test_a_step_that_is_cut_off_is_no_failure() -> None:
    async def run() -> Rounds:
        rounds = Rounds()
        task = asyncio.create_task(rounds.guarded(asyncio.Event().wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return rounds

    rounds = asyncio.run(run())
    assert not rounds.stop.is_set()
    assert rounds.failure is None


def test_of_several_failures_the_first_is_the_reason() -> None:
    async def run() -> Rounds:
        rounds = Rounds()
        await rounds.guarded(refuse)
        await rounds.guarded(panic)
        return rounds

    assert type(asyncio.run(run()).failure) is ValueError


@pytest.mark.parametrize("step", [panic, wait_for_what_is_called_off])
def test_faust_hears_of_every_end_of_a_processor(step: Callable[[], Awaitable[None]]) -> None:
    """It takes an Exception for a crash; after anything else its task would be over, and the app go on."""

    async def process(polls: AsyncIterator[int]) -> None:
        async for _ in polls:
            await step()

    async def polls() -> AsyncIterator[int]:
        yield 1

    async def run() -> None:
        with pytest.raises(GivenUpError):
            await processor(process)(polls())  # type: ignore[arg-type]  # narrower than Faust's

    asyncio.run(run())
