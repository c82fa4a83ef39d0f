"""The objectives table: the newest version of a cell counts, sealed ones move into every tier that holds their time."""

from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.cells import CELL_ROWS
from streams.core.histogram import buckets_of
from streams.core.packed import Packed
from streams.core.rows import STEP_SCHEMA, OpenCells, Steps, of_series
from streams.core.series import SeriesIndex
from streams.core.slices import HOURS, MINUTES, ON_TIME, PLAIN_TIERS, SECONDS, TIERS, Tier
from streams.core.summaries import NotCaughtUpError
from streams.core.table import Heading, SloTable
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, PartPages, chunk_part, load, page_key, write_chunk, write_open

T = 1_763_000_000  # a second; its minute begins at T - 20, its hour at T - 800

# (source, slice, late, n) of one series; a record is (cells, sources told as (source, applied, frontier in s or None)).
Cell = tuple[int, int, int, int]
Record = tuple[list[Cell], list[tuple[int, int, float | None]]]


def new_table(*, histograms_in_hours: bool = True) -> SloTable:
    return SloTable(histograms_in_hours=histograms_in_hours)


def fold(table: SloTable, records: list[Record], first: int = 0, upto: int | None = None) -> None:
    """In one call, from the offset `first` on."""
    rows = cells(records).filter(pl.col("offset").is_in(range(len(records))[first:upto]))
    table.fold(headings(records)[first:upto], arrived(rows))


def arrived(rows: pl.DataFrame) -> OpenCells:
    return OpenCells.arrived(rows, rows["offset"].to_numpy())


def headings(records: list[Record]) -> list[Heading]:
    return [
        Heading(offset, tuple((source, n, None if at is None else int(at * 1_000)) for source, n, at in told))
        for offset, (_, told) in enumerate(records)
    ]


def cells(records: list[Record]) -> pl.DataFrame:
    rows = [
        (source, 0, at, late, 3, True, n, n * 2, 2, offset)
        for offset, (found, _) in enumerate(records)
        for source, at, late, n in found
    ]
    return pl.DataFrame(rows, schema={**CELL_ROWS, "offset": pl.Int64}, orient="row")


def counts(table: SloTable, tier: Tier = SECONDS, begin: int = 0, end: int = 1 << 32) -> dict[int, tuple[int, int]]:
    """(n, late) by start."""
    rows = table.read(0, tier, begin, end)
    return {start: (n, late) for start, n, late in rows.select("start", "n", "late_n").rows()}


