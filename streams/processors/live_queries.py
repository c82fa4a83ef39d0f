"""What this worker can say of the last minute, and on what it rests."""

from collections.abc import Mapping
from dataclasses import dataclass

from streams.core.live import LiveCounts
from streams.core.objectives import Objective
from streams.engine.app import App
from streams.engine.transport import Consumer, topic_partitions
from streams.processors.queries import NotHereError
from streams.processors.rollup import RollupProcessor

NOT_COUNTED = -1


class NoRingError(LookupError):
    """Nobody asked for a ring of this objective."""


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """The counts of the partitions of `source` that this worker reads; `offsets`: the last one counted, or -1."""

    counts: LiveCounts
    source: str
    offsets: Mapping[int, int]


class LiveQueries:
    """Answers from the rings of this worker's rollups."""

    def __init__(self, app: App, rollups: Mapping[str, RollupProcessor]) -> None:
        self._app = app
        self._rollups = rollups

    def counts(self, objective: Objective, from_ms: int, to_ms: int, step_ms: int) -> LiveAnswer:
        """Raises NoRingError, and NotHereError while it is not known what this worker is to read."""
        consumer: Consumer = self._app.consumer  # type: ignore[assignment]
        if self._app.rebalancing or not consumer.holds_assignment():
            raise NotHereError("the group is being joined or has not heard of this worker lately")
        rollup = self._rollups[objective.source]
        try:
            found = rollup.live(objective.id, from_ms, to_ms, step_ms)
        except KeyError:
            raise NoRingError(objective.id) from None
        own = topic_partitions(consumer.assignment(), objective.source)
        offsets = {p: NOT_COUNTED if (end := rollup.read_to(p)) is None else end - 1 for p in own}
        return LiveAnswer(found, objective.source, offsets)
