"""A bounded number of plain series has names: whatever that changes, no event is lost, doubled or judged otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import metrics
from streams.core.cells import Cells
from streams.core.naming import Naming
from streams.core.rollup import Rollup
from streams.core.rows import OPEN_SCHEMA, OpenCells, series_in
from streams.core.series import OVERFLOW, SeriesIndex
from streams.core.slices import ON_TIME, PLAIN_TIERS
from streams.core.table import forget_series
from streams.processors.series_telling import SeriesTeller
from streams.processors.slo_parts import PLAIN, PartFolder
from tests.unit.exactness import LABELS, PROMISES, Log, Row, Rows, Sums, difference, draw_log, frontier_of, recompute
from tests.unit.exactness_parts import Counter, Owner, Write, rows_of
from tests.unit.exactness_world import RandomWorld, World
from tests.unit.test_exactness import at

SEEDS = st.integers(0, (1 << 32) - 1)
T = 1_763_000_000
HELD_S = PLAIN_TIERS[-1].keep_s + 2 * PLAIN_TIERS[-1].chunk_s  # for longer no chunk holds a second
SHOP, CART, _, PAY, _ = LABELS


def as_one(rows: Mapping[Row, Sums]) -> Rows:
    """All plain series summed, whatever they are called; those of objectives as they are."""
    summed: Rows = {}
    for (tier, series, start, bucket, good), (n, late, sum_us, max_us) in rows.items():
        row = (tier, series if series.startswith("slo:") else "plain", start, bucket, good)
        known = summed.get(row, (0, 0, 0, 0))
        summed[row] = (known[0] + n, known[1] + late, known[2] + sum_us, max(known[3], max_us))
    return summed


class Bounded(World):
    """Each target names one plain series, and everybody forgets all the time what can be forgotten."""

    series_most: int = 1

    def count(self, counter: Counter, *polls: tuple[int, int, int], **how: bool | int | None) -> None:
        super().count(counter, *polls, **how)  # type: ignore[arg-type]
        counter.rollup.forget_series(counter.index)

    def save(self, target: int = 0, owner: Owner | None = None, *, acked: int | None = None) -> list[Write]:
        mine = owner or self.owners[target]
        written = super().save(target, mine, acked=acked)
        forget_series(mine.index, mine.tables.values())
        return written

    def differs(self) -> str:
        found: Rows = {}
        frontier = frontier_of(self.log)
        for owner in self.owners:
            for family, table in owner.tables.items():
                whose = owner.name if family == "series" else ""  # each owner has an overflow of its own
                for (tier, name, start, bucket, good), sums in rows_of(table, owner.index, frontier).items():
                    found[tier, f"{whose}{name}", start, bucket, good] = sums
                assert table.naming is None or table.naming.named <= self.series_most
        return difference(as_one(recompute(self.log, PROMISES)), as_one(found))


class NamingEarly(Rollup):
    """The first series of a process has its name; others are the overflow's before cells are published."""

    seen: set[int] | None = None

    def _merge(self, fresh: Cells, family: str) -> pl.DataFrame:
        if family == "plain":
            self.seen = self.seen or {int(fresh.series.min())}
            overflow = self._judge._index.number(OVERFLOW)
            named = np.where(np.isin(fresh.series, list(self.seen)), fresh.series, overflow)
            fresh = replace(fresh, series=named.astype(np.uint32))
        return super()._merge(fresh, family)


class DecidesEarly(Bounded):
    rollup = NamingEarly


def learned_in_another_order(kind: type[World]) -> str:
    """One process counts both partitions; after it, each has one that counts it."""
    world = kind([[at(0.1, 0, SHOP), at(0.2, 0.5, CART)], [at(0.1, 0, PAY), at(0.3, 0.5, PAY)]])
    world.count(world.counters[0], (0, 0, 2), (1, 0, 2))
    world.restart_counters([0], [1])
    return world.finish()


def test_a_restart_that_learns_names_in_another_order_doubles_nothing() -> None:
    assert learned_in_another_order(Bounded) == ""
    assert learned_in_another_order(World) == ""


def test_to_sum_the_overflow_before_cells_are_published_would() -> None:
    assert "expected (4, 0, 1200, 300), found (6, 0, 1800, 300)" in learned_in_another_order(DecidesEarly)


class RandomBounded(Bounded, RandomWorld):
    pass


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_nothing_is_lost_or_doubled_whatever_crashes_and_forgets(seed: int) -> None:
    rng = Random(seed)
    world = RandomBounded(draw_log(rng, 3, 40), rng)
    for _ in range(40):
        world.act()
    assert world.finish() == "", "\n".join(world.story)