VERSIONS: dict[str, tuple[list[Record], int]] = {
    "the greatest applied offset counts": (
        [([(0, T, ON_TIME, 1)], [(0, 5, T)]), ([(0, T, ON_TIME, 3)], [(0, 9, T)])], 3,
    ),
    "not the last one": (
        [([(0, T, ON_TIME, 3)], [(0, 9, T)]), ([(0, T, ON_TIME, 1)], [(0, 5, T)])], 3,
    ),
    "a repeat replaces": (
        [([(0, T, ON_TIME, 3)], [(0, 9, T)]), ([(0, T, ON_TIME, 3)], [(0, 9, T)])], 3,
    ),
    "source partitions add up": (
        [([(0, T, ON_TIME, 1), (1, T, ON_TIME, 2)], [(0, 5, T), (1, 8, T)]), ([(1, T, ON_TIME, 4)], [(1, 9, T)])], 5,
    ),
    "late cells of other append seconds add up": (
        [([(0, T, T + 50, 1), (0, T, T + 51, 1)], [(0, 9, T + 51)]), ([(0, T, T + 51, 4)], [(0, 12, T + 51.5)])], 5,
    ),
    "the record that seals is folded first": (
        [([(0, T, ON_TIME, 1)], [(0, 5, T)]), ([(0, T, ON_TIME, 4)], [(0, 9, T + 11)])], 4,
    ),
    "what was sealed before a record is ignored": (
        [([(0, T, ON_TIME, 4)], [(0, 9, T + 11)]), ([(0, T, ON_TIME, 2)], [(0, 12, T + 12)])], 4,
    ),
    "one millisecond before, it was not sealed": (
        [([(0, T, ON_TIME, 4)], [(0, 9, T + 10.999)]), ([(0, T, ON_TIME, 5)], [(0, 12, T + 12)])], 5,
    ),
    "another source's frontier seals nothing of this one": (
        [([(0, T, ON_TIME, 1)], [(0, 5, T), (1, 5, T + 99)]), ([(0, T, ON_TIME, 4)], [(0, 9, T)])], 4,
    ),
    "the first part of a split flush does not tell of frontiers": (
        [([(0, T, ON_TIME, 1)], [(0, 5, None)]), ([(0, T, ON_TIME, 4)], [(0, 9, T + 11)])], 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("sealing", ["never", "after each", "at the end"])
@pytest.mark.parametrize(("records", "n"), VERSIONS.values(), ids=VERSIONS.keys())
def test_of_each_cell_one_version_counts(records: list[Record], n: int, sealing: str) -> None:
    table = new_table()
    if sealing == "after each":
        for offset in range(len(records)):
            fold(table, records, offset, offset + 1)
            table.seal()
    else:
        fold(table, records)
        if sealing == "at the end":
            table.seal()
    assert [total for total, _ in counts(table).values()] == [n]


def test_records_that_come_twice_in_one_call_count_once() -> None:
    """The second copy comes after the frontier that seals what is in it."""
    records: list[Record] = [
        ([(0, T, ON_TIME, 4)], [(0, 9, T)]),
        ([(0, T, T + 12, 3)], [(0, 12, T + 12)]),
        ([], [(0, 13, T + 13)]),
    ]
    once, twice = new_table(), new_table()
    fold(once, records)
    heads, rows = headings(records), cells(records)
    twice.fold(heads * 2, arrived(pl.concat([rows, rows])))
    for table in (once, twice):
        table.seal()
    assert counts(twice) == counts(once) == {T: (7, 3)}
    assert twice.frontiers == once.frontiers


def test_a_cell_of_which_rows_have_gone_keeps_none_of_the_older_ones() -> None:
    """Cells only grow, but the table does not count on it."""
    table = new_table()
    rows = [(0, 0, T, ON_TIME, bucket, True, 1, 2, 2, offset) for offset, bucket in ((0, 3), (0, 4), (1, 4))]
    heads = [Heading(offset, ((0, offset, T * 1_000),)) for offset in (0, 1)]
    table.fold(heads, arrived(pl.DataFrame(rows, schema={**CELL_ROWS, "offset": pl.Int64}, orient="row")))
    assert table.read(0, SECONDS, T, T + 1)["bucket"].to_list() == [4]


def draw_records(rng: Random) -> list[Record]:
    """Cumulative cells of two sources, as a rollup that restarts now and then sends them."""
    records, applied, frontier, n = list[Record](), [0, 0], [T, T], dict[tuple[int, int], int]()
    for _ in range(25):
        cells, told = list[Cell](), list[tuple[int, int, float | None]]()
        for source in rng.sample((0, 1), rng.randint(1, 2)):
            applied[source] += rng.randint(0, 5)
            frontier[source] += rng.choice((0, 0, 1, 4, 30, 300))
            for at in {T + rng.randrange(60) for _ in range(rng.randrange(4))}:
                n[source, at] = n.get((source, at), 0) + 1
                cells.append((source, at, rng.choice((ON_TIME, ON_TIME, frontier[source])), n[source, at]))
            told.append((source, applied[source], rng.choice((frontier[source], None))))
        records.append((cells, told))
        if rng.random() < 0.2:
            records.append(rng.choice(records))
    return records


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 32))
def test_pages_of_one_offset_are_the_same_wherever_polls_and_seals_were(seed: int) -> None:
    """So pages of different owners fit together."""
    rng = Random(seed)
    records = draw_records(rng)
    tables = [new_table(histograms_in_hours=False) for _ in range(2)]
    for table in tables:
        while table.applied + 1 < len(records):
            begin = max(0, table.applied + 1 - rng.choice((0, 0, 2)))
            fold(table, records, begin, table.applied + 1 + rng.randint(1, 9))
            if rng.random() < 0.3:
                table.seal()
        table.seal()
    one, other = tables
    assert one.frontiers == other.frontiers
    assert one.open_rows().sort(pl.all()).equals(other.open_rows().sort(pl.all()))
    for tier in TIERS:
        assert one.read(0, tier, 0, 1 << 32).equals(other.read(0, tier, 0, 1 << 32))
    assert {key: chunk.rows.frame().rows() for key, chunk in one.chunks.items()} == {
        key: chunk.rows.frame().rows() for key, chunk in other.chunks.items()
    }


def test_a_sealed_second_is_in_every_tier() -> None:
    table = new_table()
    fold(table, [([(0, T, ON_TIME, 2), (0, T + 1, ON_TIME, 1), (0, T + 60, ON_TIME, 4)], [(0, 9, T + 90)])])
    table.seal()
    assert table.open_rows().is_empty()
    assert counts(table, SECONDS) == {T: (2, 0), T + 1: (1, 0), T + 60: (4, 0)}
    assert counts(table, MINUTES) == {T - 20: (3, 0), T + 40: (4, 0)}
    assert counts(table, HOURS) == {T - 800: (7, 0)}


