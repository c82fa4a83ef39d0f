"""hypothesis at the controls of an exactness world: it draws the log, who counts what of it, and who dies when.

What it finds it makes smaller, which a world drawn from one seed cannot be. Each step is one act; at any time, and at
the end, all that was sent is counted and the tables must hold what the log says.
"""

from itertools import chain
from typing import Any, ClassVar
from unittest import mock

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streams.engine import partials
from tests.unit.exactness import LABELS, START_MS, Event, Logged
from tests.unit.exactness_parts import Counter, Owner, Poll, Write
from tests.unit.exactness_world import World

PARTITIONS, TARGETS = 2, 2
# So small that a flush is split.
MAX_RECORD_BYTES = 3_000

PARTITION, PLACE = st.integers(0, PARTITIONS - 1), st.integers(0, TARGETS - 1)
YES = st.booleans()
ANY = st.integers(0, 11)  # of those that are there
MANY = st.sampled_from((1, 2, 3, 5, 30))
AGAIN = st.sampled_from((0, 0, 1, 3, 30))  # records that are delivered once more
PAUSE_MS = st.sampled_from((0, 3, 250, 900, 2_000, 11_000, 45_000, 7_200_000))
LAG_MS = st.sampled_from((0, 0, 300, 1_500, 9_500, 10_900, 30_000, 900_000, -4_000))
LATENCY_US = st.sampled_from((0, 300, 1_000, 1_001, 200_001))
RECORD = st.tuples(PAUSE_MS, LAG_MS, st.sampled_from((*LABELS, None)), YES, LATENCY_US)


