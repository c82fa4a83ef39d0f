"""Events that exist but are not in Kafka yet: late ones on their way, and the spools of nodes that are cut off."""

from dataclasses import dataclass, field

import numpy as np

from agents.simulate.rows import Counted, Ints, Rows

# Memory is bounded: a script that holds back more than this is a mistake.
MAX_HELD_EVENTS = 8_000_000


class TooMuchHeldError(RuntimeError):
    """The script holds back more events than the simulator is willing to keep."""


@dataclass(slots=True)
class Held:
    """Rows that wait until a moment: late ones each for its own, spooled ones for the end of a cut-off."""

    dtype: np.dtype[np.void]
    late: Rows = field(init=False)
    late_until_ms: Ints = field(init=False)
    spooled: dict[int, list[Rows]] = field(default_factory=dict)
    rows: int = 0

    def __post_init__(self) -> None:
        self.late = np.empty(0, self.dtype)
        self.late_until_ms = np.empty(0, np.int64)

    def hold_late(self, rows: Rows, until_ms: Ints) -> None:
        """Keeps each row until its own moment. Raises TooMuchHeldError."""
        self.late = np.concatenate([self.late, rows])
        self.late_until_ms = np.concatenate([self.late_until_ms, until_ms])
        self._count(len(rows))

    def hold_spooled(self, rows: Rows, until_ms: Ints) -> None:
        """Keeps the rows of nodes that are cut off until then. Raises TooMuchHeldError."""
        for until in np.unique(until_ms):
            self.spooled.setdefault(int(until), []).append(rows[until_ms == until])
        self._count(len(rows))

    def release(self, before_ms: int) -> list[Rows]:
        """Takes out what waits for a moment earlier than `before_ms`."""
        due = self.late_until_ms < before_ms
        out = [self.late[due]]
        self.late, self.late_until_ms = self.late[~due], self.late_until_ms[~due]
        for until in sorted(until for until in self.spooled if until < before_ms):
            out += self.spooled.pop(until)
        self.rows -= sum(len(rows) for rows in out)
        return out

    def _count(self, added: int) -> None:
        self.rows += added
        _expect_little(self.rows)


@dataclass(slots=True)
class HeldCounts:
    """Counts of nodes that are cut off, with their requests."""

    spooled: dict[int, list[Counted]] = field(default_factory=dict)
    rows: int = 0
    _requests: int = 0

    def hold_spooled(self, counted: Counted, until_ms: Ints) -> None:
        """Keeps them until then. Raises TooMuchHeldError."""
        for until in np.unique(until_ms):
            self.spooled.setdefault(int(until), []).append(counted.where(until_ms == until))
        self.rows += len(counted.rows)
        self._requests += len(counted.requests)
        _expect_little(self._requests)

    def release(self, before_ms: int) -> list[Counted]:
        """Takes out what waits for a moment earlier than `before_ms`."""
        due = sorted(until for until in self.spooled if until < before_ms)
        out = [counted for until in due for counted in self.spooled.pop(until)]
        self.rows -= sum(len(counted.rows) for counted in out)
        self._requests -= sum(len(counted.requests) for counted in out)
        return out


def _expect_little(rows: int) -> None:
    if rows > MAX_HELD_EVENTS:
        raise TooMuchHeldError(
            f"the script holds back more than {MAX_HELD_EVENTS} events at once; expected shorter cut-offs, "
            "fewer late events or a lower rate"
        )
