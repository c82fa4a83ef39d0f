"""The reading side of the node tables: what the views ask."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import polars as pl

from streams.core.liveness.reads import FleetCounts, Node, NodeQuery
from streams.core.liveness.states import STATES
from streams.core.liveness.zones import Zone, ZoneState
from streams.engine.partitioning import partition_of
from streams.processors.liveness import LivenessProcessor
from streams.processors.node_judging import outages
from streams.processors.node_parts import Part
from streams.processors.node_recovery import SOURCE
from streams.processors.queries import KeptElsewhereError, NotHereError

AnswerT = TypeVar("AnswerT")

# Counting two million nodes takes a while: several who ask within this time get the same answer.
FLEET_FOR_S = 0.5
RECOVERING = "the worker is recovering its nodes; try again in a few seconds"


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on: heartbeats up to these offsets, and all that had come by `complete_to_ms`."""

    complete_to_ms: int
    staleness_ms: int
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class NodesAnswer:
    """Nodes in the order of their ids; `outages` are of all zones."""

    nodes: tuple[Node, ...]
    outages: Mapping[Zone, ZoneState]
    basis: Basis


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """The whole fleet in figures."""

    counts: FleetCounts
    outages: Mapping[Zone, ZoneState]
    basis: Basis


class NodeQueries:
    """Answers from the tables of this worker, about the partitions that the basis names.

    Every question raises NotHereError while it cannot be answered.
    """

    def __init__(self, processor: LivenessProcessor, partitions: int, now_ms: Callable[[], int]) -> None:
        self._processor = processor
        self._partitions = partitions
        self._now_ms = now_ms
        self._fleet: tuple[float, FleetAnswer] | None = None
        self._counting = asyncio.Lock()

    def partition(self, node_id: str) -> int:
        """Where a node is kept, unless its client places keys in its own way."""
        return partition_of(node_id.encode(errors="replace"), self._partitions)

    async def node(self, node_id: str) -> NodesAnswer:
        """One node, or none. It may be in another partition than it should: not all clients place keys alike."""
        home, ids = self.partition(node_id), pl.Series([node_id])

        def find(parts: Collection[Part]) -> NodesAnswer:
            for part in sorted(parts, key=lambda part: part.partition != home):
                _require_known([part])
                basis = self._basis([part])
                if found := part.table.describe(ids, part.now_ms):
                    return NodesAnswer(tuple(found), self._outages(), basis)
            return NodesAnswer((), self._outages(), self._basis(parts))

        return await self._read(find)

    async def nodes(self, query: NodeQuery) -> NodesAnswer:
        """Those that the query selects."""

        def select(parts: Collection[Part]) -> NodesAnswer:
            _require_known(parts)
            basis = self._basis(parts)
            found = [(part, part.table.select(query, part.now_ms)) for part in parts]
            ids = pl.concat([ids for _, ids in found]).sort().head(query.limit)
            nodes = [
                node
                for part, own in found
                for node in part.table.describe(own if ids.is_empty() else own.filter(own <= ids[-1]), part.now_ms)
            ]
            ordered = sorted(nodes, key=lambda node: node.node_id)[: query.limit]
            return NodesAnswer(tuple(ordered), self._outages(), basis)

        return await self._read(select)

    async def fleet(self) -> FleetAnswer:
        """Counts of all nodes."""
        async with self._counting:
            if self._fleet is None or time.monotonic() - self._fleet[0] > FLEET_FOR_S:
                answer = await self._read(self._count)
                self._fleet = time.monotonic(), answer
            elif not self._processor.recovered:
                self._fleet = None
                raise NotHereError(RECOVERING)
            return self._fleet[1]

    def _count(self, parts: Collection[Part]) -> FleetAnswer:
        _require_known(parts)
        basis = self._basis(parts)
        counts = [part.table.counts(part.now_ms) for part in parts]
        zones = pl.concat([each.zones for each in counts])
        zones = zones.group_by("region", "zone").agg(pl.col(STATES).sum()).sort("region", "zone")
        sums = {
            name: sum(getattr(each, name) for each in counts) for name in ("heartbeats", "lost", "restarts", "refused")
        }
        return FleetAnswer(replace(counts[0], zones=zones, **sums), self._outages(), basis)

    async def _read(self, step: Callable[[Collection[Part]], AnswerT]) -> AnswerT:
        processor = self._processor

        def run() -> AnswerT:
            if not processor.recovered:
                raise NotHereError(RECOVERING)
            if not processor.parts:
                raise KeptElsewhereError(f"every partition of {SOURCE} is kept by another worker")
            return step(tuple(processor.parts.values()))

        if not processor.recovered:  # now, not when the thread has built what it builds
            raise NotHereError(RECOVERING)
        answer = await processor.in_thread(run)
        if not processor.heard_of:
            raise NotHereError("the group has not heard of this worker lately; another may keep its nodes now")
        return answer

    def _outages(self) -> Mapping[Zone, ZoneState]:
        return outages(self._processor.judge.zones)

    def _basis(self, parts: Collection[Part]) -> Basis:
        """To be taken before the tables are looked at: the parts' time goes on meanwhile, and is never ahead of it."""
        complete_to_ms = min(part.now_ms for part in parts)
        staleness_ms = max(0, self._now_ms() - complete_to_ms)
        return Basis(complete_to_ms, staleness_ms, {part.partition: part.read_to - 1 for part in parts})


def _require_known(parts: Collection[Part]) -> None:
    behind = [part.partition for part in parts if not part.known_again]
    if behind:
        raise NotHereError(f"the worker is recovering its nodes: partitions {behind} of {SOURCE} are read again")
