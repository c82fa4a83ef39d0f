"""The reading side of the tables: what the views and the status publisher ask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfoNotFoundError

import polars as pl

from streams.core.objectives import Objective, series_of
from streams.core.rows import STEP_SCHEMA
from streams.core.slices import SECONDS, Tier
from streams.core.standing import Figures, figures, shown_windows
from streams.core.table import NotCaughtUpError, SloTable
from streams.core.versions import Stretch, Timeline, in_force
from streams.core.windows import Summary, summarize
from streams.engine.partitioning import partition_of
from streams.processors.objectives import NotHeardError, NotKeptError, ObjectivesProcessor

AnswerT = TypeVar("AnswerT")


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

    `versions`: those that judged events of the longest window, the one in force last.
    """

    objective: Objective
    versions: tuple[Stretch, ...]
    figures: Figures
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
        """Raises KeyError for an unknown objective, NotHereError while it cannot be answered."""
        judged_to_ms = self.completeness().complete_to_ms
        return await self._read(objective_id, lambda own, table: self._standing(own, table, judged_to_ms))

    async def slices(self, objective_id: str, from_ms: int, to_ms: int, tier: Tier = SECONDS) -> Slices:
        """Steps of a tier that begin in [from_ms, to_ms). Raises like `standing`."""

        def read(objective: Objective, table: SloTable) -> Slices:
            start_s, end_s = -(-from_ms // 1000), -(-to_ms // 1000)
            steps = tuple(summarize(self._rows(objective, table, tier, start_s, end_s)))
            versions = in_force(self._timeline().stretches(objective.id), start_s, end_s)
            partition = self.partition(objective)
            return Slices(objective, versions, steps, partition, table.applied, table.sealed_to_ms(objective.source))

        return await self._read(objective_id, read)

    async def _read(self, objective_id: str, step: Callable[[Objective, SloTable], AnswerT]) -> AnswerT:
        objective = next((o for o in self.objectives() if o.id == objective_id), None)
        if objective is None:
            raise KeyError(objective_id)
        if not self._processor.recovered:
            raise NotHereError("the worker is recovering its tables; try again in a few seconds")
        partition = self.partition(objective)
        try:
            return await self._processor.read(partition, lambda table: step(objective, table))
        except NotCaughtUpError as reason:
            raise NotHereError(f"the worker is recovering its tables: {reason}") from reason
        except ZoneInfoNotFoundError as reason:
            raise NotHereError(f"this host does not know a time zone of the calendar: {reason}") from reason
        except NotHeardError:
            raise NotHereError(
                "the group has not heard of this worker lately; another may keep its tables now"
            ) from None
        except NotKeptError:
            raise KeptElsewhereError(f"partition {partition} of slo-partials is kept by another worker") from None

    def _rows(self, objective: Objective, table: SloTable, tier: Tier, start_s: int, end_s: int) -> pl.DataFrame:
        """Of all versions that judged in [start_s, end_s): each has counted its own stretches only, so they add up."""
        numbers = self._numbers(objective, in_force(self._timeline().stretches(objective.id), start_s, end_s))
        parts = [table.read(number, tier, start_s, end_s) for number in numbers]
        if len(parts) == 1:
            return parts[0]
        return pl.concat([pl.DataFrame(schema=STEP_SCHEMA), *parts]).sort("start")

    def _numbers(self, objective: Objective, stretches: tuple[Stretch, ...]) -> set[int]:
        return {self._processor.index.number(series_of(objective.id, stretch.version)) for stretch in stretches}

    def _standing(self, objective: Objective, table: SloTable, judged_to_ms: int) -> Standing:
        now_ms = self._now_ms()
        since_s = min(window.start_s for window in shown_windows(objective, now_ms))
        stretches = self._timeline().stretches(objective.id)
        versions = in_force(stretches, since_s, now_ms // 1000 + 1)
        # What is usual may be of before the calendar's period; older versions have nothing that is not theirs.
        numbers = self._numbers(objective, stretches)
        found = figures(objective, table, numbers, now_ms, judged_to_ms)
        partition = self.partition(objective)
        sealed_to_ms = table.sealed_to_ms(objective.source)
        return Standing(objective, versions, found, judged_to_ms, partition, table.applied, sealed_to_ms)
