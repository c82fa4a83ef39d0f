"""Worlds whose objectives change: sets in a log of their own, and counters that know it up to different places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from streams.core.objectives import Objective
from streams.core.rollup import Flush
from streams.core.versions import Announcement, Timeline
from streams.processors.rollup import owner_key
from tests.unit.exactness import PROMISES, Log, Promise, Rows, difference, frontier_of, recompute
from tests.unit.exactness_parts import Counter, Poll, objective_of, rows_of
from tests.unit.exactness_world import RandomWorld, World

LEAD_MS = 30_000
# Whoever counts a record knows all sets that were appended until so long before it: the lead, less how far events may
# be ahead.
KNOWN_BEFORE_MS = 25_000


@dataclass(frozen=True, slots=True)
class Said:
    """A record of the topic `objectives`; its offset is its place."""

    append_ms: int
    asked_ms: int
    promises: tuple[Promise, ...]


def promises_at(said: Sequence[Said], second: int) -> tuple[Promise, ...]:
    """The rule in plain words: of all sets that have started, the last one; the first has always been there."""
    started = [
        each.promises
        for place, each in enumerate(said)
        if place == 0 or -(-max(each.append_ms + LEAD_MS, each.asked_ms) // 1_000) <= second
    ]
    return started[-1]


def objectives_of(promises: Iterable[Promise]) -> tuple[Objective, ...]:
    return tuple(objective_of(promise) for promise in promises)


def timeline_of(said: Sequence[Said], until_ms: int) -> Timeline:
    """What is known to somebody who has read all that was appended until then."""
    return Timeline(
        Announcement(offset, each.append_ms, each.asked_ms, objectives_of(each.promises))
        for offset, each in enumerate(said)
        if offset == 0 or each.append_ms <= until_ms
    )


class KnowingCounter(Counter):
    """Counts by the sets that it knows; what it has read once stays known."""

    world: "VersionedWorld"
    until_ms = 0

    def count(self, log: Log, polls: Sequence[Poll]) -> Flush:
        newest_ms = max(log[p][offset].append_ms for p, begin, end in polls for offset in range(begin, end))
        self.until_ms = max(self.until_ms, newest_ms - self.world.lag_ms())
        self.judge.follow(self.world.timeline(self.until_ms))
        return super().count(log, polls)


class VersionedWorld(World):
    """What a subclass overrides takes out one rule."""

    said: list[Said]

    def lag_ms(self) -> int:
        """How long before the newest record that is counted the sets are known."""
        return KNOWN_BEFORE_MS

    def timeline(self, until_ms: int) -> Timeline:
        """What a counter judges by."""
        return timeline_of(self.said, until_ms)

    def new_counter(self, mine: Iterable[int]) -> Counter:
        counter = KnowingCounter(self.rollup, self.commits, mine)
        counter.world = self
        return counter

    def target_of(self, series: str) -> int:
        return super().target_of(owner_key(series).decode())

    def differs(self) -> str:
        found: Rows = {}
        for owner in self.owners:
            for table in owner.tables.values():
                found |= rows_of(table, owner.index, frontier_of(self.log))
        return difference(recompute(self.log, lambda second: promises_at(self.said, second)), found)


class ScriptedWorld(VersionedWorld):
    """One log and its sets."""

    def __init__(self, log: Log, said: list[Said]) -> None:
        self.said = said
        super().__init__(log)


class RandomVersionedWorld(VersionedWorld, RandomWorld):
    """Everything that may happen, with some sets drawn over the time of the log."""

    def __init__(self, log: Log, rng: Random) -> None:
        self.said = draw_sets(rng, log)
        self._lag_rng = Random(rng.random())
        super().__init__(log, rng)

    def lag_ms(self) -> int:
        return self._lag_rng.choice((KNOWN_BEFORE_MS, KNOWN_BEFORE_MS, 8_000, 0, -1 << 40))


class JudgesByTheNewest(VersionedWorld):
    """As a worker with nothing but its file does: the newest set it knows judges all that it counts."""

    def timeline(self, until_ms: int) -> Timeline:
        newest = super().timeline(until_ms).newest
        assert newest is not None
        return Timeline.of(newest)


class KnowsTooLate(VersionedWorld):
    """Counts on, although it has not heard of the topic for a millisecond too long."""

    def lag_ms(self) -> int:
        return KNOWN_BEFORE_MS + 1


def draw_sets(rng: Random, log: Log) -> list[Said]:
    """Some at the times of records, so that their starts are near others."""
    times = sorted(record.append_ms for partition in log for record in partition)
    appended = sorted(
        max(times[0], rng.choice(times) - rng.choice((0, 10_000, 30_000))) for _ in range(rng.randint(1, 6))
    )
    return [Said(at, rng.choice((0, 0, at + 33_333, at + 90_000, at - 90_000)), draw_promises(rng)) for at in appended]


def draw_promises(rng: Random) -> tuple[Promise, ...]:
    """The usual ones with other thresholds or selections, some of them missing, sometimes one more."""
    drawn = [
        Promise(
            promise.id,
            promise.where if rng.random() < 0.7 else ("dns", None, None, None),
            rng.choice((promise.latency_us_le, promise.latency_us_le, 200, None)),
            by_minute=promise.by_minute if rng.random() < 0.7 else rng.random() < 0.5,
        )
        for promise in (*PROMISES, Promise("new", (None, None, None, "http"), 999))
    ]
    return tuple(rng.sample(drawn, rng.randint(1, len(drawn))))
