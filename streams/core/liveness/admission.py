"""Which new nodes are taken: bounds against forged ids that depend on the log alone."""

from dataclasses import dataclass

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one partition: nodes known at once, and new ones a minute of append time."""

    max_nodes: int
    new_per_minute: int


@dataclass(slots=True)
class Admission:
    """How many may still come. `known`: nodes after the last sweep and those taken since; `refused`: heartbeats."""

    limits: Limits
    minute: int = 0
    new_in_minute: int = 0
    known: int = 0
    refused: int = 0

    def room(self, minute: int) -> int:
        """How many new nodes may be taken now, in this minute of append time; minutes never go back."""
        if minute != self.minute:
            self.minute, self.new_in_minute = minute, 0
        return max(0, min(self.limits.new_per_minute - self.new_in_minute, self.limits.max_nodes - self.known))

    def take(self, nodes: int) -> None:
        """So many were taken."""
        self.new_in_minute += nodes
        self.known += nodes
