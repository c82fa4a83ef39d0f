"""Judging: which nodes have fallen silent, which zones have, and what is announced of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from streams import metrics
from streams.core.liveness import zones
from streams.core.liveness.states import STATES
from streams.core.liveness.zones import OUTAGE, ZONE_COUNTS, Zone, ZoneChange, ZoneState
from streams.engine.bulk import Bulk
from streams.processors.node_parts import Part
from streams.processors.node_states import node_records, zone_record

# Of a round. A fleet that registers at once is announced in steps, so that nothing else has to wait for all of it;
# who is DOWN or GONE comes first.
MAX_CHANGES = 5_000


@dataclass(slots=True)
class Verdict:
    """What a round has found, and has to be announced before pages with it are saved."""

    nodes: list[tuple[Part, pl.DataFrame]] = field(default_factory=list)
    zones: tuple[ZoneChange, ...] = ()

    def pack(self, bulk: Bulk, home: Part) -> None:
        """As records; zones' are `home`'s."""
        bulk.pack(home.partition, [zone_record(z, home.partition, home.table.applied) for z in self.zones])
        for part, changes in self.nodes:
            bulk.pack(part.partition, node_records(changes, part.partition, part.table.applied))


class NodeJudge:
    """Keeps what zones are like from round to round."""

    def __init__(self) -> None:
        self.zones: Mapping[Zone, ZoneState] = {}

    def round(self, parts: Collection[Part]) -> Verdict:
        """One round over the parts that may be judged, each at its own time."""
        counts = [part.table.zone_counts(part.now_ms) for part in parts]
        now_ms = max((part.now_ms for part in parts), default=0)
        step = zones.step(self.zones, pl.concat([ZONE_COUNTS.to_frame(), *counts]), now_ms)
        self.zones = step.zones
        limit = -(-MAX_CHANGES // max(1, len(parts)))
        found = [(part, part.table.judge(part.now_ms, step.outages, limit)) for part in parts]
        metrics.ZONE_OUTAGES.set(len(step.outages))
        for change in step.changes:
            metrics.ZONE_TRANSITIONS.labels(change.state).inc()
        for _, changes in found:
            for state, count in changes["state"].value_counts().iter_rows():
                metrics.NODE_TRANSITIONS.labels(state).inc(count)
        return Verdict([(part, changes) for part, changes in found if changes.height], step.changes)


def outages(known: Mapping[Zone, ZoneState]) -> dict[Zone, ZoneState]:
    """Those zones that are in an outage."""
    return {zone: state for zone, state in known.items() if state.state == OUTAGE}


def show_states(states: Mapping[str, int]) -> None:
    """How many nodes are in each state, for Prometheus."""
    for state in STATES:
        metrics.NODES.labels(state).set(states.get(state, 0))
