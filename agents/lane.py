"""The records of one topic that wait for Kafka: what a publisher needs, and a lane that keeps them in memory."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from agents.publish import Drop, LaneFigures
from agents.spool.journal import Flight, Stamp


class Lane(Protocol):
    """First in, first out. A record is waiting, or handed over and not settled yet, or acknowledged, or dropped.

    One batch is handed over at a time. Times are values. Nothing here raises for what a disk does.
    """

    def __len__(self) -> int:
        """Records that are not settled."""
        ...

    @property
    def waiting(self) -> int:
        """How many can be handed over."""
        ...

    @property
    def doubt(self) -> Flight | None:
        """A batch that may be in Kafka and has to be sent again under its stamp, before all others."""
        ...

    def oldest_s(self) -> float | None:
        """When the oldest record that is not settled was taken."""
        ...

    def has_room(self) -> bool:
        """Whether `offer` may be called, when whoever offers is to wait for room."""
        ...

    def offer(self, value: bytes, now_s: float) -> Drop | None:
        """Takes the record, or counts and returns why not."""
        ...

    def expire(self, now_s: float) -> None:
        """Drops what waits for too long. What was handed over is Kafka's: it may be written at any moment."""
        ...

    def hand_over(self, accepts: Callable[[bytes], bool]) -> None:
        """Hands over what waits, longest first, until `accepts` says no; of a doubt exactly what is in doubt."""
        ...

    def fly(self, stamp: Stamp) -> bool:
        """What was handed over leaves under this stamp. False when it is not the batch that was in doubt."""
        ...

    def take_back(self) -> None:
        """What was handed over was certainly not written: it waits again, first in line."""
        ...

    def acknowledge(self) -> None:
        """What was handed over is in Kafka."""
        ...

    def refuse(self) -> None:
        """Kafka will never take what was handed over."""
        ...

    def lose_sight(self) -> None:
        """Nobody knows whether what was handed over is in Kafka."""
        ...

    def give_up(self) -> int:
        """The agent ends: drops what does not outlive it; how many."""
        ...

    def unsynced(self, now_s: float) -> set[Path]:
        """Files that have to be brought through a loss of power now."""
        ...

    def sync(self, paths: set[Path]) -> set[Path]:
        """Brings what `unsynced` named through a loss of power; what it failed for. In a thread, and may block."""
        ...

    def sync_failed(self, paths: set[Path]) -> None:
        """What `sync` failed for: it is tried again later."""
        ...

    def close(self) -> None:
        """Nothing is called after this."""
        ...

    def figures(self) -> LaneFigures:
        """What became of the records so far; in any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record in memory."""

    taken_s: float
    value: bytes


class MemoryLane:
    """A Lane whose records are lost with the process."""

    doubt = None

    def __init__(self, limit: int, give_up_after_s: float) -> None:
        self._limit = limit
        self._give_up_after_s = give_up_after_s
        self._waiting: deque[Waiting] = deque()
        self._handed_over: list[Waiting] = []
        self._acknowledged = 0
        self._dropped: Counter[Drop] = Counter()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._handed_over)

    @property
    def waiting(self) -> int:
        """How many were not handed over yet."""
        return len(self._waiting)

    def oldest_s(self) -> float | None:
        """When the oldest record that is not settled was taken."""
        oldest = next(chain(self._handed_over, self._waiting), None)
        return None if oldest is None else oldest.taken_s

    def has_room(self) -> bool:
        """Nobody waits for memory."""
        return True

    def offer(self, value: bytes, now_s: float) -> Drop | None:
        """See Lane."""
        self.expire(now_s)
        if len(self) >= self._limit:
            self._dropped[Drop.BUFFER_FULL] += 1
            return Drop.BUFFER_FULL
        self._waiting.append(Waiting(now_s, value))
        return None

    def expire(self, now_s: float) -> None:
        """See Lane."""
        while self._waiting and self._waiting[0].taken_s + self._give_up_after_s < now_s:
            self._waiting.popleft()
            self._dropped[Drop.EXPIRED] += 1

    def hand_over(self, accepts: Callable[[bytes], bool]) -> None:
        """See Lane."""
        while self._waiting and accepts(self._waiting[0].value):
            self._handed_over.append(self._waiting.popleft())

    def fly(self, stamp: Stamp) -> bool:  # noqa: ARG002 - part of the protocol
        """Nothing to write down: the process's end is theirs too."""
        return True

    def take_back(self) -> None:
        """See Lane."""
        self._waiting.extendleft(reversed(self._handed_over))
        self._handed_over.clear()

    def acknowledge(self) -> None:
        """See Lane."""
        self._acknowledged += len(self._handed_over)
        self._handed_over.clear()

    def refuse(self) -> None:
        """See Lane."""
        self._dropped[Drop.REFUSED] += len(self._handed_over)
        self._handed_over.clear()

    def lose_sight(self) -> None:
        """To send it again could write it twice."""
        self.refuse()

    def give_up(self) -> int:
        """Drops everything, because the agent ends; how many."""
        left = len(self)
        self._dropped[Drop.STOPPED] += left
        self._waiting.clear()
        self._handed_over.clear()
        return left

    def unsynced(self, now_s: float) -> set[Path]:  # noqa: ARG002 - part of the protocol
        """None."""
        return set()

    def sync(self, paths: set[Path]) -> set[Path]:  # noqa: ARG002 - part of the protocol
        """Nothing to do."""
        return set()

    def sync_failed(self, paths: set[Path]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""

    def figures(self) -> LaneFigures:
        """What became of the records so far."""
        return LaneFigures(self._acknowledged, len(self), dict(self._dropped))
