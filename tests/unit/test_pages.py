"""State pages: the greatest applied offset counts, whoever wrote it and whenever; what is no page is refused."""

import json
import struct
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import load_catalog
from streams.core.cells import CELL_ROWS
from streams.core.rows import OPEN_SCHEMA, OpenCells
from streams.core.series import MOST_NAME_BYTES, SeriesIndex
from streams.core.slices import TIERS
from streams.core.table import Heading, SloTable
from streams.engine.frames import FrameError, pack
from streams.engine.page_heads import Origin, PageFormatError
from streams.engine.pages import OPEN, PartPages, chunk_part, load, page_key, read_page, write_chunk, write_open

SECOND = 1_763_000_000
KEY = page_key("series", OPEN, "e")
ORIGIN = Origin("id", 0, 4)


def table_of(*records: tuple[int, int, int], hours: bool = True) -> SloTable:
    """A table after records of (slice, n, frontier), all of one series and source."""
    table = SloTable(histograms_in_hours=hours)
    rows = [(0, 0, at, -1, 3, True, n, n * 5, 5, offset) for offset, (at, n, _) in enumerate(records)]
    heads = [Heading(offset, ((0, offset, frontier),)) for offset, (_, _, frontier) in enumerate(records)]
    frame = pl.DataFrame(rows, schema={**CELL_ROWS, "offset": pl.Int64}, orient="row")
    table.fold(heads, OpenCells.arrived(frame, frame["offset"].to_numpy()))
    table.seal()
    return table


