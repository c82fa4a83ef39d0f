"""A source log, workers that count it, owners of the tables and their pages: all that Kafka holds is a list here.

What a subclass overrides takes out one rule of exactness: the tests' controls. Production code has no such switch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType

import polars as pl

from schemas.records import Source
from streams.core.rollup import Flush, Rollup
from streams.core.table import SloTable
from streams.engine.pages import PartPages
from streams.engine.partials import write_partials
from streams.engine.partitioning import partition_of
from tests.unit.exactness import COUNTS, PROBES, PROMISES, Log, Rows, difference, frontier_of, recompute
from tests.unit.exactness_parts import Counter, Owner, Poll, StateLostError, Write, rows_of


class World:
    """Source log → counters → partials → owners → pages."""

    rollup: type[Rollup] = Rollup
    table: type[SloTable] = SloTable
    part_pages: type[PartPages] = PartPages
    topic_ids: Mapping[str, str] = MappingProxyType({})
    series_most: int | None = None  # of a target; None is no bound

    def __init__(self, log: Log, targets: int = 1, junk: int = 0, counted: int = 0) -> None:
        """The last `counted` partitions of the log are those of request-counts."""
        self.log = log
        self.probed = len(log) - counted
        self.story: list[str] = []
        self.commits = dict.fromkeys(range(len(log)), (0, 0))
        self.partials: list[list[bytes]] = [[] for _ in range(targets)]
        self.pages: list[list[Write]] = [[] for _ in range(targets)]
        self.page_commits = [0] * targets
        self._junk = junk
        self._names = 0
        self.counters = self.new_counters(range(len(log)))
        self.owners = [self.new_owner(target) for target in range(targets)]

    # The rules that controls take out.

    def name_owner(self) -> str:
        self._names += 1
        return f"owner{self._names}"

    def may_settle(self, *, everyone: bool) -> bool:
        """Cells are done with when every owner has heard of the frontiers that seal them."""
        return everyone

    def commit_of(self, counter: Counter, partition: int) -> tuple[int, int]:
        return counter.rollup.resume_point(partition, counter.rollup.progress[partition])

    def in_order(self, pages: list[Write]) -> list[Write]:
        """Chunks before what stands for the tables."""
        return pages

    def loaded(self, owner: Owner) -> Owner:
        return owner

    # What counters do.

    def new_counter(self, mine: Iterable[int]) -> Counter:
        mine = list(mine)
        source, base = (COUNTS, self.probed) if mine and min(mine) >= self.probed else (PROBES, 0)
        return Counter(self.rollup, self.commits, mine, source, base)

    def new_counters(self, *shares: Iterable[int]) -> list[Counter]:
        """Of each share one for each source."""
        found = []
        for mine in map(list, shares):
            parts = [p for p in mine if p < self.probed], [p for p in mine if p >= self.probed]
            found += [self.new_counter(part) for part in parts if part or not mine]
        return found

    def restart_counters(self, *shares: Sequence[int]) -> list[Counter]:
        """All state is dropped; the new ones begin at the commits. The old ones are returned: they may linger."""
        self.story.append(f"counters restart from {self.commits}")
        old, self.counters = self.counters, self.new_counters(*(shares or [range(len(self.log))]))
        return old

    def count(
        self, counter: Counter, *polls: Poll, everyone: bool = True, sends: int | None = None, commit: bool = True
    ) -> None:
        """Count, publish, settle, commit; one that dies after some `sends` does no more than those."""
        flush = counter.count(self.log, polls)
        values = list(self._partials(counter, flush, everyone=everyone))
        for target, value in values[:sends]:
            self.partials[target].append(value)
        if sends is not None:
            return
        if self.may_settle(everyone=everyone):
            counter.rollup.settle(flush)
        if commit and counter in self.counters:
            for partition in flush.progress:
                self.commits[counter.base + partition] = self.commit_of(counter, partition)

    def _partials(self, counter: Counter, flush: Flush, *, everyone: bool) -> Iterable[tuple[int, bytes]]:
        rows = pl.concat([flush.plain, flush.objectives])
        targets = [self.target_of(counter.index.names[number]) for number in rows["series"]]
        sources = [Source(p, progress.applied_offset, progress.frontier) for p, progress in flush.progress.items()]
        for target in range(len(self.partials)):
            cells = rows.filter(pl.Series([own == target for own in targets], dtype=pl.Boolean))
            if everyone or cells.height:
                source = counter.judge.source
                for value in write_partials(source, self.topic_ids.get(source, ""), sources, cells, counter.index):
                    yield target, value

    def target_of(self, series: str) -> int:
        return partition_of(series.encode(), len(self.partials))

    # What owners do.

    def new_owner(self, target: int) -> Owner:
        """From the pages and the commit."""
        pages = self.part_pages()
        for key, value in self.pages[target]:
            pages.apply(key, value)
        committed = self.page_commits[target]
        owner = Owner(self.name_owner(), self.table, pages, committed, self._junk, self.series_most)
        if owner.unusable:
            self.story.append(f"all is counted again: {owner.unusable}")
            owner.fold(self.partials[target], (0, len(self.partials[target])))
        if owner.applied + 1 < self.page_commits[target]:
            raise StateLostError(f"the pages end at {owner.applied}, committed is {self.page_commits[target]}")
        self.story.append(f"{owner.name} has {target} from {owner.applied + 1}, reads from {owner.next}")
        return self.loaded(owner)

    def replace_owner(self, target: int = 0) -> Owner:
        """The old one is returned: it may linger."""
        old, self.owners[target] = self.owners[target], self.new_owner(target)
        return old

    def return_to(self, ghost: Owner, target: int = 0) -> None:
        """The partition goes back to one that lingers: its tables are of before, so it begins like a new one."""
        self.owners[target] = self.new_owner(target)
        ghost.next = len(self.partials[target])

    def fold(self, target: int = 0, owner: Owner | None = None, *, to: int | None = None) -> None:
        """Everything that has been published, or up to an offset, in one poll."""
        owner = owner or self.owners[target]
        owner.fold(self.partials[target], (owner.next, len(self.partials[target]) if to is None else to))

    def save(self, target: int = 0, owner: Owner | None = None, *, acked: int | None = None) -> list[Write]:
        """Write pages, commit, delete; one that dies after some pages are `acked` does no more. Returns the others."""
        owner = owner or self.owners[target]
        taken = owner.snapshot()
        pages = self.in_order(taken.pages)
        self.story.append(f"{owner.name} writes {acked} of {len(pages)} pages at {taken.applied}")
        self.pages[target] += pages[:acked]
        if acked is not None:
            return pages[acked:]
        if owner is self.owners[target]:
            self.page_commits[target] = taken.applied + 1
        self.pages[target] += [(key, None) for key in taken.tombstones]
        return []

    def compact(self, target: int = 0, cut: int | None = None) -> None:
        """Of a stretch from the beginning only the last record of each key stays, and of tombstones nothing."""
        last = dict(self.pages[target][:cut])
        self.pages[target][: len(self.pages[target]) if cut is None else cut] = [
            (key, value) for key, value in last.items() if value is not None
        ]

    # The end.

    def finish(self) -> str:
        """Everything is read, by whoever is alive; returns how the tables then differ from the log."""
        try:
            for counter in self.counters:
                polls = [(p, at, len(self.log[p])) for p, at in counter.next.items() if at < len(self.log[p])]
                if polls:
                    self.count(counter, *polls)
            for target, owner in enumerate(self.owners):
                self.fold(target)
                owner.seal()
        except StateLostError as lost:
            return str(lost)
        return self.differs()

    def differs(self) -> str:
        """From what all tables together answer to what the log says."""
        found: Rows = {}
        for owner in self.owners:
            for table in owner.tables.values():
                found |= rows_of(table, owner.index, frontier_of(self.log))
        return difference(recompute(self.log, PROMISES), found)


class RandomWorld(World):
    """Everything that may happen, as `rng` has it; `story` tells it."""

    def __init__(self, log: Log, rng: Random, counted: int = 0) -> None:
        self.rng = rng
        self.ghosts: list[Counter] = []
        self.ghost_owners: list[tuple[int, Owner]] = []
        self.frozen: list[tuple[int, Owner]] = []
        self.ghost_pages: list[tuple[int, list[Write]]] = []
        super().__init__(log, targets=3, junk=rng.randrange(4), counted=counted)

    def lived(self, acts: int) -> str:
        """What differs after so many acts."""
        try:
            for _ in range(acts):
                self.act()
            return self.finish()
        except StateLostError as lost:
            return str(lost)

    def act(self) -> None:
        """One thing."""
        target = self.rng.randrange(len(self.owners))
        choices: list[tuple[int, Callable[[], object]]] = [
            (40, lambda: self._count(self.rng.choice(self.counters))),
            (25, lambda: self._fold(target, self.owners[target])),
            (14, lambda: self._save(target, self.owners[target])),
            (3, self.owners[target].seal),
            (5, self._restart),
            (3, lambda: self.ghost_owners.append((target, self.replace_owner(target)))),
            (2, lambda: self.frozen.append((target, self.replace_owner(target)))),
            (3, lambda: self.compact(target, self.rng.randrange(len(self.pages[target]) + 1))),
            (4 * bool(self.ghosts), lambda: self._count(self.rng.choice(self.ghosts))),
            (5 * bool(self.ghost_owners), self._ghost_owner),
            (4 * bool(self.frozen), self._return),
            (5 * bool(self.ghost_pages), self._ghost_pages),
        ]
        (act,) = self.rng.choices([act for _, act in choices], [weight for weight, _ in choices])
        act()

    def finish(self) -> str:
        """Then every stuck page arrives, and all owners begin anew from what compaction has left."""
        differs = super().finish()
        for target in range(len(self.owners)):
            self._save(target, self.owners[target])
        while self.ghost_pages:
            self._ghost_pages()
        for target, owner in enumerate(self.owners):
            self.story.append(f"in the end {owner.name} is at {owner.applied}")
            self.compact(target)
            self.replace_owner(target)
        return differs or super().finish()

    def _ghost_owner(self) -> None:
        target, owner = self.rng.choice(self.ghost_owners)
        self._fold(target, owner)
        self._save(target, owner)

    def _return(self) -> None:
        """One that has stood still since it was replaced."""
        target, owner = self.frozen.pop(self.rng.randrange(len(self.frozen)))
        self.story.append(f"{target} goes back to {owner.name}")
        self.return_to(owner, target)

    def _ghost_pages(self) -> None:
        target, pages = self.ghost_pages.pop(self.rng.randrange(len(self.ghost_pages)))
        self.pages[target] += pages

    def _restart(self) -> None:
        sources = self.rng.sample(sorted(self.commits), len(self.commits))
        cut = self.rng.randint(1, len(sources))
        self.ghosts += self.restart_counters(*[mine for mine in (sources[:cut], sources[cut:]) if mine])

    def _count(self, counter: Counter) -> None:
        """Some polls, some of which begin with records that were polled before; rarely it dies as it publishes."""
        polls, chosen = list[Poll](), self.rng.sample(sorted(counter.next), self.rng.randint(1, len(counter.next)))
        most = self.rng.choice((1, 3, 30))
        for partition in chosen:
            at = counter.next[partition]
            for _ in range(self.rng.choice((1, 1, 2))):
                end = min(at + self.rng.randint(1, most), len(self.log[partition]))
                if end > at:
                    polls.append((partition, max(counter.first[partition], at - self.rng.choice((0, 0, 3))), end))
                at = end
        if not polls:
            return
        sends = self.rng.randrange(4) if self.rng.random() < 0.04 else None
        everyone, commit = self.rng.random() < 0.3, self.rng.random() < 0.8
        self.count(counter, *polls, everyone=everyone, sends=sends, commit=commit)
        if sends is not None:
            self.story.append(f"a counter died after {sends} sends")
            if counter in self.counters:
                self._restart()
            self.ghosts = [ghost for ghost in self.ghosts if ghost is not counter]

    def _fold(self, target: int, owner: Owner) -> None:
        """Some polls at once; of the log they may repeat something, in themselves and from before."""
        polls, at, end = list[tuple[int, int]](), owner.next, len(self.partials[target])
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            begin = max(owner.first, at - self.rng.choice((0, 0, 2, 30)))
            at = max(at, min(begin + self.rng.randint(1, 40), end))
            polls.append((begin, at))
        owner.fold(self.partials[target], *polls)

    def _save(self, target: int, owner: Owner) -> None:
        """Rarely it dies between two writes, and the other pages arrive at any time later."""
        acked = self.rng.randrange(20) if self.rng.random() < 0.3 else None
        rest = self.save(target, owner, acked=acked)
        if acked is None:
            return
        self.ghost_pages.append((target, rest))
        if owner is self.owners[target]:
            self.replace_owner(target)
        self.ghost_owners = [ghost for ghost in self.ghost_owners if ghost[1] is not owner]
