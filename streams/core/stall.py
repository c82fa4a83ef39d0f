"""Whether a consumer stands still although there is something to read: pure, time is a value."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class Reading(NamedTuple):
    """`read_to`: the offset after the last record that was worked off; `end`: the one after the last that there is."""

    read_to: int
    end: int


@dataclass(slots=True)
class StallWatch(Generic[KeyT]):
    """How long each partition has been behind without any progress.

    Slow progress is progress. `longest_look_s` bounds what one look adds: a process that was stopped, or a machine that
    slept, has not watched in the meantime.
    """

    longest_look_s: float
    stalled_s: dict[KeyT, float] = field(default_factory=dict)
    _read_to: dict[KeyT, int] = field(default_factory=dict)
    _looked_s: float | None = None

    def look(self, readings: Mapping[KeyT, Reading], at_s: float) -> None:
        """What is behind now; partitions that are not among `readings` begin anew when they come again."""
        passed_s = 0.0 if self._looked_s is None else min(at_s - self._looked_s, self.longest_look_s)
        self._looked_s = at_s
        self.stalled_s = {
            key: self.stalled_s.get(key, 0.0) + passed_s if self._read_to.get(key) == reading.read_to else 0.0
            for key, reading in readings.items()
            if reading.read_to < reading.end
        }
        self._read_to = {key: reading.read_to for key, reading in readings.items()}

    def forget(self) -> None:
        """Nothing can be said now: standing still is what is expected of it."""
        self.stalled_s, self._read_to, self._looked_s = {}, {}, None

    def worst(self) -> tuple[KeyT, float] | None:
        """The partition that has stood still longest, and for how many seconds; None when none does."""
        return max(self.stalled_s.items(), key=lambda item: item[1], default=None)
