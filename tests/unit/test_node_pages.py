"""Pages of nodes as bytes: what comes back, and what is refused."""

import numpy as np
import polars as pl
import pytest

from streams.core.liveness.columns import PAGE_SCHEMA
from streams.engine.frames import FrameError
from streams.engine.node_pages import PartitionPages, page_key, read_page, write_page
from streams.engine.page_heads import Origin, PageFormatError

ORIGIN = Origin("id", 0, 4)


def rows(count: int) -> pl.DataFrame:
    columns = {
        name: [f"{name}-{row}" for row in range(count)] if dtype == pl.String else np.arange(count) % 100
        for name, dtype in PAGE_SCHEMA.items()
    }
    return pl.DataFrame(columns, schema=PAGE_SCHEMA)


@pytest.mark.parametrize("count", [0, 1, 1_024])
def test_a_page_comes_back_as_it_was(count: int) -> None:
    origin, found = read_page(write_page(rows(count), 3, ORIGIN), 3)
    assert origin == ORIGIN
    assert found.equals(rows(count))


def test_a_page_of_another_partition_is_refused() -> None:
    with pytest.raises(FrameError, match="of partition 3; expected 4"):
        read_page(write_page(rows(1), 3, ORIGIN), 4)


@pytest.mark.parametrize("spoil", [lambda v: v[:-9], lambda v: v[:30], lambda _: b"", lambda v: b"\xff" * len(v)])
def test_a_spoiled_page_is_refused(spoil: object) -> None:
    with pytest.raises(FrameError, match="cannot be read"):
        read_page(spoil(write_page(rows(10), 3, ORIGIN)), 3)  # type: ignore[operator]


def test_a_page_of_another_format_stops_the_worker_instead_of_losing_nodes() -> None:
    value = write_page(rows(1), 3, ORIGIN).replace(b'"format":1', b'"format":3')
    pages = PartitionPages(3)
    pages.apply([(page_key(0, "a"), value)])
    with pytest.raises(PageFormatError, match="format 3; expected 2"):
        list(pages.rows(ORIGIN))


def test_of_each_owner_the_newest_value_of_a_page_counts_and_tombstones_remove() -> None:
    pages = PartitionPages(3)
    first, second = write_page(rows(1), 3, ORIGIN), write_page(rows(2), 3, ORIGIN)
    pages.apply([(page_key(0, "a"), first), (page_key(0, "b"), first), (page_key(1, "a"), first)])
    pages.apply([(page_key(0, "a"), second), (page_key(1, "a"), None), (page_key(7, "z"), None)])
    assert pages.values == {page_key(0, "a"): second, page_key(0, "b"): first}
    assert sorted(page.height for page in pages.rows(ORIGIN)) == [1, 2]


def test_what_cannot_be_read_is_left_out_and_told() -> None:
    pages = PartitionPages(3)
    pages.apply([(b"0/a", write_page(rows(2), 3, ORIGIN)), (b"1/a", b"rubbish"), (None, b"rubbish")])
    assert [page.height for page in pages.rows(ORIGIN)] == [2]
    assert len(pages.unreadable) == 2
