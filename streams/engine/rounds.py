"""Steps that repeat until the worker stops: the one in hand is always done to its end.

A step marks what it has taken as written or published before the broker has it. If it were cut off there and another
one went on, the commit would pass over what nobody has: a clean stop would lose it.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any


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
