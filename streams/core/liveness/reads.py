"""The reading side of the node table: states at a time, lists, counts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.liveness.columns import NONE, NodeColumns
from streams.core.liveness.states import (
    DOWN,
    GONE,
    MISSED,
    REASONS,
    REPORTED,
    SAID_GOODBYE,
    STATES,
    SUSPECT,
    UNTOLD,
    UP,
    not_up,
)
from streams.core.liveness.zones import ZONE_COUNTS, Zone

Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

# A node that is DOWN for less counts as missing together with the others of its zone, announced or not.
JUST_DOWN_MS = 60_000

CHANGES = pl.Schema(
    {
        "node_id": pl.String(),
        "state": pl.String(),
        "previous": pl.String(),  # null for a new node
        "reason": pl.String(),
        "since_ms": pl.Int64(),
        "last_seen_ms": pl.Int64(),
        "region": pl.String(),
        "zone": pl.String(),
        "boot_ts": pl.Int64(),
        "interval_ms": pl.Int32(),
    }
)
_NO_CHANGES = pl.DataFrame(schema=CHANGES)
_STATES = pl.Series(STATES)
_REASONS = pl.Series(REASONS)


@dataclass(frozen=True, slots=True)
class Node:
    """All that is known of a node. `since_ms` is when its state began; skew is broker time less its own, at the newest.

    Times in ms on the broker's clock, but `boot_ts`, which is on the node's.
    """

    node_id: str
    region: str
    zone: str
    agent_version: str
    state: str
    since_ms: int
    reported: str
    interval_ms: int
    first_seen_ms: int
    last_seen_ms: int
    skew_ms: int
    boot_id: str
    boot_ts: int
    seq: int
    heartbeat_seq: int | None
    health: int | None
    cpu_permille: int | None
    memory_permille: int | None
    disk_permille: int | None
    spooled: int
    dropped: int
    heartbeats: int
    lost: int
    restarts: int
    last_offset: int


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """Which nodes: in a state, in a zone or region, with ids behind `after`; at most `limit`."""

    limit: int
    state: str | None = None
    zone: str | None = None
    region: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """`zones`: region, zone, and how many nodes in each of STATES (a column each); the sums are of nodes still known.

    `refused`: heartbeats of new nodes that were not taken.
    """

    zones: pl.DataFrame
    heartbeats: int
    lost: int
    restarts: int
    refused: int

    @property
    def states(self) -> dict[str, int]:
        """How many nodes are in each state."""
        return {state: int(self.zones[state].sum()) for state in STATES}


class Reader:
    """Looks at the columns of a table."""

    def __init__(self, columns: NodeColumns) -> None:
        self._columns = columns

    def changes(self, now_ms: int, held: Collection[Zone], limit: int) -> tuple[pl.DataFrame, Longs]:
        """At most `limit` states not yet announced, marked as announced, and whose they are."""
        columns = self._columns
        told, told_since = columns.view("told"), columns.view("told_since_ms")
        state, since = self._states(slice(columns.size), now_ms)
        changed = (state != told) | (since != told_since)
        if held:
            places = [columns.places.known(*zone) for zone in held]
            changed &= ~((state > UP) & (state < GONE) & np.isin(columns.place[: columns.size], places))
        slots = np.flatnonzero(changed)
        if not len(slots):
            return _NO_CHANGES, slots
        if len(slots) > limit:
            urgency = np.where(state[slots] >= DOWN, 0, np.where(told[slots] != UNTOLD, 1, 2))
            slots = slots[np.argsort(urgency, kind="stable")[:limit]]
        rows = self._changes(slots, state[slots], since[slots])
        told[slots], told_since[slots] = state[slots], since[slots]
        return rows, slots

    def zone_counts(self, now_ms: int) -> pl.DataFrame:
        """As ZONE_COUNTS."""
        columns = self._columns
        places = columns.place[: columns.size]
        slots, state, since = self._not_up(slice(columns.size), now_ms)
        down = state == DOWN
        just_down = down & ((columns.numbers["told"][slots] != DOWN) | (now_ms - since < JUST_DOWN_MS))
        unexpected = (state == GONE) | (down & ~just_down)
        missing = self._by_place(slots[(state == SUSPECT) | just_down])
        expected = self._by_place(slice(columns.size)) - self._by_place(slots[unexpected])
        last_seen = np.zeros(len(columns.places), np.int64)
        np.maximum.at(last_seen, places, columns.view("last_seen_ms"))
        counts = {"expected": expected, "missing": missing, "last_seen_ms": last_seen}
        return self._by_zone(counts).select(ZONE_COUNTS.names())

    def counts(self, now_ms: int, refused: int) -> FleetCounts:
        """By zone and state."""
        columns = self._columns
        slots, state, _ = self._not_up(slice(columns.size), now_ms)
        states = {name: self._by_place(slots[state == code]) for code, name in enumerate(STATES)}
        states["UP"] = self._by_place(slice(columns.size)) - sum(states.values())
        sums = {name: int(columns.view(name).sum()) for name in ("heartbeats", "lost", "restarts")}
        return FleetCounts(self._by_zone(states).sort("region", "zone"), refused=refused, **sums)

    def select(self, query: NodeQuery, now_ms: int) -> pl.Series:
        """Ids in ascending order."""
        columns = self._columns
        wanted = columns.used[: columns.size].copy()
        if query.state is not None:
            wanted &= self._states(slice(columns.size), now_ms)[0] == STATES.index(query.state)
        if query.zone is not None or query.region is not None:
            zones = columns.places.all()
            asked = {name: text for name in ("region", "zone") if (text := getattr(query, name)) is not None}
            places = zones.select(pl.all_horizontal(pl.col(name) == text for name, text in asked.items()))
            wanted &= places.to_series().to_numpy()[columns.place[: columns.size]]
        ids = columns.ids.texts.at(np.flatnonzero(wanted))
        if query.after is not None:
            ids = ids.filter(ids > query.after)
        return ids.bottom_k(query.limit).sort()

    def nodes(self, slots: Longs, now_ms: int) -> list[Node]:
        """All that is known of some nodes."""
        state, since = (column.tolist() for column in self._states(slots, now_ms))
        rows = self._columns.frame(slots).rows(named=True)
        return [_node(row, STATES[code], since_ms) for row, code, since_ms in zip(rows, state, since, strict=True)]

    def _not_up(self, slots: Longs | slice, now_ms: int) -> tuple[Longs, Bytes, Longs]:
        """Which of some slots, and what they are since when."""
        last_seen, interval, reported = (
            self._columns.numbers[name][slots] for name in ("last_seen_ms", "interval_ms", "reported")
        )
        return not_up(last_seen, interval, reported, now_ms)

    def _states(self, slots: Longs | slice, now_ms: int) -> tuple[Bytes, Longs]:
        """What some slots are and since when."""
        rows, known, known_since = self._not_up(slots, now_ms)
        since = self._columns.numbers["up_since_ms"][slots].copy()
        state = np.zeros(len(since), np.int8)
        state[rows], since[rows] = known, known_since
        return state, since

    def _by_place(self, slots: Longs | slice) -> Longs:
        """How many of some slots are in each place; free ones are in none."""
        counts = np.bincount(self._columns.place[slots], minlength=len(self._columns.places))
        counts[0] = 0
        return counts

    def _by_zone(self, columns: Mapping[str, Longs]) -> pl.DataFrame:
        """Numbers by place as rows with region and zone, of places that have nodes."""
        places = self._columns.places.all()
        used = np.flatnonzero(self._by_place(slice(self._columns.size)))
        begin, end = (used[0], used[-1] + 1) if len(used) else (0, 0)
        rows = pl.DataFrame(
            [*places[begin:end], *(pl.Series(name, column[begin:end]) for name, column in columns.items())]
        )
        return rows if len(used) == end - begin else rows[used - begin]

    def _changes(self, slots: Longs, state: Bytes, since: Longs) -> pl.DataFrame:
        columns = self._columns
        told, up_reason = columns.numbers["told"][slots], columns.numbers["up_reason"][slots]
        rows = columns.places.at(columns.place[slots]).with_columns(
            columns.ids.texts.at(slots).rename("node_id"),
            *(pl.Series(name, columns.numbers[name][slots]) for name in ("last_seen_ms", "boot_ts", "interval_ms")),
            state=_STATES[state],
            previous=_STATES[np.maximum(told, UP)],
            reason=_REASONS[np.where(state == UP, up_reason, np.where(state == GONE, SAID_GOODBYE, MISSED))],
            since_ms=since,
        )
        previous = pl.when(pl.Series(told != UNTOLD)).then("previous")
        return rows.with_columns(previous=previous).select(CHANGES.names())


def _node(row: dict[str, Any], state: str, since_ms: int) -> Node:
    known = {name: row[name] for name in Node.__slots__ if name in row}
    optional = ("heartbeat_seq", "health", "cpu_permille", "memory_permille", "disk_permille")
    known |= {name: None for name in optional if row[name] == NONE}
    known["reported"] = REPORTED[row["reported"]]
    return Node(state=state, since_ms=since_ms, skew_ms=row["last_seen_ms"] - row["ts"], **known)
