"""A partition of `heartbeats` that this worker keeps: its table, and how far time is in it."""

from dataclasses import dataclass, field

from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from streams.engine.fetched import Heard
from streams.engine.page_heads import Origin
from streams.processors.node_clock import BrokerClock

# An answer to a fetch comes every 1.5 s at least; after this long without one nobody knows what the log holds.
DEAF_AFTER_MS = 4_000
# So long after a partition was caught up its nodes are judged for the first time.
GRACE_S = 0.5


@dataclass(slots=True)
class Part:
    """`read_to`: the offset after the last record that is in the table, or in dead-letters."""

    partition: int
    limits: Limits
    table: NodeTable
    clock: BrokerClock
    read_to: int
    owner: str
    origin: Origin = Origin()  # noqa: RUF009 - frozen
    earlier_pages: set[bytes] = field(default_factory=set)  # changelog keys of other owners
    settled_at: int | None = None  # once this offset is committed, they may go
    promised: int = 0  # nodes that the commit speaks of
    now_ms: int = 0
    goal: int | None = None
    caught_up_s: float | None = None

    def bound(self, limits: Limits) -> None:
        """From now on new nodes are taken by these."""
        self.limits = limits
        self.table.bound(limits)

    def wait(self) -> None:
        """Silence means nothing until the partition is caught up again."""
        self.goal = self.caught_up_s = None

    def look(self, heard: Heard | None, clock_ms: int, at_s: float) -> None:
        """Moves the partition's time on, on the broker's clock; `clock_ms` and `at_s` are this machine's clocks.

        With records still to be read, time is the frontier. Without, it is the broker's clock, as long as the broker
        answers: a worker that hears nothing must not conclude that nobody speaks.
        """
        if heard is not None and self.goal is None:
            self.goal = heard.end
        if self.caught_up_s is None and self.goal is not None and self.read_to >= self.goal and self.known_again:
            self.caught_up_s = at_s
        now_ms = self.table.frontier_ms
        if heard is not None and self.read_to >= heard.end and clock_ms - heard.at_ms <= DEAF_AFTER_MS:
            shown_ms = self.clock.now_ms(at_s)
            now_ms = max(now_ms, clock_ms if shown_ms is None else shown_ms)
        self.now_ms = max(self.now_ms, now_ms)

    def missing(self) -> int:
        """How many nodes no page has brought back; told once, when all that was known has been read again."""
        if not self.known_again:
            return 0
        promised, self.promised = self.promised, 0
        return max(0, promised - self.table.nodes)

    @property
    def known_again(self) -> bool:
        """Whether the table holds all that an earlier owner had counted: answers before would be of the past."""
        return self.read_to > self.table.decided_offset

    def may_be_judged(self, at_s: float) -> bool:
        """Whether a node's silence means something: the log has been read up to now, and a moment has passed."""
        return self.caught_up_s is not None and at_s - self.caught_up_s >= GRACE_S