class ForgetsNumbers(RandomBounded):
    """Tables are not told that numbers mean other series now."""

    def save(self, target: int = 0, owner: Owner | None = None, *, acked: int | None = None) -> list[Write]:
        mine = owner or self.owners[target]
        written = World.save(self, target, mine, acked=acked)
        used = np.zeros(len(mine.index.names), np.bool_)
        for table in mine.tables.values():
            table.mark_series(used)
        mine.index.forget(used)
        return written


def test_a_table_that_keeps_old_numbers_is_found() -> None:
    for seed in range(60):
        rng = Random(seed)
        world = ForgetsNumbers(draw_log(rng, 3, 40), rng)
        try:
            for _ in range(40):
                world.act()
            if world.finish():
                return
        except (IndexError, AssertionError):
            return
    pytest.fail("60 worlds were right without the rule")


# Who has a name ------------------------------------------------------------------------------------------------------


def cells(index: SeriesIndex, *events: tuple[str, int, int]) -> OpenCells:
    """(name, slice, n): one row each."""
    rows = [(0, index.number(name), second, ON_TIME, 3, True, n, n, 1, 0, 0) for name, second, n in events]
    return OpenCells.from_frame(pl.DataFrame(rows, schema=OPEN_SCHEMA, orient="row"))


def sealed(naming: Naming, index: SeriesIndex, now_s: int, *events: tuple[str, int, int]) -> list[str]:
    """The names under which they go into chunks, when each was sealed one record after the one before."""
    given_cells = cells(index, *events)
    found = naming.sealed(given_cells, np.arange(len(events)), now_s)
    return [index.names[number] for number in series_in(found.key)]


def test_who_comes_first_has_a_name_and_keeps_it() -> None:
    index = SeriesIndex()
    naming = Naming(2, index, PLAIN_TIERS[-1])
    assert sealed(naming, index, T, ("a", T, 1), ("c", T, 5), ("b", T, 2), ("c", T, 4)) == ["a", "c", OVERFLOW, "c"]
    assert (naming.named, naming.overflowed) == (2, 2)
    assert sealed(naming, index, T + 1, ("b", T + 1, 7), ("a", T + 1, 1)) == [OVERFLOW, "a"]
    assert (naming.named, naming.overflowed) == (2, 9)


def test_a_name_is_free_when_no_chunk_holds_its_series() -> None:
    index = SeriesIndex()
    naming = Naming(1, index, PLAIN_TIERS[-1])
    assert sealed(naming, index, T, ("a", T, 1)) == ["a"]
    held = PLAIN_TIERS[-1].keep_s + T % PLAIN_TIERS[-1].chunk_s
    assert sealed(naming, index, T + held, ("b", T + held, 1)) == [OVERFLOW]
    assert sealed(naming, index, T + HELD_S, ("b", T + HELD_S, 1), ("a", T + HELD_S, 1)) == ["b", OVERFLOW]


def test_an_event_that_is_too_old_for_any_chunk_takes_no_name() -> None:
    index = SeriesIndex()
    naming = Naming(1, index, PLAIN_TIERS[-1])
    sealed(naming, index, T, ("a", T - HELD_S, 1))
    assert naming.named == 0
    assert sealed(naming, index, T, ("b", T, 1)) == ["b"]


def test_names_outlive_their_process() -> None:
    index = SeriesIndex()
    again = Naming(1, index, PLAIN_TIERS[-1])
    again.learn(cells(index, ("b", T, 1), (OVERFLOW, T, 9)).key)
    assert sealed(again, index, T, ("a", T, 1), ("b", T, 1)) == [OVERFLOW, "b"]


def test_after_a_crash_a_series_may_have_its_name_earlier_than_before() -> None:
    """Docs say so (ADR 18, What holds): a name became free in what is read again, and its chunk was saved before."""
    index = SeriesIndex()
    first, later = ("a", T, 1), ("b", T + HELD_S, 1)
    naming = Naming(1, index, PLAIN_TIERS[-1])
    assert sealed(naming, index, T, first, ("b", T, 7)) == ["a", OVERFLOW]
    assert sealed(naming, index, T + HELD_S, later) == ["b"]
    again = Naming(1, index, PLAIN_TIERS[-1])
    again.learn(cells(index, first, later).key)  # both chunks are in pages, the open cells of before
    assert sealed(again, index, T, ("b", T, 7)) == ["b"]
    assert sealed(again, index, T + HELD_S, later, ("c", T + HELD_S, 1)) == ["b", OVERFLOW]


