"""Pages of format 1 as the first versions wrote them, without topic ids: `pages_format_1.json` stays readable.

Whoever changes what pages hold keeps this test, and adds another one with pages of his format.
"""

import base64
import json
from pathlib import Path

import numpy as np
import polars as pl

from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.series import SeriesIndex
from streams.core.slices import COUNTS, HOURS, MINUTES, SECONDS
from streams.core.table import SloTable
from streams.engine.node_pages import read_page
from streams.engine.page_heads import FORMAT, Origin, origin_now
from streams.engine.pages import PartPages, load
from streams.engine.topic_ids import TopicIdentity

PAGES = json.loads(Path(__file__).with_name("pages_format_1.json").read_text(encoding="utf-8"))
COUNTS_PAGES = json.loads(Path(__file__).with_name("pages_counts_format_1.json").read_text(encoding="utf-8"))
SECOND = 1_763_000_000


def test_format_1_is_the_one_that_is_written() -> None:
    """A new format needs golden pages of its own."""
    assert FORMAT == 1


def test_tables_of_the_first_version_come_back() -> None:
    pages, index = PartPages(), SeriesIndex()
    index.number("another one")
    for key, value in PAGES["slo"].items():
        pages.apply(key.encode(), base64.b64decode(value))
    origins = [page.origin for page in pages.all()]
    origin = origin_now(TopicIdentity("id", 4), origins)
    assert (set(origins), origin) == ({Origin()}, Origin("id", 0, 4))
    table = SloTable(histograms_in_hours=True)
    assert load(table, pages, "series", index, origin) == []
    assert (table.applied, table.frontiers, table.lineage.newest) == (2, {0: (SECOND + 20) * 1_000}, {})
    plain, judged = index.number("a"), index.number("slo:checkout@v1")
    assert table.read(plain, SECONDS, 0, 1 << 32).drop("series").rows() == [
        (SECOND, 3, True, 6, 0, 30, 5),
        (SECOND + 60, 3, True, 1, 0, 5, 5),
    ]
    assert table.read(judged, MINUTES, 0, 1 << 32)["n"].to_list() == [2]
    assert table.read(plain, HOURS, 0, 1 << 32)["n"].sum() == 7


def test_counts_by_the_minute_come_back_for_the_series_that_ask_for_them() -> None:
    """Pages of the same format, as the version wrote them that brought time slices: two minutes, one still open."""
    pages, index = PartPages(), SeriesIndex()
    index.number("another one")
    for key, value in COUNTS_PAGES.items():
        pages.apply(key.encode(), base64.b64decode(value))
    table = SloTable(histograms_in_hours=True, index=index)
    assert load(table, pages, "objectives", index, Origin()) == []
    events, slices = index.number("slo:events@v1"), index.number("slo:slices@v1-1m")
    assert table.read(slices, COUNTS, 0, 1 << 32).drop("series").rows() == [
        (SECOND - 20, -1, False, 2, 0, 10, 5),
        (SECOND - 20, -1, True, 6, 0, 30, 5),
        (SECOND + 40, -1, True, 5, 0, 25, 5),
    ]
    assert table.read(events, COUNTS, 0, 1 << 32).is_empty()
    assert table.read(events, MINUTES, 0, 1 << 32)["n"].to_list() == [2, 6, 1]


def test_nodes_of_the_first_version_come_back() -> None:
    columns = {
        name: [f"{name}-{row}" for row in range(2)] if dtype == pl.String else np.arange(2)
        for name, dtype in PAGE_SCHEMA.items()
    }
    origin, rows = read_page(base64.b64decode(PAGES["nodes"]), 3)
    assert origin == Origin()
    assert rows.equals(pl.DataFrame(columns, schema=PAGE_SCHEMA))
