"""What an objective would have counted before it was there: sums of older events, beside the tables and not in them.

Each second is asked for once, in the finest tier that a window needs it in; coarser steps are made of finer ones. So
steps of every tier are whole, and one that begins before the objective's own first slice adds up with the table's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from streams.core.rows import Steps, restarted, starts_of
from streams.core.slices import COUNTS, HOURS, MINUTES, SECONDS, Tier
from streams.core.summaries import Digest, ShownRows

_FINE_FIRST = (SECONDS, MINUTES, HOURS)
_SERIES = 0  # that all keys have


@dataclass(frozen=True, slots=True)
class Question:
    """Steps of `tier` over the slices in [start_s, end_s)."""

    tier: Tier
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Events with slices in [from_s, since_s), as the version judges them that has counted from `since_s` on.

    `as_of_ms`: when it was asked for; what came later is not in it. Nothing in it changes: what is known better is
    another one.
    """

    since_s: int
    from_s: int
    as_of_ms: int
    rows: Mapping[Tier, ShownRows]

    @classmethod
    def empty(cls, since_s: int, as_of_ms: int) -> Self:
        """Nothing is known yet."""
        return cls(since_s, since_s, as_of_ms, {})

    def between(self, tier: Tier, start_s: int, end_s: int) -> Digest | None:
        """The sum of the steps with start_s ≤ start < end_s; None without any."""
        rows = self.rows.get(tier)
        return None if rows is None else rows.between(_SERIES, start_s, end_s)

    def steps(self, tier: Tier) -> Steps:
        """All of a tier."""
        rows = self.rows.get(tier)
        return Steps.empty() if rows is None else rows.of_series(_SERIES)

    def plus(self, question: Question, steps: Steps) -> "Past":
        """With an answer, whose keys are of series 0; it is older than all that is here of its tier."""
        tiers = (COUNTS,) if question.tier is COUNTS else _FINE_FIRST[_FINE_FIRST.index(question.tier) :]
        rows = dict(self.rows)
        for tier in tiers:
            key = restarted(steps.key, starts_of(steps.key) // tier.step_s * tier.step_s, histograms=tier is not COUNTS)
            coarse = Steps(key, steps.n, steps.late_n, steps.sum_us, steps.max_us)
            rows[tier] = ShownRows(Steps.concat(self.steps(tier), coarse).summed())
        # Minutes without histograms come first, and say nothing of windows.
        from_s = self.from_s if question.tier is COUNTS else min(self.from_s, question.start_s)
        return Past(self.since_s, from_s, self.as_of_ms, rows)

    def without(self, tiers: set[Tier]) -> "Past":
        """Less, where no window reaches any more."""
        rows = {tier: rows for tier, rows in self.rows.items() if tier not in tiers}
        return self if len(rows) == len(self.rows) else Past(self.since_s, self.from_s, self.as_of_ms, rows)


def questions(reach: Mapping[Tier, int], since_s: int) -> tuple[Question, ...]:
    """What to ask for, in this order, when tiers are read from these seconds on: from the newest to the oldest."""
    found, end_s = list[Question](), since_s
    if COUNTS in reach:
        found.append(Question(COUNTS, reach[COUNTS], since_s))
    for tier in _FINE_FIRST:
        if tier in reach and reach[tier] < end_s:
            found.append(Question(tier, reach[tier], end_s))
            end_s = reach[tier]
    return tuple(found)
