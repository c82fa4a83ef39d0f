"""The records of one topic that wait for Kafka: bounded in number and age, in memory. Pure: times are values."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from agents.publish import Drop, LaneFigures


@dataclass(frozen=True, slots=True)
class _Waiting:
    taken_s: float
    value: bytes


class Lane:
    """First in, first out. A record is waiting, or handed over and not settled yet, or acknowledged, or dropped."""

    def __init__(self, limit: int, give_up_after_s: float) -> None:
        self._limit = limit
        self._give_up_after_s = give_up_after_s
        self._waiting: deque[_Waiting] = deque()
        self._handed_over: list[_Waiting] = []
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

    def offer(self, value: bytes, now_s: float) -> Drop | None:
        """Takes the record, or counts and returns why not."""
        self.expire(now_s)
        if len(self) >= self._limit:
            self._dropped[Drop.BUFFER_FULL] += 1
            return Drop.BUFFER_FULL
        self._waiting.append(_Waiting(now_s, value))
        return None

    def expire(self, now_s: float) -> None:
        """Drops what waits for too long. What was handed over is Kafka's: it may be written at any moment."""
        while self._waiting and self._waiting[0].taken_s + self._give_up_after_s < now_s:
            self._waiting.popleft()
            self._dropped[Drop.EXPIRED] += 1

    def hand_over(self, accepts: Callable[[bytes], bool]) -> None:
        """Hands over what waits, longest first, until `accepts` says no."""
        while self._waiting and accepts(self._waiting[0].value):
            self._handed_over.append(self._waiting.popleft())

    def take_back(self) -> None:
        """What was handed over was certainly not sent: it waits again, first in line."""
        self._waiting.extendleft(reversed(self._handed_over))
        self._handed_over.clear()

    def acknowledge(self) -> None:
        """What was handed over is in Kafka."""
        self._acknowledged += len(self._handed_over)
        self._handed_over.clear()

    def refuse(self) -> None:
        """What was handed over is not in Kafka, or nobody knows: to send it again could write it twice."""
        self._dropped[Drop.REFUSED] += len(self._handed_over)
        self._handed_over.clear()

    def give_up(self) -> int:
        """Drops everything, because the agent ends; how many."""
        left = len(self)
        self._dropped[Drop.STOPPED] += left
        self._waiting.clear()
        self._handed_over.clear()
        return left

    def figures(self) -> LaneFigures:
        """What became of the records so far."""
        return LaneFigures(self._acknowledged, len(self), dict(self._dropped))