@pytest.mark.parametrize("sealed", [False, True])
def test_reading_takes_whole_steps_from_start_to_before_end(sealed: bool) -> None:  # noqa: FBT001 - a parameter
    table = new_table()
    fold(table, [([(0, T + n, ON_TIME, n + 1) for n in range(25)], [(0, 9, T + 99 if sealed else T)])])
    table.seal()
    assert counts(table, SECONDS, T + 3, T + 6) == {T + 3: (4, 0), T + 4: (5, 0), T + 5: (6, 0)}
    assert counts(table, SECONDS, T + 24, T + 99) == {T + 24: (25, 0)}
    assert counts(table, SECONDS, T + 25, T + 99) == {}
    assert list(counts(table, MINUTES, T - 20, T + 40)) == [T - 20]
    assert counts(table, MINUTES, T - 19, T + 40) == {}


def test_a_late_event_changes_every_tier_that_still_holds_its_time() -> None:
    table, hours_later = new_table(), T + 3 * 3_600
    fold(table, [([(0, T, ON_TIME, 2)], [(0, 5, T + 20)]), ([(0, T, hours_later, 1)], [(0, 9, hours_later + 1)])])
    table.seal()
    assert counts(table, SECONDS) == {}
    assert counts(table, MINUTES) == {T - 20: (3, 1)}
    assert counts(table, HOURS) == {T - 800: (3, 1)}


@pytest.mark.parametrize(
    ("tier", "held_s"), [(SECONDS, 10 + 600), (MINUTES, 400 + 23_400), (HOURS, 86_400 - 8_000 + 35 * 86_400)]
)
def test_a_chunk_expires_when_its_end_is_past_keeping(tier: Tier, held_s: int) -> None:
    """Its time is measured by the newest frontier: there is no clock here."""
    start = T // tier.chunk_s * tier.chunk_s
    held_s = start + tier.chunk_s + tier.keep_s - T
    for beyond, there in ((0, True), (1, False)):
        table = new_table()
        fold(table, [([(0, T, ON_TIME, 2)], [(0, 5, T + 20)])])
        table.seal()
        fold(table, [([], []), ([], [(1, 9, T + held_s + beyond)])], 1)
        table.seal()
        assert ((tier.name, start) in table.chunks) is there
        assert ((tier.name, start) in table.expired) is not there


def test_minutes_of_plain_series_keep_the_counts() -> None:
    table = new_table(histograms_in_hours=False)
    fold(table, [([(0, T, ON_TIME, 2)], [(0, 5, T + 20)])])
    table.seal()
    columns = ("bucket", "good", "n", "sum_us", "max_us")
    assert table.read(0, MINUTES, 0, 1 << 32).select(columns).rows() == [(-1, True, 2, 4, 2)]
    assert table.read(0, SECONDS, 0, 1 << 32).select(columns).rows() == [(3, True, 2, 4, 2)]
    assert {tier for tier, _ in table.chunks} == {"1s", "1m"}


def asked(packed: SloTable, usual: SloTable, rng: Random) -> None:
    """Both answer the same, also over parts of chunks."""
    states = packed.show(), usual.show()
    for tier in PLAIN_TIERS:
        start, end = T - rng.randrange(40), T + rng.randrange(1, 60)
        for bounds in ((0, 1 << 32), (start, end)):
            for numbers in ((0,), (1,), (0, 1, 7)):
                one, other = (state.summarize(numbers, tier, *bounds) for state in states)
                assert one == other
            rows, others = (state.read(0, tier, *bounds).rows() for state in states)
            assert rows == others


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_packed_table_answers_and_grows_like_one_that_is_not(seed: int) -> None:
    rng = Random(seed)
    records = draw_records(rng)
    packed, usual = (new_table(histograms_in_hours=False) for _ in range(2))
    while usual.applied + 1 < len(records):
        first, end = usual.applied + 1, usual.applied + 1 + rng.randint(1, 9)
        for table in (packed, usual):
            fold(table, records, first, end)
            table.seal()
        for chunk in packed.chunks.values():
            chunk.dirty = False
        packed.pack()
        asked(packed, usual, rng)
    assert packed.chunks.keys() == usual.chunks.keys()
    for key, chunk in usual.chunks.items():
        assert packed.chunks[key].rows.frame().rows() == chunk.rows.frame().rows()
    shown = packed.show()
    kinds = {key: type(chunk.held) for key, chunk in shown.chunks.items()}
    assert all(packed.show().chunks[key] is chunk for key, chunk in shown.chunks.items()), "shared with their sums"
    asked(packed, usual, rng)
    assert {key: type(chunk.held) for key, chunk in packed.show().chunks.items()} == kinds


