"""The fleet's state and its step: what all nodes say between two moments. Pure: a seed and times in, rows out."""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agents.simulate import outcomes
from agents.simulate.counts import Counters
from agents.simulate.held import Held, HeldCounts
from agents.simulate.nodes import standing_in
from agents.simulate.rows import (
    BOOT,
    COUNT,
    GOODBYE,
    HEARTBEAT,
    OK,
    RESULT,
    UP,
    Chunk,
    Counted,
    Flags,
    Ints,
    Rows,
)
from agents.simulate.script import Fault, Incident, NodeFault, Script, weather

MAX_STEP_MS = 1_000
CHUNK_EVENTS = 40_960
_NEVER_MS = 1 << 62
_INDEX_BITS = 22
_TIME_BITS = 10
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a fleet and how busy; `results_per_s` counts probe results of the whole fleet in event time."""

    nodes: int
    results_per_s: float
    heartbeat_interval_ms: int
    script: Script

    @property
    def probes_per_s(self) -> float:
        """Heartbeats and probe results."""
        return self.results_per_s + self.nodes * 1_000 / self.heartbeat_interval_ms


class Fleet:
    """All nodes of a plan; the same plan, seed, start and calls of `step` give the same events.

    Nodes are numbered from 0 and stand where `nodes.standing_in` puts them. `now_ms` is event time since the start.
    """

    def __init__(self, plan: Plan, seed: int, start_ms: int) -> None:
        self.plan = plan
        self.start_ms = start_ms
        self.now_ms = 0
        self.drawn = 0
        self._rng = np.random.Generator(np.random.SFC64(seed))
        count = plan.nodes
        self._region = np.arange(count) % len(plan.script.regions)
        self._place = standing_in(plan.script, count)
        self._targets = len(plan.script.series) // len(plan.script.regions)
        self._up = np.ones(count, bool)
        self._cut_until_ms = np.zeros(count, np.int64)
        self._spooled = np.zeros(count, np.int64)
        self._next_seq = np.zeros(count, np.int64)
        self._next_heartbeat_seq = np.zeros(count, np.int64)
        self._next_heartbeat_ms = self._rng.integers(0, plan.heartbeat_interval_ms, count)
        self._load_permille = self._rng.integers(50, 900, (3, count))
        self._boot = np.zeros(count, np.int64)
        self._boots = 0
        self._new_boots: list[Rows] = []
        self._returns: list[tuple[int, int, Fault, Ints]] = []
        self._strikes = 0
        self._held_heartbeats = Held(HEARTBEAT)
        self._held_results = Held(RESULT)
        self._held_counts = HeldCounts()
        self._counters = Counters(plan.script, count, seed, start_ms)
        self._incidents: tuple[Incident, ...] = ()
        self._weather = weather(plan.script, ())
        self._start_boots(np.arange(count))

    @property
    def nodes_up(self) -> int:
        """How many nodes are running, cut off or not."""
        return int(self._up.sum())

    @property
    def nodes_cut_off(self) -> int:
        """How many nodes spool because nothing reaches Kafka."""
        return int((self._cut_until_ms > self.now_ms).sum())

    @property
    def held(self) -> int:
        """Events that exist but were not yet given out."""
        return self._held_heartbeats.rows + self._held_results.rows + self._held_counts.rows

    @property
    def counts_per_s(self) -> float:
        """Request counts of the whole fleet a second of event time, while all nodes are up."""
        return self._counters.records_per_s

    def step(self, until_ms: int, limit: int | None = None) -> Chunk:
        """Everything due in Kafka from `now_ms` to the end of the step; moves `now_ms` there.

        The step ends at `until_ms`, or earlier: where the script acts next, after MAX_STEP_MS, or at about
        CHUNK_EVENTS events. At most `limit` events are drawn. Raises TooMuchHeldError.
        """
        self._bring_back()
        heartbeats = [self._strike(fault) for fault in self.plan.script.faults_at(self.now_ms)]
        self._look_at_the_weather()
        end_ms = self._end_ms(until_ms)
        heartbeats += self._due_heartbeats(end_ms)
        said = np.concatenate([np.empty(0, HEARTBEAT), *heartbeats])[:limit]
        counted = self._counters.due(self.now_ms, end_ms, self._up, self._weather)
        if limit is not None:
            counted = counted.where(np.arange(len(counted.rows)) < limit - len(said))
        own = len(said) + len(counted.rows)
        results = self._draw_results(end_ms, None if limit is None else limit - own)
        self._number(said, results, counted.rows)
        self.drawn += own + len(results)
        chunk = self._give_out(said, results, counted, end_ms)
        self.now_ms = end_ms
        return chunk

    def drain(self) -> Chunk:
        """Everything still held back, whatever it waits for: the last chunk of a run."""
        return Chunk(
            np.concatenate(self._held_heartbeats.release(_NEVER_MS + 1)),
            np.concatenate(self._held_results.release(_NEVER_MS + 1)),
            self._take_boots(),
            Counted.joined(self._held_counts.release(_NEVER_MS + 1)),
        )

    def _look_at_the_weather(self) -> None:
        incidents = self.plan.script.incidents_at(self.now_ms)
        if incidents != self._incidents:
            self._incidents = incidents
            self._weather = weather(self.plan.script, incidents)

    def _end_ms(self, until_ms: int) -> int:
        per_ms = (self.plan.probes_per_s + self.counts_per_s) / 1_000
        step_ms = max(1, min(MAX_STEP_MS, int(CHUNK_EVENTS / per_ms))) if per_ms else MAX_STEP_MS
        ends = [until_ms, self.now_ms + step_ms]
        change_ms = self.plan.script.next_change_ms(self.now_ms)
        if change_ms is not None:
            ends.append(change_ms)
        if self._returns:
            ends.append(self._returns[0][0])
        return min(ends)

    # Nodes fail and come back.

    def _strike(self, fault: NodeFault) -> Rows:
        """Lets the fault hit healthy nodes; the rows are goodbyes."""
        addressed = np.isin(self._place, self.plan.script.places_of(fault))
        candidates = np.flatnonzero(addressed & self._up & (self._cut_until_ms <= self.now_ms))
        wanted = round(fault.share * int(addressed.sum())) if fault.count is None else fault.count
        hit = np.sort(self._rng.choice(candidates, min(wanted, len(candidates)), replace=False))
        speaking = hit if fault.fault is Fault.GOODBYE else hit[:0]
        goodbyes = self._heartbeats(speaking, np.full(len(speaking), self.now_ms), GOODBYE)
        back_ms = _NEVER_MS if fault.back_after_ms is None else self.now_ms + fault.back_after_ms
        if fault.fault is Fault.CUT_OFF:
            self._cut_until_ms[hit] = back_ms
        else:
            self._up[hit] = False
        if back_ms != _NEVER_MS:
            self._strikes += 1  # breaks ties in the heap
            heapq.heappush(self._returns, (max(back_ms, self.now_ms + 1), self._strikes, fault.fault, hit))
        return goodbyes

    def _bring_back(self) -> None:
        """Restarts the nodes that are due; one that was cut off goes on as it was."""
        while self._returns and self._returns[0][0] <= self.now_ms:
            _, _, fault, nodes = heapq.heappop(self._returns)
            if fault is Fault.CUT_OFF:
                self._spooled[nodes] = 0
            else:
                self._up[nodes] = True
                self._start_boots(nodes)
                self._next_heartbeat_ms[nodes] = self.now_ms

    def _start_boots(self, nodes: Ints) -> None:
        boots = np.empty(len(nodes), BOOT)
        boots["boot_ts"] = self.start_ms + self.now_ms
        boots["node"] = nodes
        boots["boot_id"] = _hex_ids(self._rng.integers(0, 256, (len(nodes), 8), dtype=np.uint8))
        self._new_boots.append(boots)
        self._boot[nodes] = self._boots + np.arange(len(nodes))
        self._boots += len(nodes)
        self._next_seq[nodes] = 0
        self._next_heartbeat_seq[nodes] = 0

    def _take_boots(self) -> Rows:
        boots = np.concatenate([np.empty(0, BOOT), *self._new_boots])
        self._new_boots = []
        return boots

    # Nodes speak.

    def _due_heartbeats(self, end_ms: int) -> list[Rows]:
        interval_ms = self.plan.heartbeat_interval_ms
        jitter_ms = interval_ms // 20
        said = []
        while len(nodes := np.flatnonzero(self._up & (self._next_heartbeat_ms < end_ms))):
            # A node that was down, or a step cut short, must not put a heartbeat before the step.
            at_ms = np.maximum(self._next_heartbeat_ms[nodes], self.now_ms)
            said.append(self._heartbeats(nodes, at_ms, UP))
            self._next_heartbeat_ms[nodes] = (
                at_ms + interval_ms + self._rng.integers(-jitter_ms, jitter_ms + 1, len(nodes))
            )
        return said

    def _heartbeats(self, nodes: Ints, at_ms: Ints, state: int) -> Rows:
        rows = np.zeros(len(nodes), HEARTBEAT)
        rows["ts_ms"] = self.start_ms + at_ms
        rows["node"] = nodes
        rows["state"] = state
        # Asked for each node in the order of time, and never twice for one node in one call.
        rows["heartbeat_seq"] = self._next_heartbeat_seq[nodes]
        self._next_heartbeat_seq[nodes] += 1
        rows["spooled"] = self._spooled[nodes]
        rows["health"] = self._rng.integers(80, 101, len(nodes))
        noise = self._rng.integers(-40, 41, (3, len(nodes)))
        for column, base, drift in zip(("cpu", "memory", "disk"), self._load_permille, noise, strict=True):
            rows[f"{column}_permille"] = base[nodes] + drift
        return rows

    def _draw_results(self, end_ms: int, limit: int | None) -> Rows:
        rate = self.plan.results_per_s
        up = np.flatnonzero(self._up)
        count = int(end_ms * rate / 1_000) - int(self.now_ms * rate / 1_000) if len(up) else 0
        count = count if limit is None else min(count, limit)
        rng = self._rng
        rows = np.zeros(count, RESULT)
        nodes = up[rng.integers(0, len(up), count)] if count else up[:0]
        series = rng.integers(0, self._targets, count) * len(self.plan.script.regions) + self._region[nodes]
        rows["ts_ms"] = self.start_ms + rng.integers(self.now_ms, end_ms, count)
        rows["node"] = nodes
        rows["series"] = series
        self._draw_outcomes(rows, series)
        return rows

    def _draw_outcomes(self, rows: Rows, series: Ints) -> None:
        rows["latency_us"], outcome = outcomes.draw(self._rng, self._weather, series)
        rows["outcome"] = outcome
        rows["success"] = outcome == OK

    def _number(self, *of_topics: Rows) -> None:
        """Gives each row its boot and its sequence number: per node in the order of time, over all topics."""
        nodes = np.concatenate([rows["node"] for rows in of_topics]).astype(np.int64)
        if not len(nodes):
            return
        # A count is said when its window is over.
        over = [rows["ts_ms"] + (rows["window_ms"] if rows.dtype == COUNT else 0) for rows in of_topics]
        times = np.concatenate(over) - self.start_ms - self.now_ms
        # One sort of unique integers: node, then time, then place.
        place = np.arange(len(nodes))
        keys = (nodes << (_TIME_BITS + _INDEX_BITS)) | (times << _INDEX_BITS) | place
        order = np.sort(keys) & ((1 << _INDEX_BITS) - 1)
        ordered = nodes[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        counts = np.diff(np.append(first, len(ordered)))
        seq = np.empty(len(nodes), np.int64)
        seq[order] = self._next_seq[ordered] + place - np.repeat(first, counts)
        self._next_seq[ordered[first]] += counts
        for rows, end in zip(of_topics, np.cumsum([len(rows) for rows in of_topics]).tolist(), strict=True):
            rows["seq"] = seq[end - len(rows) : end]
            rows["boot"] = self._boot[rows["node"]]

    # What nodes said leaves at once, late, or from the spool.

    def _give_out(self, heartbeats: Rows, results: Rows, counted: Counted, end_ms: int) -> Chunk:
        heartbeats = self._hold_cut_off(heartbeats, self._held_heartbeats)
        results = self._hold_late(self._hold_cut_off(results, self._held_results))
        counted = self._hold_counts_cut_off(counted)
        return Chunk(
            np.concatenate([*self._held_heartbeats.release(end_ms), heartbeats]),
            np.concatenate([*self._held_results.release(end_ms), results]),
            self._take_boots(),
            Counted.joined([*self._held_counts.release(end_ms), counted]),
        )

    def _hold_cut_off(self, rows: Rows, held: Held) -> Rows:
        until_ms = self._cut_until_ms[rows["node"]]
        cut: Flags = until_ms > self.now_ms
        if not cut.any():
            return rows
        held.hold_spooled(rows[cut], until_ms[cut])
        np.add.at(self._spooled, rows["node"][cut], 1)
        return rows[~cut]

    def _hold_counts_cut_off(self, counted: Counted) -> Counted:
        until_ms = self._cut_until_ms[counted.rows["node"]]
        cut: Flags = until_ms > self.now_ms
        if not cut.any():
            return counted
        self._held_counts.hold_spooled(counted.where(cut), until_ms[cut])
        np.add.at(self._spooled, counted.rows["node"][cut], 1)
        return counted.where(~cut)

    def _hold_late(self, rows: Rows) -> Rows:
        late = self.plan.script.late
        if late is None:
            return rows
        hit = self._rng.random(len(rows)) < late.share
        waits_ms = self._rng.integers(late.min_ms, late.max_ms + 1, int(hit.sum()))
        self._held_results.hold_late(rows[hit], rows["ts_ms"][hit] - self.start_ms + waits_ms)
        return rows[~hit]


def _hex_ids(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """16 hex digits for each row of 8 bytes."""
    digits = np.stack([_HEX[raw >> 4], _HEX[raw & 15]], axis=2).reshape(len(raw), 16)
    return np.ascontiguousarray(digits).view("S16").ravel()
