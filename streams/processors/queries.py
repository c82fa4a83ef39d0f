"""The reading side of the tables: what the views and the status publisher ask."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from zoneinfo import ZoneInfoNotFoundError

import polars as pl

from streams.core.objectives import Objective, series_of
from streams.core.past import Past
from streams.core.rows import STEP_SCHEMA
from streams.core.slices import SECONDS, Tier
from streams.core.standing import Figures, figures, shown_windows
from streams.core.summaries import NotCaughtUpError, Shown
from streams.core.versions import Stretch, Timeline, in_force
from streams.core.windows import Summary, summarize
from streams.engine.partitioning import partition_of
from streams.processors.objectives import NotHeardError, NotKeptError, ObjectivesProcessor
from streams.processors.past import Beginning, Key

PastOf = Callable[[str, Stretch], Past | None]
"""What is known of the time before an objective's first stretch."""


class NotHereError(LookupError):
    """The answer cannot be given by this worker now; says why."""


class KeptElsewhereError(NotHereError):
    """Another worker has the answer."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Until when (ms, event time) all events have been counted, and how old (ms) the least fresh source is."""

    complete_to_ms: int
    staleness_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One objective: its windows and burn rules, the latter judged at `judged_to_ms`, and what they rest on.

    `versions`: those that judged events of the longest window, the one in force last. `past`: what of them was before.
    """

    objective: Objective
    versions: tuple[Stretch, ...]
    figures: Figures
    judged_to_ms: int
    partition: int
    applied_offset: int
    sealed_to_ms: int
    past: Past | None = None


@dataclass(frozen=True, slots=True)
class Slices:
    """Steps of one objective that have events, summarized; those before `sealed_to_ms` only change by late events."""

    objective: Objective
    versions: tuple[Stretch, ...]
    steps: tuple[Summary, ...]
    partition: int
    applied_offset: int
    sealed_to_ms: int
    past: Past | None = None


class Queries(Protocol):
    """The reading side of the tables."""

    def objectives(self) -> tuple[Objective, ...]:
        """Every objective, wherever it is kept."""

    def partition(self, objective: Objective) -> int:
        """Where the objective is kept."""

    async def standing(self, objective_id: str) -> Standing:
        """Raises KeyError for an unknown objective, NotHereError while it cannot be answered."""

    async def slices(
        self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS, *, with_past: bool = False
    ) -> Slices:
        """Steps of a tier that begin in [from_ms, to_ms), without the past what tables have. Raises like `standing`."""

    def completeness(self) -> Completeness:
        """Of all source partitions; of an answer that is read afterwards, it says no more than that has."""


class TableQueries:
    """Answers from the tables of this worker."""

    def __init__(  # noqa: PLR0913 - what it reads
        self,
        timeline: Callable[[], Timeline],
        processor: ObjectivesProcessor,
        partitions: int,
        now_ms: Callable[[], int],
        completeness: Callable[[], Completeness],
        past: PastOf = lambda *_: None,
    ) -> None:
        self._timeline = timeline
        self._processor = processor
        self._partitions = partitions
        self._now_ms = now_ms
        self.completeness = completeness
        self._past = past
        self._made: tuple[Timeline | None, dict[str, tuple[Stretch, ...]]] = (None, {})

    def objectives(self) -> tuple[Objective, ...]:
        """Every objective in force, wherever it is kept."""
        return self._timeline().era(self._now_ms()).objectives

    def owned(self) -> tuple[Objective, ...]:
        """Those whose partition this worker has."""
        return tuple(o for o in self.objectives() if self.partition(o) in self._processor.parts)

    def beginnings(self) -> Iterator[Beginning]:
        """Of those whose partition this worker has and that were not there from the beginning of time."""
        for promise in self.owned():
            first = self._stretches(promise)[0]
            if first.since_s:
                yield Beginning(Key.of(promise.id, first), self._timeline().judge(promise.id, first), promise)

    def partition(self, objective: Objective) -> int:
        """Where the objective is kept."""
        return partition_of(objective.id.encode(), self._partitions)

    async def standing(self, objective_id: str) -> Standing:
        """Raises KeyError for an unknown objective, NotHereError while it cannot be answered.

        Short, and without an await: it waits for no fold.
        """
        judged_to_ms = self.completeness().complete_to_ms
        objective, partition = self._place(objective_id)
        with _reasons(partition):
            return self._processor.read(partition, lambda table: self._standing(objective, table, judged_to_ms))

    async def slices(
        self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS, *, with_past: bool = False
    ) -> Slices:
        """Steps of a tier that begin in [from_ms, to_ms), without the past what tables have. Raises like `standing`."""
        objective, partition = self._place(objective_id)

        def read(table: Shown) -> Slices:
            start_s, end_s = -(-from_ms // 1000), -(-to_ms // 1000)
            past = self._before(objective) if with_past else None
            steps = tuple(summarize(self._rows(objective, table, tier, start_s, end_s, past)))
            versions = in_force(self._stretches(objective), start_s, end_s)
            sealed_to_ms = table.sealed_to_ms(objective.source)
            return Slices(objective, versions, steps, partition, table.applied, sealed_to_ms, past)

        with _reasons(partition):
            return await self._processor.read_apart(partition, read)

    def _place(self, objective_id: str) -> tuple[Objective, int]:
        """The objective and its partition. Raises like `standing`."""
        objective = next((o for o in self.objectives() if o.id == objective_id), None)
        if objective is None:
            raise KeyError(objective_id)
        if not self._processor.recovered:
            raise NotHereError("the worker is recovering its tables; try again in a few seconds")
        return objective, self.partition(objective)

    def _stretches(self, objective: Objective) -> tuple[Stretch, ...]:
        """Those of the timeline as it is now, made once for each of its states."""
        timeline = self._timeline()
        known, made = self._made  # one thing, as two threads ask
        if known is not timeline:
            made = {}
            self._made = timeline, made
        if objective.id not in made:
            made[objective.id] = timeline.stretches(objective.id)
        return made[objective.id]

    def _before(self, objective: Objective) -> Past | None:
        return self._past(objective.id, self._stretches(objective)[0])

    def _rows(  # noqa: PLR0913 - what of it, and when
        self, objective: Objective, table: Shown, tier: Tier, start_s: int, end_s: int, past: Past | None
    ) -> pl.DataFrame:
        """Of all versions that judged in [start_s, end_s): each has counted its own stretches only, so they add up."""
        numbers = _numbers(table, objective, in_force(self._stretches(objective), start_s, end_s))
        parts = [table.read(number, tier, start_s, end_s) for number in numbers]
        if past is not None:
            parts.append(past.steps(tier).frame().filter(pl.col("start").is_between(start_s, end_s, closed="left")))
        if len(parts) == 1:
            return parts[0]
        return pl.concat([pl.DataFrame(schema=STEP_SCHEMA), *parts]).sort("start")

    def _standing(self, objective: Objective, table: Shown, judged_to_ms: int) -> Standing:
        now_ms = self._now_ms()
        since_s = min(window.start_s for window in shown_windows(objective, now_ms))
        stretches = self._stretches(objective)
        versions = in_force(stretches, since_s, now_ms // 1000 + 1)
        # What is usual may be of before the calendar's period; older versions have nothing that is not theirs.
        numbers = _numbers(table, objective, stretches)
        past = self._before(objective)
        found = figures(objective, table, numbers, now_ms, judged_to_ms, past)
        partition, sealed_to_ms = self.partition(objective), table.sealed_to_ms(objective.source)
        return Standing(objective, versions, found, judged_to_ms, partition, table.applied, sealed_to_ms, past)


def _numbers(table: Shown, objective: Objective, stretches: Iterable[Stretch]) -> set[int]:
    """Of the versions' series, as this state has them; it holds nothing of a series that it has no number of."""
    found = (table.numbers.get(series_of(objective.id, stretch.version)) for stretch in stretches)
    return {number for number in found if number is not None}


@contextmanager
def _reasons(partition: int) -> Iterator[None]:
    """Why a table cannot be read, as a reader has to know it."""
    try:
        yield
    except NotCaughtUpError as reason:
        raise NotHereError(f"the worker is recovering its tables: {reason}") from reason
    except ZoneInfoNotFoundError as reason:
        raise NotHereError(f"this host does not know a time zone of the calendar: {reason}") from reason
    except NotHeardError:
        raise NotHereError("the group has not heard of this worker lately; another may keep its tables now") from None
    except NotKeptError:
        raise KeptElsewhereError(f"partition {partition} of slo-partials is kept by another worker") from None
