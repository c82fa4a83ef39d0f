"""The table of the nodes of one partition of `heartbeats`: fold, judge, write pages, come back from them.

Exact under replay: a node's row is a function of the log up to its own last offset, whatever the batches were, so rows
written at different offsets, by whichever owner, fit together. What depends on other nodes, the taking of new ones, is
decided once for each record, and how far that is stands in the commit.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.liveness.admission import MINUTE_MS, Admission, Limits
from streams.core.liveness.beats import Beats, read_beats
from streams.core.liveness.columns import NEWEST, NONE, PAGE_SCHEMA, NodeColumns, pages_of
from streams.core.liveness.pages import NEVER, PageLog, PageRows, Position, Snapshot
from streams.core.liveness.reads import FleetCounts, Node, NodeQuery, Reader
from streams.core.liveness.sequence import news
from streams.core.liveness.states import leaves_at_ms
from streams.core.liveness.texts import NOWHERE
from streams.core.liveness.zones import Zone

Longs = npt.NDArray[np.int64]
AnyTime = TypeVar("AnyTime", int, Longs)

SWEEP_MS = 3_600_000
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1
_COMPARED = ("boot_ts", "seq", "heartbeat_seq", "last_seen_ms", "interval_ms", "reported")


@dataclass(slots=True)
class Folded:
    """What became of a batch: each heartbeat behind `applied` is counted, ignored (not newer), refused or repeated."""

    heartbeats: int = 0
    refused: int = 0
    repeated: int = 0  # in the pages already, or of a node that left or was refused before a crash
    new_nodes: int = 0
    restarts: int = 0
    lost: int = 0
    left: int = 0
    ignored_at: list[int] = field(default_factory=list)  # offsets of those that were ignored

    @property
    def ignored(self) -> int:
        """How many were."""
        return len(self.ignored_at)


class NodeTable:
    """Not thread-safe; the caller runs one step at a time."""

    def __init__(self, limits: Limits, seed: int) -> None:
        """`seed` should be secret, see TextIndex."""
        self.applied = NEVER
        self.frontier_ms = 0
        self._decided = NEVER
        self._told_to_ms = 0
        self._admission = Admission(limits)
        self._columns = NodeColumns(seed)
        self._pages = PageLog()
        self._left: list[pl.Series] = []
        self._reader = Reader(self._columns)

    def bound(self, limits: Limits) -> None:
        """From the next fold on new nodes are taken by these; nodes that are known stay."""
        self._admission.limits = limits

    @property
    def decided_offset(self) -> int:
        """Until `applied` is there, a replay goes over what an earlier owner has counted."""
        return max(self.applied, self._decided)

    @property
    def nodes(self) -> int:
        """How many are known."""
        return self._columns.nodes

    def restore(self, rows: Iterable[pl.DataFrame], position: Position | None) -> None:
        """Fill an empty table from pages (PAGE_SCHEMA), of any owners and ages, and the position of the commit.

        Next comes the record of `position.resume_offset`. Without a position (the commit was set by another tool) all
        that the pages know is kept, and no record that they cover adds nodes.
        """
        found = pl.concat([pl.DataFrame(schema=PAGE_SCHEMA), *rows])
        if position is None:
            self._decided = int(found["last_offset"].to_numpy().max(initial=NEVER))
        else:
            self.applied, self.frontier_ms = position.resume_offset - 1, position.resume_frontier_ms
            self._decided = position.decided_offset
            # Nodes taken later were never committed: the replay brings them from their first record on.
            found = found.filter(pl.col("first_offset") <= position.decided_offset)
        if found["node_id"].n_unique() < found.height:
            found = found.sort("last_offset", "told_since_ms").unique("node_id", keep="last", maintain_order=True)
        leaves = leaves_at_ms(found["last_seen_ms"].to_numpy(), found["interval_ms"].to_numpy())
        found = found.filter(pl.Series(leaves > _swept_to(self.frontier_ms)))
        self._columns.load(found)
        self._told_to_ms = int(found["told_since_ms"].to_numpy().max(initial=0))
        self._pages.grow(self._columns.pages)
        limits = self._admission.limits
        if position is None:
            self._admission = Admission(limits, known=found.height)
        else:
            self._admission = Admission(
                limits, position.minute, position.new_in_minute, position.known, position.refused
            )

    def fold(self, beats: pl.DataFrame, through: int) -> Folded:
        """Count heartbeats in log order; `beats` as `read_beats` takes them.

        They are all that can be read behind `applied` up to offset `through`, which is applied then.
        """
        batch = read_beats(beats, self.applied, self.frontier_ms)
        folded = Folded()
        hours = _swept_to(batch.numbers["last_seen_ms"])
        cuts = np.flatnonzero(hours != _swept_to(batch.numbers["before_ms"])).tolist()
        for begin, end in pairwise(sorted({0, *cuts, len(batch)})):
            part = batch.slice(begin, end)
            if begin in cuts:
                folded.left += self._sweep(int(hours[begin]), int(part.numbers["offset"][0]))
            self._fold(part, folded)
            self.applied, self.frontier_ms = (int(part.numbers[name][-1]) for name in ("offset", "last_seen_ms"))
        self.applied = max(self.applied, through)
        return folded

    def snapshot(self, limit: int) -> Snapshot:
        """What to write now: all pages with new nodes, and the `limit` longest unwritten others that have changed."""
        taken = self._pages.take(limit)
        pages = tuple(map(PageRows, taken.tolist(), self._columns.page_frames(taken)))
        resume_offset, resume_frontier_ms = self._pages.resume() or (self.applied + 1, self.frontier_ms)
        rules = self._admission
        position = Position(
            resume_offset,
            resume_frontier_ms,
            self.decided_offset,
            rules.minute,
            rules.new_in_minute,
            rules.known,
            rules.refused,
        )
        return Snapshot(self._take_left(), pages, position, self._pages.settled())

    def _take_left(self) -> pl.Series:
        """Ids of nodes that have left since the last call, and have not come back."""
        left = pl.concat([pl.Series(dtype=pl.String), *self._left]) if self._left else pl.Series(dtype=pl.String)
        self._left.clear()
        return left.filter(pl.Series(self._columns.ids.find(left) == NOWHERE)) if len(left) else left

    def zone_counts(self, now_ms: int) -> pl.DataFrame:
        """What the outage guard wants to know of every zone, as ZONE_COUNTS."""
        return self._reader.zone_counts(now_ms)

    def judge(self, now_ms: int, held: Collection[Zone], limit: int) -> pl.DataFrame:
        """States that differ from the announced ones, as CHANGES; from here on they are the announced ones.

        At most `limit`: DOWN and GONE first, then those of known nodes; the others come with the next calls. None at a
        time before what an earlier owner announced: it would be taken back, and perhaps for good. In zones that are
        `held` nobody becomes LATE, SUSPECT or DOWN; who still is gets announced afterwards.
        """
        rows, slots = self._reader.changes(now_ms, held, limit if now_ms >= self._told_to_ms else 0)
        self._pages.mark(pages_of(slots), urgent=False)
        return rows

    def select(self, query: NodeQuery, now_ms: int) -> pl.Series:
        """Ids of nodes, ascending."""
        return self._reader.select(query, now_ms)

    def describe(self, ids: pl.Series, now_ms: int) -> list[Node]:
        """All that is known of some nodes, in this order; without those that are not known."""
        slots = self._columns.ids.find(ids)
        return self._reader.nodes(slots[slots != NOWHERE], now_ms)

    def counts(self, now_ms: int) -> FleetCounts:
        """The fleet at a glance."""
        return self._reader.counts(now_ms, self._admission.refused)

    def _fold(self, batch: Beats, folded: Folded) -> None:
        """A stretch without a sweep inside."""
        slots = self._columns.ids.find(batch.texts["node_id"])
        offsets = batch.numbers["offset"]
        undecided = np.flatnonzero((slots == NOWHERE) & (offsets > self._decided))
        if len(undecided):
            self._admit(batch, slots, undecided, folded)
        rows = np.flatnonzero(slots != NOWHERE)
        rows = rows[offsets[rows] > self._columns.numbers["last_offset"][slots[rows]]]
        self._pages.touch(pages_of(slots[rows]), offsets[rows], batch.numbers["before_ms"][rows])
        folded.repeated += len(batch) - len(rows)
        if len(rows):
            order = np.sort((slots[rows] << _ROW_BITS) | rows) & _ROW_MASK  # faster than a stable argsort
            self._count(batch, order, slots[order], folded)

    def _admit(self, batch: Beats, slots: Longs, rows: Longs, folded: Folded) -> None:
        """Decide on records of unknown nodes; fills in `slots`."""
        minutes = batch.numbers["last_seen_ms"][rows] // MINUTE_MS
        starts = np.flatnonzero(np.concatenate(([True], minutes[1:] != minutes[:-1])))
        taken = 0
        for begin, end in pairwise([*starts.tolist(), len(rows)]):
            asking = rows[begin:end]
            if taken:  # in an earlier minute of this batch
                slots[asking] = self._columns.ids.find(batch.texts["node_id"][asking])
                asking = asking[slots[asking] == NOWHERE]
            room = self._admission.room(int(minutes[begin]))
            if room and len(asking):
                taken += self._take(batch, asking, room)
                slots[asking] = self._columns.ids.find(batch.texts["node_id"][asking])
        refused = int((slots[rows] == NOWHERE).sum())
        folded.new_nodes += taken
        folded.refused += refused
        folded.repeated -= refused
        self._admission.refused += refused

    def _take(self, batch: Beats, rows: Longs, room: int) -> int:
        asking = pl.DataFrame({"node_id": batch.texts["node_id"][rows], "row": rows})
        new = asking.unique("node_id", keep="first", maintain_order=True).head(room)
        slots, first = self._columns.allocate(new["node_id"]), new["row"].to_numpy()
        self._columns.numbers["first_offset"][slots] = batch.numbers["offset"][first]
        self._columns.numbers["first_seen_ms"][slots] = batch.numbers["last_seen_ms"][first]
        self._pages.grow(self._columns.pages)
        self._pages.mark(pages_of(slots), urgent=True)
        self._admission.take(len(slots))
        return len(slots)

    def _count(self, batch: Beats, order: Longs, slots: Longs, folded: Folded) -> None:
        """Rows of `batch` in the given order: by slot, then in log order."""
        numbers = self._columns.numbers
        begins = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
        nodes = slots[begins]
        beats = {name: batch.numbers[name][order] for name in _COMPARED}
        fresh = news(beats, begins, {name: numbers[name][nodes] for name in _COMPARED})
        numbers["last_offset"][nodes] = batch.numbers["offset"][order[np.append(begins[1:], len(order)) - 1]]
        changed, newest = nodes[fresh.nodes], order[fresh.newest]
        self._columns.describe(changed, batch.texts, newest)
        for name in (*NEWEST, "last_seen_ms"):
            numbers[name][changed] = batch.numbers[name][newest]
        for name in ("heartbeats", "lost", "restarts"):
            numbers[name][changed] += getattr(fresh, name)
        returned = fresh.returned != NONE
        back, at = changed[returned], fresh.returned[returned]
        numbers["up_since_ms"][back] = beats["last_seen_ms"][at]
        numbers["up_reason"][back] = fresh.reasons[at]
        folded.heartbeats += int(fresh.heartbeats.sum())
        if not fresh.accepted.all():
            folded.ignored_at += batch.numbers["offset"][order[~fresh.accepted]].tolist()
        folded.restarts += int(fresh.restarts.sum())
        folded.lost += int(fresh.lost.sum())

    def _sweep(self, time_ms: int, offset: int) -> int:
        """Let go of nodes that should have left by `time_ms`, before the record at `offset` is looked at."""
        slots = self._columns.slots()
        numbers = self._columns.numbers
        leaving = slots[leaves_at_ms(numbers["last_seen_ms"][slots], numbers["interval_ms"][slots]) <= time_ms]
        if len(leaving):
            self._left.append(self._columns.remove(leaving))
            self._pages.mark(pages_of(leaving), urgent=False)
        if offset > self._decided:
            self._admission.known = self._columns.nodes
        return len(leaving)


def _swept_to(frontier_ms: AnyTime) -> AnyTime:
    """The time of the last sweep: there is one whenever the frontier enters a new hour."""
    return frontier_ms // SWEEP_MS * SWEEP_MS
