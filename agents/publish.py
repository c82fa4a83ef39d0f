"""From records to whoever brings them to Kafka: numbers them, and says what became of those that never got there."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.codec import encode
from schemas.records import Heartbeat, ProbeResult

HEARTBEATS = "heartbeats"
RESULTS = "probe-results"
TOPICS = (HEARTBEATS, RESULTS)


class Drop(StrEnum):
    """Why a record was given up."""

    BUFFER_FULL = "buffer-full"
    """Never taken in: it has no number of its own, so consumers see no gap."""
    EXPIRED = "expired"
    REFUSED = "refused"
    """Kafka said no, or the connection ended in a way that leaves open whether it was written."""
    STOPPED = "stopped"
    """Still waiting when the agent had to end."""


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What became of one topic's records so far; `waiting` ones are on their way."""

    acknowledged: int
    waiting: int
    dropped: dict[Drop, int]


class Publisher(Protocol):
    """Takes framed records at once and brings them to Kafka when it can, in order, in memory or on disk.

    `run` does the work until it is cancelled; it raises nothing but CancelledError, since Kafka being away is no reason
    to stop probing. `close` comes after the last `offer`, while `run` still runs.
    """

    def offer(self, topic: str, value: bytes) -> Drop | None:
        """Why the record was not taken; None when it was. Never waits."""
        ...

    async def run(self) -> None:
        """Sends what was taken, until cancelled."""
        ...

    async def close(self, deadline_s: float) -> int:
        """Waits that long until everything taken was acknowledged; how many records were not, which are given up."""
        ...

    def figures(self) -> dict[str, LaneFigures]:
        """By topic."""
        ...

    def problem(self) -> str | None:
        """Why records do not get through just now, as a sentence; None when they do."""
        ...


class Outbox:
    """Numbers this node's records of all topics; only a record that was taken uses its number up."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._seq = 0

    def put(self, make: Callable[[int], Heartbeat | ProbeResult]) -> Drop | None:
        """Makes a record with the next number and offers it; why it was not taken, or None."""
        record = make(self._seq)
        reason = self._publisher.offer(_topic_of(record), encode(record))
        if reason is None:
            self._seq += 1
        return reason

    def dropped(self) -> int:
        """Records given up since the boot, for whatever reason."""
        return sum(sum(lane.dropped.values()) for lane in self._publisher.figures().values())


def _topic_of(record: Heartbeat | ProbeResult) -> str:
    return HEARTBEATS if isinstance(record, Heartbeat) else RESULTS
