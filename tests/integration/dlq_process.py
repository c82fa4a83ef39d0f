"""A replay as a process of its own that ends, or freezes, at a chosen point: BROKERS POINT.

It replays all letters with schema id 901 as 2. POINT is after-intent (nothing is sent), half-sent, after-send (nothing
is noted), before-commit (of records and notes), or frozen- and one of these: there it stops itself, and goes on when
it is woken. All that is wired here: the replayer's code knows nothing of it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra import InfraError
from infra.dlq.corrections import Corrections
from infra.dlq.log import read_letters, read_notes
from infra.dlq.replay import Replayer
from infra.dlq.wire import Outgoing, Wire, fenced


class Mortal:
    """A wire that ends its process. Each batch puts intents, then records, then notes."""

    def __init__(self, wire: Wire, point: str) -> None:
        self._wire = wire
        self._point = point.removeprefix("frozen-")
        self._signal = signal.SIGSTOP if point.startswith("frozen-") else signal.SIGKILL
        self._puts = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._wire, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._wire.transaction():
            yield
            if self._puts == 3:
                self._at("before-commit")

    async def put(self, records: Sequence[Outgoing]) -> list[int]:
        self._puts += 1
        if self._puts != 2:
            return await self._wire.put(records)
        self._at("after-intent")
        half = len(records) // 2
        offsets = await self._wire.put(records[:half])
        self._at("half-sent")
        offsets += await self._wire.put(records[half:])
        self._at("after-send")
        return offsets

    def _at(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), self._signal)


async def main(brokers: str, point: str) -> int:
    try:
        async with fenced(brokers) as wire:
            mortal: Any = Mortal(wire, point)
            replayer = Replayer(mortal, await read_notes(brokers, lambda _: None), Corrections({901: 2}))
            await replayer.settle()
            await replayer.replay([at async for at in read_letters(brokers, None, lambda _: None)])
    except InfraError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
