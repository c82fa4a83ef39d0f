"""Steps that repeat until the worker stops: the one in hand is always done to its end.

A step marks what it has taken as written or published before the broker has it. If it were cut off there and another
one went on, the commit would pass over what nobody has: a clean stop would lose it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Collection
from functools import wraps
from typing import Any, TypeVar

import structlog

ItemT = TypeVar("ItemT")

log = structlog.get_logger("fleetbeat.worker")


class GivenUpError(RuntimeError):
    """What works for us has ended in a way that is no error for Python: a panic, or a wait that somebody called off."""


class Rounds:
    """Whether steps go on: until `stop` is set, or one of them fails, which is `failure`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Of several errors the first is the reason: others may come of it."""
        self.failure = error if self.failure is None else self.failure
        self.stop.set()

    async def guarded(self, step: Callable[[], Awaitable[object]]) -> None:
        """Anything unexpected ends the worker: a restart replays, going on might not."""
        try:
            await errors_only(step)
        except Exception as error:
            log.exception("stopping after an error")
            self.fail(error)


async def errors_only(step: Callable[[], Awaitable[object]]) -> None:
    """Runs a step. Raises GivenUpError for what is no Exception, so that nobody who expects one passes over it.

    Polars' panics are none. Nor is the end of a wait for what others have cancelled: a task would end by it silently.
    """
    try:
        await step()
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise GivenUpError(str(error) or type(error).__name__) from error


def processor(
    process: Callable[[AsyncIterable[ItemT]], Awaitable[None]],
) -> Callable[[AsyncIterable[ItemT]], Awaitable[None]]:
    """The same for Faust, which ends the app after an Exception of a processor, and passes over all else."""

    @wraps(process)  # Faust's messages have its name
    async def run(stream: AsyncIterable[ItemT]) -> None:
        await errors_only(lambda: process(stream))

    return run


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not on once `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def let_end(tasks: Collection[asyncio.Task[Any]], patience_s: float) -> bool:
    """Whether all have ended in time. The others are cut off, and then nothing may be saved or committed any more."""
    _, late = await asyncio.wait(tasks, timeout=patience_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return not late