def test_packing_takes_a_fraction_of_the_memory_and_keeps_every_bit() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    series, latency = rng.integers(0, 900, n) * 7, rng.lognormal(11, 1, n).astype(np.int64)
    counts_of = {"n": np.ones(n, np.int64), "late_n": np.zeros(n, np.int64), "sum_us": latency, "max_us": latency}
    frame = pl.DataFrame(
        {
            "start": T + rng.integers(0, 10, n),
            "series": series.astype(np.uint32),
            "bucket": buckets_of(latency),
            "good": rng.random(n) < 0.9,
            **counts_of,
        }
    )
    steps = Steps.from_frame(frame.select(STEP_SCHEMA.names()).cast(STEP_SCHEMA))
    packed = Packed.of(steps)
    assert packed.steps().frame().equals(steps.frame())
    assert len(packed.data) * 5 < 40 * len(steps.key)
    assert packed.of_series(14).frame().equals(steps.where(of_series(steps.key, 14)).frame())
    assert Packed.of(Steps.empty()).steps().frame().is_empty()


def test_sealed_is_what_every_source_has_sealed() -> None:
    table = new_table()
    assert table.sealed_to_ms() == 0
    fold(table, [([], [(0, 5, T + 0.5)]), ([], [(0, 6, T + 30), (1, 2, T + 12.999)]), ([], [(1, 3, T + 13)])], 0, 1)
    assert table.sealed_to_ms() == (T - 10) * 1_000
    fold(table, [([], [(0, 5, T + 0.5)]), ([], [(0, 6, T + 30), (1, 2, T + 12.999)])], 1)
    assert table.sealed_to_ms() == (T + 2) * 1_000


def test_a_frontier_never_goes_back() -> None:
    table = new_table()
    fold(table, [([], [(0, 9, T + 30)]), ([], [(0, 4, T)])])
    assert table.frontiers == {0: (T + 30) * 1_000}


def test_only_chunks_that_changed_are_dirty() -> None:
    table = new_table()
    records: list[Record] = [
        ([(0, T, ON_TIME, 1), (0, T + 10, ON_TIME, 1)], [(0, 5, T + 12)]),
        ([(0, T + 10, ON_TIME, 2)], [(0, 7, T + 40)]),
    ]
    for offset, dirty in enumerate([{("1s", T)}, {("1s", T + 10)}]):
        fold(table, records, offset, offset + 1)
        table.seal()
        found = dict(table.dirty_chunks())
        assert {key for key in found if key[0] == "1s"} == dirty
        assert all(chunk.applied == offset for chunk in found.values())
        for chunk in found.values():
            chunk.dirty = False
    table.seal()
    assert list(table.dirty_chunks()) == []


def recovered_between_chunks_and_open_cells() -> tuple[SloTable, list[Record]]:
    """A table whose chunks are at offset 1, the open cells at 0: its owner died between two page writes."""
    records: list[Record] = [([(0, T, ON_TIME, 2)], [(0, 5, T + 1)]), ([], [(0, 6, T + 20)])]
    table, index, pages = new_table(), SeriesIndex(), PartPages()
    index.number("a")
    fold(table, records, 0, 1)
    pages.apply(page_key("f", OPEN, "e"), write_open(table, Origin(), index))
    fold(table, records, 1)
    table.seal()
    for key, chunk in table.chunks.items():
        pages.apply(page_key("f", chunk_part(key), "e"), write_chunk(chunk, Origin(), index))
    again = new_table()
    assert load(again, pages, "f", index) == []
    return again, records


def test_chunks_ahead_of_the_open_cells_are_not_added_to_twice() -> None:
    table, records = recovered_between_chunks_and_open_cells()
    fold(table, records, 1)
    table.seal()
    assert counts(table) == {T: (2, 0)}
    assert list(table.dirty_chunks()) == []


def test_chunks_ahead_of_the_open_cells_are_not_answered_from_before_they_have_caught_up() -> None:
    table, _ = recovered_between_chunks_and_open_cells()
    with pytest.raises(NotCaughtUpError, match="read up to offset 0 of slo-partials; expected 1"):
        counts(table)


def test_chunks_ahead_of_the_open_cells_are_not_read_twice() -> None:
    table, records = recovered_between_chunks_and_open_cells()
    fold(table, records, 1)
    assert counts(table) == {T: (2, 0)}
