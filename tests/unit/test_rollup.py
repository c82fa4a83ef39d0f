"""The rollup: cells are a function of the log, wherever batches are cut, and a restart rebuilds every open one."""

from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.cells import CELL, CELL_ROWS
from streams.core.rollup import Flush, Rollup
from streams.core.series import Judge, SeriesIndex
from tests.unit.exactness import START_MS, Event, Labels, Logged, bucket_of, draw_log, judge
from tests.unit.exactness_parts import OBJECTIVES, Counter, events_frame, source_batch

SEEDS = st.integers(0, (1 << 32) - 1)
SHOP: Labels = ("shop", "/cart", "us", "http")


def at(append_ms: int, ts_ms: int) -> Logged:
    """A record at these milliseconds of the log."""
    return Logged(START_MS + append_ms, Event(SHOP, START_MS + ts_ms, success=True, latency_us=150))


def rollup_of(*partitions: int) -> Rollup:
    rollup = Rollup(Judge(OBJECTIVES, SeriesIndex()))
    for partition in partitions:
        rollup.open(partition, 0)
    return rollup


def step(rollup: Rollup, log: list[Logged], begin: int, end: int, partition: int = 0) -> Flush:
    records = log[begin:end]
    return rollup.step([source_batch(partition, begin, records)], events_frame(records))


def latest(flushes: list[Flush], names: list[str]) -> set[tuple[object, ...]]:
    """Rows of the last flush of each cell, with the names of series."""
    frames = [pl.concat([f.plain, f.objectives]).with_columns(_flush=pl.lit(n)) for n, f in enumerate(flushes)]
    rows = pl.concat(frames).filter(pl.col("_flush") == pl.col("_flush").max().over(CELL)).drop("_flush")
    return {(source, names[series], *rest) for source, series, *rest in rows.rows()}


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_cells_do_not_depend_on_where_batches_are_cut(seed: int) -> None:
    rng = Random(seed)
    log, start = draw_log(rng, 2, 30), {0: (0, 0), 1: (0, 0)}
    whole, parts = Counter(Rollup, start, (0, 1)), Counter(Rollup, start, (1, 0))
    at_once = [whole.count(log, [(p, 0, len(log[p])) for p in start])]
    bit_by_bit = list[Flush]()
    while any(parts.next[p] < len(log[p]) for p in start):
        begins = {p: parts.next[p] for p in start if parts.next[p] < len(log[p])}
        flush = parts.count(log, [(p, b, min(b + rng.randint(1, 9), len(log[p]))) for p, b in begins.items()])
        if rng.random() < 0.5:
            parts.rollup.settle(flush)
        bit_by_bit.append(flush)
    assert latest(at_once, whole.index.names) == latest(bit_by_bit, parts.index.names)
    assert at_once[-1].progress == bit_by_bit[-1].progress
    judged = [each for partition in log for each in judge(partition) if each is not None]
    for rollup in (whole.rollup, parts.rollup):
        assert rollup.events == len(judged)
        assert rollup.late == sum(each.late for each in judged)
        assert rollup.clamped == sum(each.clamped for each in judged)


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_a_restart_from_the_resume_point_rebuilds_every_open_cell(seed: int) -> None:
    rng = Random(seed)
    (log,) = draw_log(rng, 1, 40)
    first = Counter(Rollup, {0: (0, 0)}, [0])
    while first.next[0] < len(log):
        before = first.next[0]
        flush = first.count([log], [(0, before, min(before + rng.randint(1, 15), len(log)))])
        first.rollup.settle(flush)
        second = Counter(Rollup, {0: first.rollup.resume_point(0, first.rollup.progress[0])}, [0])
        if second.next == first.next:  # nothing is open, and nothing is read again
            assert first.rollup.open_rows() == 0
            continue
        again = second.count([log], [(0, second.next[0], first.next[0])])
        assert again.progress == flush.progress
        second.rollup.settle(again)
        assert second.rollup.resume_point(0, second.rollup.progress[0]) == first.rollup.resume_point(
            0, first.rollup.progress[0]
        )
        assert second.rollup.open_rows() == first.rollup.open_rows()


