"""`fleetbeat worker` that kills itself at a chosen point: POINT TOPIC NTH OPTIONS…; NTH counts its sends to TOPIC.

POINT is unacked (the client has the record and is about to send it), half (this record and all before it are
acknowledged, the rest of their set is never sent) or uncommitted (acknowledged, and the next commit is due). All that
is wired here, in a composition root of its own: the worker's code knows nothing of it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from fleetbeat import main
from streams.engine.transport import ConsumerThread

# The client holds a record back for so long (producer_linger); then it goes on its way.
LINGER_S = 0.011


def wire(point: str, topic: str, nth: int) -> None:
    send, commit = driver.Producer.send, ConsumerThread._commit
    acks: list[asyncio.Future[Any]] = []

    async def dying_send(self: driver.Producer, to: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - Faust's future
        ack: Any = await send(self, to, *args, **named)
        if to == topic and len(acks) < nth:
            acks.append(ack)
            if len(acks) == nth and point == "half":
                await asyncio.gather(*acks)
                die()
            if len(acks) == nth and point == "unacked":
                asyncio.get_running_loop().call_later(LINGER_S, die)
        return ack

    async def dying_commit(self: ConsumerThread, offsets: Mapping[TP, int]) -> bool:
        if point == "uncommitted" and len(acks) == nth and all(ack.done() for ack in acks):
            die()
        return await commit(self, offsets)

    driver.Producer.send = dying_send  # type: ignore[assignment,method-assign]
    ConsumerThread._commit = dying_commit  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    wire(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.exit(main(["worker", *sys.argv[4:]]))
