"""The reading side of the tables: what the views and the status publisher ask."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from streams.core.burn import BurnState, Counted, burn_states
from streams.core.objectives import Objective, series_of
from streams.core.rows import STEP_SCHEMA
from streams.core.slices import SECONDS, Tier
from streams.core.summaries import NotCaughtUpError, Shown
from streams.core.versions import Stretch, Timeline, in_force
from streams.core.windows import Summary, Window, sliding, summarize
from streams.engine.partitioning import partition_of
from streams.processors.objectives import NotHeardError, NotKeptError, ObjectivesProcessor

STANDARD_WINDOWS_S = (60, 300, 3_600, 21_600)


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
    """One objective: a summary for each window, its burn rules judged at `judged_to_ms`, and what they rest on.

    `versions`: those that judged events of the longest window, the one in force last.
    """

    objective: Objective
    versions: tuple[Stretch, ...]
    windows: tuple[tuple[Window, Summary], ...]
    burns: tuple[BurnState, ...]
    judged_to_ms: int
    partition: int
    applied_offset: int
    sealed_to_ms: int


@dataclass(frozen=True, slots=True)
class Slices:
    """Steps of one objective that have events, summarized; those before `sealed_to_ms` only change by late events."""

    objective: Objective
    versions: tuple[Stretch, ...]
    steps: tuple[Summary, ...]
    partition: int
    applied_offset: int
    sealed_to_ms: int


class Queries(Protocol):
    """The reading side of the tables."""

    def objectives(self) -> tuple[Objective, ...]:
        """Every objective, wherever it is kept."""

    def partition(self, objective: Objective) -> int:
        """Where the objective is kept."""

    async def standing(self, objective_id: str) -> Standing:
        """Raises KeyError for an unknown objective, NotHereError while it cannot be answered."""

    async def slices(self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS) -> Slices:
        """Steps of a tier that begin in [from_ms, to_ms). Raises like `standing`."""

    def completeness(self) -> Completeness:
        """Of all source partitions; of an answer that is read afterwards, it says no more than that has."""


class TableQueries:
    """Answers from the tables of this worker."""

    def __init__(
        self,
        timeline: Callable[[], Timeline],
        processor: ObjectivesProcessor,
        partitions: int,
        now_ms: Callable[[], int],
        completeness: Callable[[], Completeness],
    ) -> None:
        self._timeline = timeline
        self._processor = processor
        self._partitions = partitions
        self._now_ms = now_ms
        self.completeness = completeness
        self._made: tuple[Timeline | None, dict[str, tuple[Stretch, ...]]] = (None, {})

    def objectives(self) -> tuple[Objective, ...]:
        """Every objective in force, wherever it is kept."""
        return self._timeline().era(self._now_ms()).objectives

    def owned(self) -> tuple[Objective, ...]:
        """Those whose partition this worker has."""
        return tuple(o for o in self.objectives() if self.partition(o) in self._processor.parts)

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

    async def slices(self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS) -> Slices:
        """Steps of a tier that begin in [from_ms, to_ms). Raises like `standing`."""
        objective, partition = self._place(objective_id)

        def read(table: Shown) -> Slices:
            start_s, end_s = -(-from_ms // 1000), -(-to_ms // 1000)
            steps = tuple(summarize(self._rows(objective, table, tier, start_s, end_s)))
            versions = in_force(self._stretches(objective), start_s, end_s)
            return Slices(objective, versions, steps, partition, table.applied, table.sealed_to_ms())

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

    def _numbers(self, objective: Objective, start_s: int, end_s: int) -> set[int]:
        """The series of all versions that judged in [start_s, end_s): each has counted its own stretches only."""
        judged = in_force(self._stretches(objective), start_s, end_s)
        return {self._processor.index.number(series_of(objective.id, each.version)) for each in judged}

    def _rows(self, objective: Objective, table: Shown, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """Of all versions, which add up."""
        parts = [table.read(number, tier, start_s, end_s) for number in self._numbers(objective, start_s, end_s)]
        if len(parts) == 1:
            return parts[0]
        return pl.concat([pl.DataFrame(schema=STEP_SCHEMA), *parts]).sort("start")

    def _standing(self, objective: Objective, table: Shown, judged_to_ms: int) -> Standing:
        now_ms = self._now_ms()
        lengths = sorted({*(s for s in STANDARD_WINDOWS_S if s < objective.window_s), objective.window_s})
        windows = tuple(self._summed(objective, table, sliding(length, now_ms)) for length in lengths)
        burns = self._burns(objective, table, judged_to_ms) if judged_to_ms else ()
        longest, _ = windows[-1]
        versions = in_force(self._stretches(objective), longest.start_s, now_ms // 1000 + 1)
        partition = self.partition(objective)
        return Standing(
            objective, versions, windows, burns, judged_to_ms, partition, table.applied, table.sealed_to_ms()
        )

    def _burns(self, objective: Objective, table: Shown, judged_to_ms: int) -> tuple[BurnState, ...]:
        """The rules in whole seconds that are complete: part of a second's events are nothing to wake somebody by."""
        lengths = {length for rule in objective.rules for length in (rule.long_s, rule.short_s)}
        sums = {
            s: self._summed(objective, table, sliding(s, judged_to_ms - 1_000)) for s in {*lengths, objective.window_s}
        }
        counted = {length: Counted(length, summary.total, summary.good) for length, (_, summary) in sums.items()}
        own, summary = sums[objective.window_s]
        usual = Counted(own.end_s - (summary.first_s or own.start_s), summary.total, summary.good)
        return burn_states(objective.rules, counted, usual, objective.target)

    def _summed(self, objective: Objective, table: Shown, window: Window) -> tuple[Window, Summary]:
        numbers = self._numbers(objective, window.start_s, window.end_s)
        return window, table.summarize(numbers, window.tier, window.start_s, window.end_s)


@contextmanager
def _reasons(partition: int) -> Iterator[None]:
    """Why a table cannot be read, as a reader has to know it."""
    try:
        yield
    except NotCaughtUpError as reason:
        raise NotHereError(f"the worker is recovering its tables: {reason}") from reason
    except NotHeardError:
        raise NotHereError("the group has not heard of this worker lately; another may keep its tables now") from None
    except NotKeptError:
        raise KeptElsewhereError(f"partition {partition} of slo-partials is kept by another worker") from None
