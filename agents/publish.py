"""From records to whoever brings them to Kafka: numbers them, and says what became of those that never got there."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.codec import encode
from schemas.records import Heartbeat, ProbeResult, RequestCount

HEARTBEATS = "heartbeats"
RESULTS = "probe-results"
COUNTS = "request-counts"
TOPICS = (HEARTBEATS, RESULTS)
"""Of every agent; COUNTS only of one that scrapes."""

Sent = Heartbeat | ProbeResult | RequestCount
"""What an agent sends."""


class Drop(StrEnum):
    """Why a record was given up."""

    BUFFER_FULL = "buffer-full"
    """Never taken in: it has no number of its own, so consumers see no gap."""
    EXPIRED = "expired"
    REFUSED = "refused"
    """Kafka said no, or the connection ended in a way that leaves open whether it was written."""
    STOPPED = "stopped"
    """Still waiting, in memory, when the agent had to end."""
    EVICTED = "evicted"
    """The spool was full, and newer ones took its place."""
    DISK_FAILED = "disk-failed"
    """Never taken in: the disk did not take it, and memory for such times was full."""
    CORRUPT = "corrupt"
    """Its bytes in the spool were damaged or gone."""


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What became of one topic's records so far; `waiting` ones are on their way.

    With a spool: what it takes on disk, when its oldest record was taken (monotonic), how many are only in memory
    because the disk did not take them, and how many were sent again without Kafka being able to tell.
    """

    acknowledged: int
    waiting: int
    dropped: dict[Drop, int]
    disk_bytes: int = 0
    oldest_s: float | None = None
    in_memory: int = 0
    sent_again: int = 0
    has_spool: bool = False


class Publisher(Protocol):
    """Takes framed records at once and brings them to Kafka when it can, in order, in memory or on disk.

    `run` does the work until it is cancelled; it raises nothing but CancelledError, since Kafka being away is no reason
    to stop probing. `close` comes after the last `offer`, while `run` still runs.
    """

    def offer(self, topic: str, value: bytes, *, can_wait: bool = False) -> Drop | None:
        """Why the record was not taken; None when it was. Never waits.

        `can_wait`: a second for others that share a request to Kafka with it.
        """
        ...

    async def room(self, topic: str) -> None:
        """Returns when a record may be offered: at once, unless whoever offers is to wait while the spool is full."""
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

    def put(self, make: Callable[[int], Sent]) -> Drop | None:
        """Makes a record with the next number and offers it; why it was not taken, or None."""
        record = make(self._seq)
        can_wait = isinstance(record, ProbeResult) and record.success  # bad news do not wait
        reason = self._publisher.offer(_topic_of(record), encode(record), can_wait=can_wait)
        if reason is None:
            self._seq += 1
        return reason

    async def put_in_time(self, topic: str, make: Callable[[int], Sent]) -> Drop | None:
        """As `put`, after waiting for room where the config says so."""
        await self.room(topic)
        return self.put(make)

    async def room(self, topic: str) -> None:
        """Returns when a record of the topic may be put."""
        await self._publisher.room(topic)

    def waiting(self) -> int:
        """Records that Kafka does not have yet."""
        return sum(lane.waiting for lane in self._publisher.figures().values())

    def spool_age_ms(self, now_s: float) -> int | None:
        """How long the oldest record of all topics has waited, 0 when none waits; None without a spool."""
        lanes = [lane for lane in self._publisher.figures().values() if lane.has_spool]
        taken_s = [lane.oldest_s for lane in lanes if lane.oldest_s is not None]
        return max(0, round((now_s - min(taken_s, default=now_s)) * 1_000)) if lanes else None

    def dropped(self) -> int:
        """Records given up since the boot, for whatever reason."""
        return sum(sum(lane.dropped.values()) for lane in self._publisher.figures().values())


def _topic_of(record: Sent) -> str:
    match record:
        case Heartbeat():
            return HEARTBEATS
        case ProbeResult():
            return RESULTS
        case RequestCount():
            return COUNTS
