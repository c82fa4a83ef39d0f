"""What became of the letters of a replay, counted and told. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.dlq.corrections import Before, Left, Ready
from infra.dlq.replay import Outcome, Sent
from infra.dlq.words import plain


@dataclass(slots=True)
class Tally:
    """Counts of outcomes; `sent` and `ready` by topic and correction, `left` by topic and reason, with one example."""

    settled: int = 0
    before: int = 0
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    ready: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    _examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in the outcomes of a batch."""
        for outcome in outcomes:
            match outcome:
                case Sent(origin, correction=correction):
                    self.sent[origin.topic, correction] += 1
                case Ready(origin, correction=correction):
                    self.ready[origin.topic, correction] += 1
                case Before():
                    self.before += 1
                case Left(origin, reason, detail):
                    self.leave(origin.topic, reason, f"{origin.place}: {detail}")

    def leave(self, topic: str, reason: str, example: str, count: int = 1) -> None:
        """Counts what cannot go back."""
        self.left[topic, reason] += count
        self._examples.setdefault((topic, reason), example)

    def as_lines(self) -> Iterator[str]:
        """The counts for people."""
        if self.settled:
            yield f"{self.settled:,} of an earlier replay that was cut short had been sent"
        for counts, verb in ((self.sent, "sent to"), (self.ready, "can go to")):
            for (topic, correction), count in sorted(counts.items()):
                yield f"{count:,} {verb} {topic}, {correction or 'as they are'}"
        if self.before:
            yield f"{self.before:,} went back before"
        for (topic, reason), count in sorted(self.left.items()):
            yield plain(f"{count:,} of {topic} left: {reason}; {self._examples[topic, reason]}")

    def as_json(self) -> dict[str, Any]:
        """The counts for programs."""
        left: Counter[str] = Counter()
        for (_, reason), count in self.left.items():
            left[reason] += count
        return {
            "sent": self.sent.total(),
            "ready": self.ready.total(),
            "before": self.before,
            "settled": self.settled,
            "left": dict(sorted(left.items())),
        }
