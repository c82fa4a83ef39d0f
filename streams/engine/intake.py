"""Each record of a topic once and in order, from where the last seek went, although Faust may repeat or lose polls.

Faust empties its queues whenever the flow is resumed and seeks when it pleases. What comes again must not be counted
again, and a poll that is missing must not go unnoticed.
"""

from typing import TypeVar, cast

import structlog
from faust.types import TP

from streams import metrics
from streams.engine.app import App
from streams.engine.transport import Consumer, Poll, RawPoll

PollT = TypeVar("PollT", bound=Poll | RawPoll)

log = structlog.get_logger("fleetbeat.intake")


class PassedOverError(RuntimeError):
    """Polls were lost between the broker and their processor: only a restart reads them again."""

    def __init__(self, tp: TP, expected: int, begin: int) -> None:
        super().__init__(f"{tp.topic} partition {tp.partition}: a poll from offset {begin}; expected {expected}")


class Intake:
    """What one processor has taken of its topic since the last seek."""

    def __init__(self, app: App, topic: str) -> None:
        self._app = app
        self._topic = topic
        self._next: dict[int, int] = {}

    def lose_all(self) -> None:
        """Partitions are taken away: the next polls come after a seek."""
        self._next = {}

    async def take(self, poll: PollT) -> PollT | Poll:
        """The records that were not taken before, perhaps none. Raises PassedOverError."""
        if poll.begin is None:  # read before the seek, which makes it come again
            return Poll((), None)
        partition, taken = poll.partition, self._next
        tp = TP(self._topic, partition)
        expected = taken.get(partition)
        if expected is None:
            point = self._consumer.committed.get(tp)
            expected = point.offset if point else 0
        if poll.begin > expected:
            raise PassedOverError(tp, expected, poll.begin)
        if poll.first > expected:
            await self._count_missing(tp, expected, poll.first)
            if taken is not self._next:  # taken away meanwhile
                return Poll((), None)
        taken[partition] = max(expected, poll.next)
        return poll if poll.first >= expected else cast("PollT | Poll", poll.since(expected))

    async def _count_missing(self, tp: TP, expected: int, found: int) -> None:
        """Offsets without a record: retention had deleted them, or they are marks of a producer's transactions."""
        begins: int = (await self._consumer.earliest_offsets(tp))[tp]
        missing = min(found, begins) - expected
        if missing > 0 and tp in self._consumer.committed:  # else nobody has ever asked for them
            metrics.HOLES.labels(tp.topic).inc(missing)
            log.error("records deleted before they were read", topic=tp.topic, partition=tp.partition, missing=missing)

    @property
    def _consumer(self) -> Consumer:
        return self._app.consumer  # type: ignore[return-value]
