"""When probes are due, and the bounded line in which they wait for a worker. Pure: times are values in seconds."""

import hashlib
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_FRACTION_BITS = 53


class Skip(StrEnum):
    """Why a run that was due did not take place."""

    RUNNING = "running"
    """The run before it still runs, or still waits for a worker."""
    QUEUE_FULL = "queue-full"
    MISSED = "missed"
    """Its whole period went by before anybody looked: the agent was stopped, or starved of processor time."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A probe is due once every `every_s`; `splay`, from 0 to 1, says where in each period."""

    every_s: float
    splay: float


@dataclass(frozen=True, slots=True)
class Due:
    """The probe at `place` was due at `due_s`, and `missed` times before that without anybody looking."""

    place: int
    due_s: float
    missed: int


def splay(node_id: str, probe: str) -> float:
    """A number in [0, 1) that is the same for this node and probe everywhere and always, and even over many."""
    digest = hashlib.blake2b(f"{node_id}\0{probe}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> (64 - _FRACTION_BITS)) / (1 << _FRACTION_BITS)


class Schedule:
    """The next time of every probe.

    Periods are counted from the wall clock's zero, so a probe keeps its place in the period over restarts, and a
    fleet that starts at once does not probe at once. After the start only the monotonic time counts.
    """

    def __init__(self, timings: Sequence[Timing], now_s: float, wall_s: float) -> None:
        self._timings: Mapping[int, Timing] = {}
        self._heap: list[tuple[float, int]] = []
        self.change(dict(enumerate(timings)), {}, now_s, wall_s)

    def change(self, timings: Mapping[int, Timing], successors: Mapping[int, int], now_s: float, wall_s: float) -> None:
        """Goes on with these places and no others; what is due by now has to be taken first.

        A place that was there keeps its next time when its timing is the same, and so does one that succeeds another:
        `successors` says which, new to old. No run is lost to a change, and none is made twice.
        """
        times = {place: at_s for at_s, place in self._heap}
        heap = []
        for place, timing in timings.items():
            before = successors.get(place, place)
            if before in times and self._timings[before] == timing:
                at_s = times[before]
            else:
                at_s = now_s + (timing.splay * timing.every_s - wall_s) % timing.every_s
            heap.append((at_s, place))
        heapq.heapify(heap)
        self._timings, self._heap = timings, heap

    def next_s(self) -> float | None:
        """When the next probe is due; None when there is none at all."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_s: float) -> list[Due]:
        """Every probe that is due by now, once each, however long nobody asked; in order of time."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            first_s, place = self._heap[0]
            every_s = self._timings[place].every_s
            missed = int((now_s - first_s) // every_s)
            due_s = first_s + missed * every_s
            # Never in the past again, though rounding may say so.
            heapq.heapreplace(self._heap, (max(due_s + every_s, now_s + every_s / 1_000), place))
            found.append(Due(place, due_s, missed))
        return found


@dataclass(frozen=True, slots=True)
class Turn:
    """A probe that waits for a worker, and since when it is due."""

    place: int
    due_s: float


class Lineup:
    """Probes that wait for a worker or are being run: each at most once, and at most `limit` waiting."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: deque[Turn] = deque()
        self._inside: set[int] = set()

    @property
    def waiting(self) -> int:
        """How many wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many are being run."""
        return len(self._inside) - len(self._waiting)

    def offer(self, turn: Turn) -> Skip | None:
        """Why the probe was not lined up; None when it was."""
        if turn.place in self._inside:
            return Skip.RUNNING
        if len(self._waiting) >= self.limit:
            return Skip.QUEUE_FULL
        self._inside.add(turn.place)
        self._waiting.append(turn)
        return None

    def take(self) -> Turn:
        """Who waits longest; it counts as running until `finish`. Raises IndexError when nobody waits."""
        return self._waiting.popleft()

    def holds(self, place: int) -> bool:
        """Whether the probe waits or is being run."""
        return place in self._inside

    def finish(self, place: int) -> None:
        """The probe's run is over: it may be lined up again."""
        self._inside.remove(place)