def test_rows_of_a_cell_are_cumulative_and_judged() -> None:
    rollup, log = rollup_of(0), [at(0, 0), at(1, 1), at(1_500, 1_000)]
    first, second = step(rollup, log, 0, 1), step(rollup, log, 1, 3)
    slices, bucket = START_MS // 1_000, bucket_of(150)
    assert first.plain.schema == second.objectives.schema == CELL_ROWS
    assert first.plain.rows() == [(0, 0, slices, -1, bucket, True, 1, 150, 150)]
    assert sorted(second.plain.rows()) == [
        (0, 0, slices, -1, bucket, True, 2, 300, 150),
        (0, 0, slices + 1, -1, bucket, True, 1, 150, 150),
    ]


def test_only_touched_cells_are_in_a_flush() -> None:
    rollup, log = rollup_of(0), [at(0, 0), at(1_000, 1_000)]
    step(rollup, log, 0, 1)
    assert step(rollup, log, 1, 2).plain["slice"].to_list() == [START_MS // 1_000 + 1]


def test_records_that_were_counted_are_skipped_and_unreadable_ones_move_the_frontier() -> None:
    rollup = rollup_of(0)
    log = [at(0, 0), at(5, 5), Logged(START_MS + 20_000, None), at(20_001, 900)]
    step(rollup, log, 0, 2)
    assert step(rollup, log, 0, 2).plain.is_empty()
    assert rollup.events == 2
    unreadable = step(rollup, log, 1, 3)
    assert unreadable.plain.is_empty()
    assert unreadable.progress[0].applied_offset == 2
    assert unreadable.progress[0].frontier == START_MS + 20_000
    assert step(rollup, log, 3, 4).plain["late"].to_list() == [START_MS // 1_000 + 20]
    assert (rollup.events, rollup.late) == (3, 1)


@pytest.mark.parametrize(
    ("frontier_ms", "resume"),
    [
        (10_999, (0, 0)),  # the first second is still open
        (11_000, (2, START_MS + 900)),  # it ends at 1 s and is sealed 10 s later; the next began at the third record
        (12_000, (4, START_MS + 12_000)),  # nothing is open
    ],
)
def test_a_restart_begins_at_the_first_record_of_an_open_second(frontier_ms: int, resume: tuple[int, int]) -> None:
    log = [at(0, 0), at(900, 900), at(1_100, 1_100), Logged(START_MS + frontier_ms, None)]
    rollup = rollup_of(0)
    step(rollup, log, 0, 3)
    flush = step(rollup, log, 3, 4)
    assert rollup.resume_point(0, rollup.progress[0]) == (0, 0)
    rollup.settle(flush)
    assert rollup.resume_point(0, rollup.progress[0]) == resume


def test_late_cells_are_open_until_their_append_second_is_over() -> None:
    rollup, log = rollup_of(0), [at(100_000, 100_000), at(100_500, 0), at(100_999, 0), at(113_000, 113_000)]
    flush = step(rollup, log, 0, 3)
    assert sorted(flush.plain["n"]) == [1, 2]
    rollup.settle(flush)
    assert rollup.resume_point(0, rollup.progress[0]) == (0, 0)
    rollup.settle(step(rollup, log, 3, 4))
    assert rollup.resume_point(0, rollup.progress[0]) == (3, START_MS + 100_999)


def test_a_flush_tells_of_partitions_that_brought_nothing() -> None:
    """An owner may have missed their last frontier; without it their cells would stay open for ever."""
    rollup, log = rollup_of(0, 1, 2), [at(0, 0), at(7, 7)]
    step(rollup, log, 0, 1, partition=1)
    flush = step(rollup, log, 0, 2, partition=0)
    assert {p: (told.applied_offset, told.frontier) for p, told in flush.progress.items()} == {
        0: (1, START_MS + 7),
        1: (0, START_MS),
    }


def test_settling_frees_what_is_sealed() -> None:
    rollup, log = rollup_of(0), [at(second * 1_000, second * 1_000) for second in range(60)]
    rollup.settle(step(rollup, log, 0, 60))
    open_slices = 60 - (60 - 1 - 10)
    assert rollup.open_rows() == open_slices * 3  # the plain series, `shop` and `all`
