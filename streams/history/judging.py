"""Which slices each series of an objective sums, and what it selects, as the announced sets have it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from streams.core.objectives import Objective
from streams.core.versions import Timeline
from streams.history.sums import Span

FOR_EVER_S = 1 << 32


@dataclass(frozen=True, slots=True)
class Judging:
    """A version of an objective, and the slices that it judges."""

    objective: Objective
    slices: tuple[Span, ...]


def judgings(timeline: Timeline) -> Mapping[str, Judging]:
    """By the name of the series, of every version that ever judged."""
    found: dict[str, Judging] = {}
    ends = [*(era.since_s for era in timeline.eras[1:]), FOR_EVER_S]
    for era, until_s in zip(timeline.eras, ends, strict=True):
        for objective in era.objectives:
            known = found.get(objective.series)
            slices = (*(known.slices if known else ()), Span(era.since_s, until_s))
            found[objective.series] = Judging(objective, slices)
    return found
