"""Logs of heartbeats, what they add up to record by record, and a world in which owners of the table crash."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from random import Random

import polars as pl

from streams.core.liveness.admission import Limits
from streams.core.liveness.pages import BEGINNING, Position, Snapshot
from streams.core.liveness.reads import Node, NodeQuery
from streams.core.liveness.table import Folded, NodeTable

START_MS = 1_763_000_000_000
HOUR_MS, WEEK_MS = 3_600_000, 7 * 86_400_000
COUNTED = ("boot_ts", "seq", "heartbeat_seq", "heartbeats", "lost", "restarts")
# No owner folds further than this ahead of the last commit, so that at most one sweep is not committed.
COMMIT_WITHIN_MS = HOUR_MS // 2


@dataclass(frozen=True, slots=True)
class Beat:
    """One record; `offset` is its place in the log."""

    node_id: str
    append_ms: int = START_MS
    boot_ts: int = 1
    seq: int = 0
    heartbeat_seq: int | None = 0
    state: str = "UP"
    interval_ms: int = 5_000
    region: str = "eu"
    zone: str = "eu-a"


def frame(log: Iterable[tuple[int, Beat]]) -> pl.DataFrame:
    """Beats by offset as `NodeTable.fold` takes them."""
    rows = [
        {
            "offset": offset,
            **asdict(beat),
            "ts": beat.append_ms - 7,
            "boot_id": f"boot-{beat.boot_ts}-of-{beat.node_id}",
            "agent_version": "1",
            **dict.fromkeys(("health", "cpu_permille", "memory_permille", "disk_permille", "spooled", "dropped"), 5),
        }
        for offset, beat in log
    ]
    ints = ("interval_ms", "health", "cpu_permille", "memory_permille", "disk_permille")
    kinds = {"heartbeat_seq": pl.Int64, **dict.fromkeys(ints, pl.Int32)}
    columns = ("offset", *Beat.__slots__, "ts", "boot_id", "agent_version", *ints[1:], "spooled", "dropped")
    return pl.DataFrame(rows, schema_overrides=kinds) if rows else frame([(0, Beat("x"))]).clear().select(columns)


def fold(table: NodeTable, beats: Iterable[Beat], first: int = 0) -> Folded:
    """Fold beats that stand in the log from offset `first` on."""
    log = list(enumerate(beats, first))
    return table.fold(frame(log), log[-1][0])


@dataclass(slots=True)
class Known:
    """A node as the offline count has it."""

    region: str
    zone: str
    boot_ts: int
    seq: int
    heartbeat_seq: int | None
    last_seen_ms: int
    interval_ms: int
    first_offset: int
    last_offset: int
    state: str
    heartbeats: int = 0
    lost: int = 0
    restarts: int = 0


@dataclass(slots=True)
class Count:
    """The offline count: one record after the other, in plain Python."""

    limits: Limits
    nodes: dict[str, Known] = field(default_factory=dict)
    refused: int = 0
    frontier_ms: int = 0
    new: dict[int, int] = field(default_factory=dict)

    def add(self, offset: int, beat: Beat) -> None:
        """Count the next record."""
        at = max(self.frontier_ms, beat.append_ms)
        hour = at // HOUR_MS
        if hour > self.frontier_ms // HOUR_MS:
            stays = hour * HOUR_MS - WEEK_MS - 1_000
            self.nodes = {key: n for key, n in self.nodes.items() if n.last_seen_ms + 3 * n.interval_ms > stays}
        self.frontier_ms = at
        node = self.nodes.get(beat.node_id)
        if node is None:
            minute = at // 60_000
            if len(self.nodes) >= self.limits.max_nodes or self.new.get(minute, 0) >= self.limits.new_per_minute:
                self.refused += 1
                return
            self.new[minute] = self.new.get(minute, 0) + 1
            node = self.nodes[beat.node_id] = _new(offset, at, beat)
        elif beat.boot_ts > node.boot_ts:
            node.restarts += 1
            node.lost += beat.heartbeat_seq or 0
        elif beat.boot_ts == node.boot_ts and beat.seq > node.seq:
            if beat.heartbeat_seq is not None and node.heartbeat_seq is not None:
                node.lost += max(0, beat.heartbeat_seq - node.heartbeat_seq - 1)
        else:
            node.last_offset = offset
            return
        node.heartbeats += 1
        node.region, node.zone, node.interval_ms, node.state = beat.region, beat.zone, beat.interval_ms, beat.state
        node.boot_ts, node.seq, node.heartbeat_seq = beat.boot_ts, beat.seq, beat.heartbeat_seq
        node.last_seen_ms, node.last_offset = at, offset


def _new(offset: int, at: int, beat: Beat) -> Known:
    order = (beat.boot_ts, beat.seq, beat.heartbeat_seq)
    return Known(beat.region, beat.zone, *order, at, beat.interval_ms, offset, offset, beat.state)


def draw_log(rng: Random, length: int, ids: int) -> list[Beat]:
    """Nodes that beat, skip, repeat, restart, say goodbye, fall silent for a week and come back."""
    at, log = START_MS, list[Beat]()
    last: dict[str, Beat] = {}
    for _ in range(length):
        at += rng.choice((0, 0, 100, 2_000, 9_000, 20_000, -3_000))
        if rng.random() < 0.03:
            at += rng.choice((HOUR_MS // 3, 2 * HOUR_MS, WEEK_MS - HOUR_MS, WEEK_MS + HOUR_MS))
        name = f"node-{min(rng.randrange(ids), rng.randrange(ids))}"
        known = last.get(name)
        beat = Beat(name, at, rng.randrange(1, 4), rng.randrange(3), rng.choice((0, 1, None)))
        if known is not None and rng.random() < 0.8:
            missed = rng.choice((0, 0, 0, 1, 5))
            number = None if known.heartbeat_seq is None else known.heartbeat_seq + 1 + missed
            seq = known.seq + 1 + missed + rng.randrange(2)
            if rng.random() < 0.1:
                number = rng.choice((None, 3))
            beat = Beat(name, at, known.boot_ts, seq, number, rng.choice(("UP", "UP", "DRAINING", "GOODBYE")))
            beat = _moved(beat, rng) if rng.random() < 0.1 else beat
        if known is None or (beat.boot_ts, beat.seq) > (known.boot_ts, known.seq):
            last[name] = beat
        log.append(beat)
    return log


def _moved(beat: Beat, rng: Random) -> Beat:
    order = (beat.boot_ts, beat.seq, beat.heartbeat_seq)
    where = (rng.choice(("eu", "us")), rng.choice(("a", "b")))
    return Beat(beat.node_id, beat.append_ms, *order, beat.state, rng.choice((1_000, 5_000, 60_000)), *where)


@dataclass(slots=True)
class Owner:
    """A worker that has, or believes to have, the partition."""

    name: int
    table: NodeTable
    older: frozenset[tuple[int, int]]
    pending: Snapshot | None = None


class World:
    """A log, the pages topic, the commit, and owners one after the other."""

    table_class = NodeTable

    def __init__(self, log: list[Beat], limits: Limits, rng: Random) -> None:
        self.log, self.limits, self.rng = log, limits, rng
        self.pages: dict[tuple[int, int], pl.DataFrame] = {}
        self.commit = ""
        self.announced: dict[str, tuple[object, ...]] = {}  # what consumers of node-states have heard last
        self.times = _frontiers(log)
        self.owner = self.takes_over(0)
        self.zombies: list[Owner] = []

    def takes_over(self, name: int) -> Owner:
        """A new owner, from what is written and committed."""
        table = self.table_class(self.limits, seed=self.rng.randrange(1 << 60))
        table.restore(self.pages.values(), Position.parse(self.commit) if self.commit else BEGINNING)
        return Owner(name, table, frozenset(self.pages))

    def crash(self, *, lives_on: bool) -> None:
        """The owner is replaced; when it lives on it does not know."""
        if lives_on:
            self.zombies = [self.owner]
        self.owner = self.takes_over(self.owner.name + 1)

    def read(self, owner: Owner, records: int) -> None:
        """Fold some more, with an overlap, and as far as the last commit allows."""
        position = Position.parse(self.commit)
        committed = position.decided_offset if position else -1
        begin = owner.table.applied + 1
        end = begin
        while end < min(begin + records, len(self.log)) and self._allowed(end, committed):
            end += 1
        again = range(max(0, begin - self.rng.randrange(4)), begin)
        if end > begin:
            log = [(offset, self.log[offset]) for offset in [*range(begin, end), *again, *range(begin, end)]]
            owner.table.fold(frame(log if self.rng.random() < 0.3 else log[: end - begin]), end - 1)
        if owner is self.owner and owner.table.applied >= owner.table.decided_offset and self.rng.random() < 0.5:
            unread = self.times[owner.table.applied + 1 :][:1]
            self.judge(self.rng.randint(0, min([20_000, *(at - owner.table.frontier_ms for at in unread)])), 4)

    def judge(self, after_ms: int, limit: int) -> None:
        """Announce what differs, some time after the last record."""
        changes = self.owner.table.judge(self.owner.table.frontier_ms + after_ms, (), limit)
        self.announced |= {row[0]: row[1:] for row in changes.select("node_id", "state", "since_ms").rows()}

    def nodes(self, after_ms: int) -> list[Node]:
        """Every node, some time after the last record."""
        table = self.owner.table
        now_ms = table.frontier_ms + after_ms
        return table.describe(table.select(NodeQuery(len(self.log)), now_ms), now_ms)

    def begin_save(self, owner: Owner) -> None:
        """Snapshot and tombstones; records may be folded before its pages are written."""
        if owner.pending is None:
            owner.pending = owner.table.snapshot(self.rng.randrange(3))
            # A zombie's seconds are too short for a node to come back in them.
            back = self.owner.table.describe(owner.pending.left, self.owner.table.frontier_ms)
            seen = {node.node_id: node.last_seen_ms for node in back}
            for node_id in owner.pending.left:
                if seen.get(node_id, 0) < owner.table.frontier_ms - WEEK_MS:
                    self.announced.pop(node_id, None)

    def end_save(self, owner: Owner, *, commits: bool) -> None:
        """Write the pages of the last snapshot; only the true owner can commit, and not if it dies halfway."""
        snapshot, owner.pending = owner.pending, None
        if snapshot is None:
            return
        pages = self.rng.sample(snapshot.pages, len(snapshot.pages))
        if not commits:
            pages = pages[: self.rng.randint(0, len(pages))]
        for page in pages:
            self.pages[owner.name, page.page] = page.rows
        if commits:
            self.commit = snapshot.position.text()
            if snapshot.settled:
                for key in owner.older:
                    self.pages.pop(key, None)

    def run(self) -> None:
        """Everything at random, to the end of the log."""
        while self.owner.table.applied < len(self.log) - 1:
            before = self.owner.table.applied
            self._something()
            if self.owner.table.applied == before:  # perhaps it waits for a commit
                self.begin_save(self.owner)
                self.end_save(self.owner, commits=True)
                self.read(self.owner, 1)

    def _something(self) -> None:
        action = self.rng.random()
        if action < 0.5:
            self.read(self.owner, self.rng.choice((1, 3, 10, 40)))
        elif action < 0.65:
            self.begin_save(self.owner)
        elif action < 0.85:
            self.end_save(self.owner, commits=True)
        elif action < 0.92:
            if self.rng.random() < 0.5:
                self.begin_save(self.owner)
            self.end_save(self.owner, commits=False)  # dies while writing
            self.crash(lives_on=self.rng.random() < 0.4)
        for zombie in self.zombies:
            if self.rng.random() < 0.2:
                self.read(zombie, 5)
                self.begin_save(zombie)
                self.end_save(zombie, commits=False)

    def _allowed(self, offset: int, committed: int) -> bool:
        """Whether the record may be folded: it is committed, the next one, or soon behind."""
        since = self.times[committed] if committed >= 0 else 0
        return offset <= committed + 1 or self.times[offset] - since < COMMIT_WITHIN_MS


def _frontiers(log: list[Beat]) -> list[int]:
    times, at = list[int](), 0
    for beat in log:
        at = max(at, beat.append_ms)
        times.append(at)
    return times


def rows_of(table: NodeTable) -> dict[str, dict[str, object]]:
    """Every row of a table by node, without what was announced."""
    slots = table._columns.slots()
    rows = table._columns.frame(slots).drop("told", "told_since_ms").rows(named=True)
    return {str(row["node_id"]): row for row in rows}
