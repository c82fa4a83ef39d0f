"""Flushes as records of `slo-partials`: split by size between cells, and refused by name when they cannot be read."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import DecodeError, encode
from schemas.records import Heartbeat, SloPartial, Source
from streams.core.cells import CELL, CELL_ROWS
from streams.core.series import SeriesIndex
from streams.engine import partials
from streams.engine.frames import FrameError, pack, unpack
from streams.engine.partials import heading, read_partial, write_partials

SOURCES = (Source(3, 41, 1_000), Source(5, 7, 900))
NO_ROWS = pl.DataFrame(schema=CELL_ROWS)


def cell_rows(cells: int, buckets: int, series: int = 1) -> pl.DataFrame:
    rows = [
        (cell % 2, cell % series, 1_000 + cell // series, -1 if cell % 3 else 1_500, bucket, True, 1, cell * 7, bucket)
        for cell in range(cells)
        for bucket in range(buckets)
    ]
    return pl.DataFrame(rows, schema=CELL_ROWS, orient="row")


def index_of(*names: str) -> SeriesIndex:
    index = SeriesIndex()
    for name in names:
        index.number(name)
    return index


def written(rows: pl.DataFrame, index: SeriesIndex) -> list[bytes]:
    return list(write_partials("probe-results", "id", SOURCES, rows, index))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 3), st.integers(1, 4_000))
def test_records_are_small_whole_cells_and_only_the_last_one_tells_the_frontiers(
    cells: int, buckets: int, series: int, limit: int
) -> None:
    rows, index = cell_rows(cells, buckets, series), index_of("a", "b", "c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partials, "MAX_RECORD_BYTES", limit)
        values = written(rows, index)
    read = [read_partial(value, index) for value in values]
    for value, (_, part) in zip(values, read, strict=True):
        assert len(value) <= limit or part.select(CELL).n_unique() <= 1
    found = [part.with_columns(_record=pl.lit(n)) for n, (_, part) in enumerate(read)]
    assert pl.concat(found).group_by(CELL).agg(pl.col("_record").n_unique()).filter(pl.col("_record") > 1).is_empty()
    assert pl.concat(found).drop("_record").sort(CELL_ROWS.names()).equals(rows.sort(CELL_ROWS.names()))
    assert [record.sources for record, _ in read[:-1]] == [(Source(3, 41), Source(5, 7))] * (len(read) - 1)
    assert read[-1][0].sources == SOURCES


def test_long_names_count_too() -> None:
    names = [f"{number}" + "x" * 200 for number in range(8_000)]
    values = written(cell_rows(8_000, 1, series=8_000), index_of(*names))
    assert len(values) > 1
    assert max(map(len, values)) <= partials.MAX_RECORD_BYTES


def test_one_series_of_many_cells_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage one objective may have a cell for every second of every source."""
    monkeypatch.setattr(partials, "MAX_RECORD_BYTES", 10_000)
    values = written(cell_rows(3_000, 5), index_of("slo:all@1"))
    assert len(values) > 1
    assert max(map(len, values)) <= 10_000


def test_frontiers_without_cells_are_a_record_too() -> None:
    (value,) = written(NO_ROWS, index_of())
    record, rows = read_partial(value, index_of())
    assert rows.is_empty()
    assert heading(12, record).sources == ((3, 41, 1_000), (5, 7, 900))


BAD_CELLS = {
    "nothing": b"",
    "no Arrow stream": b"not a frame",
    "another column": pack(NO_ROWS.rename({"n": "m"})),
    "another type": pack(NO_ROWS.cast({"n": pl.Int32})),
    "a null": pack(cell_rows(1, 1).with_columns(n=pl.lit(None, pl.Int64))),
    "a series without a name": pack(cell_rows(2, 1, series=2)),
    "cut inside the rows": pack(cell_rows(5, 5))[:-20],
    "cut between rows and end": pack(cell_rows(5, 5))[:-8],
}


@pytest.mark.parametrize("cells", BAD_CELLS.values(), ids=BAD_CELLS.keys())
def test_unreadable_cells_are_refused(cells: bytes) -> None:
    index = index_of()
    with pytest.raises(FrameError):
        read_partial(encode(SloPartial("probe-results", "id", SOURCES, ("a",), cells)), index)
    assert index.names == []


def test_other_records_are_refused() -> None:
    beat = encode(Heartbeat("n", 2, "b", 1, 0, 5_000, "UP", "r", "z", "0"))
    with pytest.raises(FrameError, match="a Heartbeat; expected a SloPartial"):
        read_partial(beat, index_of())
    for value in (None, b"", b"\x00\x00\x00\x00\x03junk", beat[:-1]):
        with pytest.raises(DecodeError):
            read_partial(value, index_of())


@pytest.mark.parametrize("rows", [NO_ROWS, cell_rows(1, 1), cell_rows(40, 30)], ids=["empty", "one", "many"])
def test_no_part_of_a_frame_reads_as_a_frame(rows: pl.DataFrame) -> None:
    whole = pack(rows)
    assert unpack(whole, CELL_ROWS).equals(rows)
    for cut in {*range(max(0, len(whole) - 40), len(whole)), *range(0, len(whole), 37)}:
        with pytest.raises(FrameError):
            unpack(whole[:cut], CELL_ROWS)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_frame(data: bytes) -> None:
    for value in (data, data + pack(NO_ROWS)[-8:]):
        with pytest.raises(FrameError):
            unpack(value, CELL_ROWS)