class Machine(RuleBasedStateMachine):
    """Subclasses take a rule out of `world_class`; `taken` counts the acts that did something, over all runs."""

    world_class: ClassVar[type[World]] = World
    taken: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._small_records = mock.patch.object(partials, "MAX_RECORD_BYTES", MAX_RECORD_BYTES)
        self._small_records.start()
        self.now_ms = START_MS
        self.ghosts: list[Counter] = []
        self.ghost_owners: list[tuple[int, Owner]] = []
        self.stuck: list[tuple[int, list[Write]]] = []

    @initialize(junk=st.integers(0, 3))
    def begin(self, junk: int) -> None:
        self.log: list[list[Logged]] = [[] for _ in range(PARTITIONS)]
        self.world = self.world_class(self.log, TARGETS, junk)

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self._end()
        finally:
            self._small_records.stop()

    def _end(self) -> None:
        """All that was stuck arrives; then owners begin anew from what compaction has left."""
        self._compare()
        for target, owner in enumerate(self.world.owners):
            self.world.fold(target, owner)
            self.world.save(target, owner)
        for target, pages in self.stuck:
            self.world.pages[target] += pages
        for target in range(TARGETS):
            self.world.compact(target)
            self.world.replace_owner(target)
        self._compare()

    def _compare(self) -> None:
        differs = self.world.finish()
        if differs:
            note("\n".join(self.world.story))
        assert differs == "", differs

    def _act(self) -> None:
        type(self).taken += 1

    # The log grows.

    @rule(partition=PARTITION, records=st.lists(RECORD, min_size=1, max_size=6))
    def events_arrive(self, partition: int, records: list[tuple[Any, ...]]) -> None:
        """On time, late, from a spool, ahead of the clock or unreadable, after a pause or at once."""
        self._act()
        for pause_ms, lag_ms, labels, success, latency_us in records:
            self.now_ms += pause_ms
            event = Event(labels, self.now_ms - lag_ms, success, latency_us) if labels else None
            self.log[partition].append(Logged(self.now_ms, event))

    # Those who count.

    @rule(
        who=ANY,
        first=PARTITION,
        both=YES,
        many=MANY,
        again=AGAIN,
        everyone=YES,
        commit=YES,
    )
    def count(self, who: int, first: int, many: int, again: int, *, both: bool, everyone: bool, commit: bool) -> None:
        """One that is alive, or a zombie; polls may begin with what was delivered before."""
        counters = [*self.world.counters, *self.ghosts]
        counter = counters[who % len(counters)]
        if polls := self._polls(counter, {first, PARTITIONS - 1 - first} if both else {first}, many, again):
            self._act()
            self.world.count(counter, *polls, everyone=everyone, commit=commit)

    @rule(who=ANY, many=MANY, again=AGAIN, sends=st.integers(0, 3), everyone=YES)
    def die_counting(self, who: int, many: int, again: int, sends: int, *, everyone: bool) -> None:
        """Some of what was counted is published, nothing is committed."""
        counters = [*self.world.counters, *self.ghosts]
        counter = counters[who % len(counters)]
        if not (polls := self._polls(counter, set(range(PARTITIONS)), many, again)):
            return
        self._act()
        self.world.count(counter, *polls, everyone=everyone, sends=sends)
        if counter in self.world.counters:
            self._rebalance(apart=False)
        self.ghosts = [ghost for ghost in self.ghosts if ghost is not counter]

    @rule(apart=YES)
    def rebalance(self, *, apart: bool) -> None:
        """Who counted before may go on with what it has."""
        self._act()
        self._rebalance(apart=apart)

    def _rebalance(self, *, apart: bool) -> None:
        self.ghosts += self.world.restart_counters(*([[0], [1]] if apart else []))
        del self.ghosts[:-3]

    def _polls(self, counter: Counter, chosen: set[int], many: int, again: int) -> list[Poll]:
        polls = list[Poll]()
        for partition in sorted(chosen & counter.next.keys()):
            at = counter.next[partition]
            end = min(at + many, len(self.log[partition]))
            if end > at:
                polls.append((partition, max(counter.first[partition], at - again), end))
        return polls

    # Those who own the tables.

    @rule(who=ANY, place=PLACE, many=MANY, again=AGAIN, twice=YES)
    def fold(self, who: int, place: int, many: int, again: int, *, twice: bool) -> None:
        """An owner, or one that believes to be it."""
        target, owner = self._owner(who, place)
        begin, end = max(owner.first, owner.next - again), min(owner.next + many, len(self.world.partials[target]))
        if end > begin:
            self._act()
            owner.fold(self.world.partials[target], *[(begin, end)] * (1 + twice))

    @rule(who=ANY, place=PLACE)
    def save(self, who: int, place: int) -> None:
        self._act()
        self.world.save(*self._owner(who, place))

    @rule(who=ANY, place=PLACE, acked=st.integers(0, 19))
    def die_saving(self, who: int, place: int, acked: int) -> None:
        """Some pages are written; the others may arrive at any time later, or never."""
        self._act()
        target, owner = self._owner(who, place)
        self.stuck.append((target, self.world.save(target, owner, acked=acked)))
        if owner is self.world.owners[target]:
            self.world.replace_owner(target)
        self.ghost_owners = [ghost for ghost in self.ghost_owners if ghost[1] is not owner]

    @rule(place=PLACE)
    def freeze(self, place: int) -> None:
        """Another one takes over; the old one may wake up."""
        self._act()
        self.ghost_owners.append((place, self.world.replace_owner(place)))
        del self.ghost_owners[:-3]

    @precondition(lambda self: self.ghost_owners)
    @rule(who=ANY)
    def come_back(self, who: int) -> None:
        """The partition goes back to one that had it before."""
        self._act()
        target, owner = self.ghost_owners.pop(who % len(self.ghost_owners))
        self.world.return_to(owner, target)

    @precondition(lambda self: self.stuck)
    @rule(who=ANY)
    def stuck_pages_arrive(self, who: int) -> None:
        self._act()
        target, pages = self.stuck.pop(who % len(self.stuck))
        self.world.pages[target] += pages

    @rule(place=PLACE, share=st.sampled_from((0.3, 0.7, 1)))
    def compact(self, place: int, share: float) -> None:
        self._act()
        self.world.compact(place, round(len(self.world.pages[place]) * share))

    @rule()
    def catch_up(self) -> None:
        """Everybody reads all there is: the tables are what the log says."""
        self._act()
        self._compare()

    def _owner(self, who: int, place: int) -> tuple[int, Owner]:
        """Mostly an owner, sometimes a zombie."""
        owners = list(chain([(place, self.world.owners[place])] * 2, self.ghost_owners))
        return owners[who % len(owners)]
