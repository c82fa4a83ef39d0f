"""Waits for what others bring about."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not after 20 s")