# What is forgotten ---------------------------------------------------------------------------------------------------


class Unbounded(Bounded):
    series_most = 1_000


def test_a_worker_forgets_the_names_of_series_that_are_over() -> None:
    """Endpoints that change all the time: only those of the time that is kept are in memory."""
    days, rest = range(50), ("", "", "")
    log = [[at(day * 86_400 + n, day * 86_400 + n, (f"{day}", *rest)) for day in days for n in range(2)]]
    world = Unbounded(log)
    for day in days:
        world.count(world.counters[0], (0, 2 * day, 2 * day + 2))
        world.fold()
        world.save()
    assert len(world.counters[0].index.names) < 10
    assert len(world.owners[0].index.names) < 10
    assert world.finish() == ""


def test_rows_for_which_there_is_no_number_are_left_out_and_counted() -> None:
    index = SeriesIndex(most=(1 << 16) + 2)
    rows = pl.DataFrame({"series": [0, 1, 2, 3, 4], "n": [1, 2, 4, 8, 16]}, schema={"series": pl.UInt32, "n": pl.Int64})
    found = index.localize(rows, ["a", "b", "c", "slo:x@1", OVERFLOW])
    assert [index.names[number] for number in found["series"]] == ["a", "b", "slo:x@1", OVERFLOW]
    assert index.left_out == 4
    assert index.localize(rows[:2], ["b", "a"])["series"].to_list() == [1, 0]


def test_rows_whose_names_take_too_much_room_are_left_out_and_counted() -> None:
    index = SeriesIndex(most_bytes=300)
    rows = pl.DataFrame({"series": [0, 1, 2, 3], "n": [1, 2, 4, 8]}, schema={"series": pl.UInt32, "n": pl.Int64})
    long = "é" * 125
    found = index.localize(rows, ["a", f"b{long}", f"c{long}", f"d{long}"])
    assert [index.names[number][0] for number in found["series"]] == ["a", "b", "c"]  # with the last one it is full
    assert (index.left_out, index.crowded) == (8, True)
    index.localize(rows, ["slo:x@1", OVERFLOW, "e", "a"])
    assert index.left_out == 8 + 4
    index.forget(np.array([name in ("a", OVERFLOW) for name in index.names]))
    assert not index.crowded
    assert index.localize(rows[:1], ["e"]).height == 1


def test_forgetting_pays_when_there_are_twice_as_many_names_as_were_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.core.series._WORTH_FORGETTING", 4)
    index = SeriesIndex()
    for name in "abcdef":
        index.number(name)
    assert index.crowded
    assert index.forget(np.array([True, False, True, True, False, False])).tolist() == [0, 0, 1, 2, 2, 2]
    assert (index.names, index.number("d")) == (["a", "c", "d"], 2)
    crowded = [index.crowded for name in "wxyz" if index.number(name) >= 0]
    assert crowded == [False, False, False, True]


def test_it_is_said_once_and_counted_always(capsys: pytest.CaptureFixture[str]) -> None:
    index = SeriesIndex()
    folder = PartFolder(index, series_most=1)
    tables = folder.new_tables()
    naming = tables[PLAIN].naming
    assert naming is not None
    teller, before = SeriesTeller(), metrics.SERIES_OVERFLOW._value.get()
    for _ in range(2):
        sealed(naming, index, T, ("a", T, 1), ("b", T, 3))
        teller.tell([SimpleNamespace(tables=tables)], index)  # type: ignore[list-item]
    assert metrics.SERIES_OVERFLOW._value.get() - before == 6
    assert (metrics.SERIES._value.get(), metrics.SERIES_MAX._value.get()) == (1, 1)
    assert capsys.readouterr().out.count("than --series-max") == 1


def test_cells_are_the_same_when_all_that_is_over_is_forgotten_at_each_step() -> None:
    rng = Random(5)
    (log,) = draw_log(rng, 1, 60)
    logs: Log = [log]
    usual, forgetful = (Counter(Rollup, {0: (0, 0)}, [0]) for _ in range(2))
    for begin in range(0, len(log), 4):
        sent = []
        for counter in (usual, forgetful):
            flush = counter.count(logs, [(0, begin, min(begin + 4, len(log)))])
            rows = pl.concat([flush.plain, flush.objectives])
            sent.append(sorted((counter.index.names[row[1]], *row) for row in rows.rows()))
            counter.rollup.settle(flush)
        forgetful.rollup.forget_series(forgetful.index)
        assert [(name, *row[2:]) for name, _, *row in sent[0]] == [(name, *row[2:]) for name, _, *row in sent[1]]