# Of one partition of twelve when a flood has taken all numbers, or all room for names.
MANY = ((1 << 20) // 12, 8)
LONG = (MOST_NAME_BYTES // 12 // 1_000, 1_000)


@pytest.mark.parametrize(("cells", "name_bytes"), [MANY, LONG])
def test_the_page_of_a_flood_is_no_larger_than_the_topic_takes(cells: int, name_bytes: int) -> None:
    rng = np.random.default_rng(1)
    index = index_of(*(rng.bytes(name_bytes // 2).hex() for _ in range(cells)))
    latency_us = rng.integers(1, 1_000_000, cells)
    columns = {
        **dict.fromkeys(OPEN_SCHEMA, np.ones(cells, np.int64)),
        "series": np.arange(cells),
        "source": rng.integers(0, 12, cells),
        "slice": SECOND + rng.integers(0, 15, cells),
        "bucket": rng.integers(0, 700, cells),
        "good": rng.random(cells) < 0.9,
        "sum_us": latency_us,
        "max_us": latency_us,
        "applied": rng.integers(0, 100_000, cells),
        "offset": rng.integers(0, 1_000, cells),
    }
    table = SloTable(histograms_in_hours=False)
    table.restore(0, {}, pl.DataFrame(columns).cast(OPEN_SCHEMA), {})
    takes_mb = load_catalog().topic("fleetbeat-worker-pages-changelog").max_message_mb
    assert takes_mb is not None
    assert len(write_open(table, ORIGIN, index)) < takes_mb << 20


TABLE = table_of((SECOND, 4, 0), (SECOND, 6, 0), (SECOND + 60, 1, (SECOND + 20) * 1_000))


def index_of(*names: str) -> SeriesIndex:
    index = SeriesIndex()
    for name in names:
        index.number(name)
    return index


def pages_of(table: SloTable, epoch: str = "e") -> list[tuple[bytes, bytes]]:
    index = index_of("a")
    chunks = [
        (page_key("series", chunk_part(key), epoch), write_chunk(chunk, ORIGIN, index))
        for key, chunk in table.chunks.items()
    ]
    return [*chunks, (page_key("series", OPEN, epoch), write_open(table, ORIGIN, index))]


def collected(*pages: tuple[bytes, bytes | None]) -> PartPages:
    found = PartPages()
    for key, value in pages:
        found.apply(key, value)
    return found


def loaded(pages: PartPages, index: SeriesIndex) -> SloTable:
    table = SloTable(histograms_in_hours=True)
    assert load(table, pages, "series", index) == []
    return table


def unusable(pages: PartPages, index: SeriesIndex | None = None) -> tuple[SloTable, list[str]]:
    """What is left of a table, and why."""
    table = SloTable(histograms_in_hours=True)
    return table, load(table, pages, "series", index or index_of())


def answers(table: SloTable, series: int) -> list[list[tuple[object, ...]]]:
    return [table.read(series, tier, 0, 1 << 32).drop("series").rows() for tier in TIERS]


def test_a_table_comes_back_from_its_pages_under_other_numbers() -> None:
    index = index_of("x", "y", "a")
    table = loaded(collected(*pages_of(TABLE)), index)
    assert answers(table, 2) == answers(TABLE, 0)
    assert (table.applied, table.frontiers, table.sealed_to_ms()) == (2, TABLE.frontiers, TABLE.sealed_to_ms())
    assert table.open_rows().drop("series").equals(TABLE.open_rows().drop("series"))
    assert list(table.dirty_chunks()) == []


def test_pages_of_another_family_are_not_loaded() -> None:
    table = SloTable(histograms_in_hours=True)
    assert load(table, collected(*pages_of(TABLE)), "objectives", index_of()) == []
    assert (table.applied, table.chunks) == (-1, {})


@given(st.randoms())
def test_in_any_order_the_newest_pages_count(rng: Random) -> None:
    tables = [table_of(*[(SECOND, n + 1, 0) for n in range(count)]) for count in (1, 2, 3)]
    pages = [page for n, table in enumerate(tables) for page in pages_of(table, f"epoch{n}")]
    rng.shuffle(pages)
    assert answers(loaded(collected(*pages), index := index_of()), index.number("a")) == answers(tables[2], 0)


def test_a_part_whose_pages_are_all_deleted_is_gone_and_one_left_is_enough() -> None:
    (_, one), (_, two) = pages_of(table_of((SECOND, 1, 0)))[0], pages_of(table_of((SECOND, 2, 0)))[0]
    keys = [page_key("series", OPEN, epoch) for epoch in "ab"]
    pages = collected((keys[0], one), (keys[1], two), (keys[0], None))
    assert [page.applied for page in pages.of("series")[OPEN]] == [0]
    pages.apply(keys[1], None)
    assert pages.of("series") == {}


def test_open_cells_that_stand_for_a_newer_chunk_than_there_is_do_not_count() -> None:
    """An older page of them does, if it stands for what there is."""
    old, new = table_of((SECOND, 4, 0)), TABLE
    assert new.chunks
    pages = collected(*pages_of(old, "old"), pages_of(new, "new")[-1])
    assert loaded(pages, index_of()).applied == old.applied
    table, reasons = unusable(collected(pages_of(new)[-1]))
    assert (table.applied, len(reasons)) == (-1, 1)
    assert "stands for chunk 1" in reasons[0]
    assert "found none" in reasons[0]


def page(header: object, body: bytes = b"") -> bytes:
    head = json.dumps(header).encode()
    return struct.pack(">I", len(head)) + head + body


WHOLE = {"format": 1, "applied": 1, "frontiers": {}, "series": []}
NOT_PAGES = {
    "no value": b"",
    "cut in the length": b"\x00\x00",
    "cut in the header": page(WHOLE)[:-4],
    "no JSON": struct.pack(">I", 3) + b"{,}",
    "no object": page([1]),
    "no text": struct.pack(">I", 2) + b"\xff\xff",
    "a format that never was": page({**WHOLE, "format": 0}),
    "a format that is no number": page({**WHOLE, "format": "2"}),
    "nested without end": struct.pack(">I", 200_000) + b"[" * 200_000,
    **{f"without {name}": page({key: value for key, value in WHOLE.items() if key != name}) for name in WHOLE},
    "frontiers of another kind": page({**WHOLE, "frontiers": []}),
    "sources of another kind": page({**WHOLE, "sources": []}),
    "a generation that cannot be": page({**WHOLE, "generation": -1}),
    "partitions of another kind": page({**WHOLE, "partitions": []}),
}


@pytest.mark.parametrize("value", NOT_PAGES.values(), ids=NOT_PAGES.keys())
def test_a_page_that_cannot_be_read_leaves_the_chunks_and_no_open_cells(value: bytes) -> None:
    """So that all input is folded again; what the chunks hold is not added again."""
    with pytest.raises(FrameError):
        read_page(KEY, value)
    table, reasons = unusable(collected(*pages_of(TABLE), (KEY, value), (b"", value), (b"a/b", value)))
    assert len(reasons) == 1
    assert (table.applied, table.chunks.keys()) == (-1, TABLE.chunks.keys())


def test_a_page_that_could_not_be_read_is_forgotten_when_it_is_written_anew_or_deleted() -> None:
    pages = collected((KEY, b"junk"), *pages_of(TABLE), (page_key("series", "1s:5", "e"), b"junk"))
    assert len(pages.unreadable("series")) == 1
    pages.apply(page_key("series", "1s:5", "e"), None)
    assert loaded(pages, index_of()).applied == TABLE.applied


@pytest.mark.parametrize("key", [b"", b"series", b"series/open", b"a/b/c/d", b"series/1s/e", b"series/1s:x/e",
                                 b"series/2s:5/e", b"\xff/open/e"])  # fmt: skip
def test_foreign_keys_are_no_pages(key: bytes) -> None:
    with pytest.raises(FrameError, match="cannot be read"):
        read_page(key, page(WHOLE))


def test_a_page_of_a_newer_version_is_not_taken_for_junk() -> None:
    """Counted again from the log, it would be overwritten, and with it what the log no longer holds."""
    with pytest.raises(PageFormatError, match=r"page b'series/open/e': page format 4; expected 3.*upgrade this worker"):
        collected(*pages_of(TABLE), (KEY, page({**WHOLE, "format": 4})))


@pytest.mark.parametrize(
    "body", [b"", pack(pl.DataFrame(schema=CELL_ROWS)), pack(TABLE.open_rows()), pack(TABLE.open_rows())[:-8]]
)
def test_rows_that_cannot_be_read_are_told_by_the_pages_key(body: bytes) -> None:
    """The third body is whole, but it names a series that the header does not."""
    table, reasons = unusable(collected((KEY, page(WHOLE, body))))
    assert (table.applied, len(reasons)) == (-1, 1)
    assert "page b'series/open/e' at offset 1 cannot be read" in reasons[0]


def test_of_a_chunk_whose_newest_page_cannot_be_read_the_one_before_counts() -> None:
    """It holds what is older than the input, perhaps; what is newer is added by the input."""
    (key, value), *_ = pages_of(TABLE, "old")
    broken = json.loads(value[4 : 4 + struct.unpack_from(">I", value)[0]]) | {"applied": 9}
    other = key.replace(b"/old", b"/new")
    table, reasons = unusable(collected((key, value), (other, page(broken, b"junk"))))
    assert [chunk.applied for chunk in table.chunks.values()] == [2]
    assert len(reasons) == 1


def test_an_empty_open_page_is_a_page() -> None:
    table = loaded(collected((KEY, page(WHOLE, pack(pl.DataFrame(schema=OPEN_SCHEMA))))), index_of())
    assert (table.applied, table.open_rows().height) == (1, 0)
