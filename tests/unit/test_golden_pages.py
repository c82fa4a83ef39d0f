"""Pages as earlier versions wrote them stay readable: of format 1 without topic ids, of format 3 with packed names.

`pages_format_2.json`: of a table that has heard of request-counts, which had been created anew; in format 3 it is there
too. Whoever changes what pages hold keeps these tests, and adds another one with pages of his format.
"""

import base64
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from streams.core.histogram import NO_BUCKET
from streams.core.lineage import number
from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.series import SeriesIndex
from streams.core.slices import COUNTS as MINUTE_COUNTS
from streams.core.slices import HOURS, MINUTES, SECONDS
from streams.core.sources import COUNTS, PROBES, lane
from streams.core.table import SloTable
from streams.engine.node_pages import read_page
from streams.engine.page_heads import NODES_FORMAT, SLO_FORMAT, Origin, origin_now
from streams.engine.pages import PartPages, load, write_open
from streams.topic_ids import TopicIdentity

PAGES, OF_TWO, PAGES_3 = (
    json.loads(Path(__file__).with_name(f"pages_format_{number}.json").read_text(encoding="utf-8"))
    for number in (1, 2, 3)
)
COUNTS_PAGES = json.loads(Path(__file__).with_name("pages_counts_format_1.json").read_text(encoding="utf-8"))
SECOND = 1_763_000_000
SERIES = '["s","/","eu","requests","request-counts"]'


def test_formats_1_and_3_are_those_that_are_written() -> None:
    """A new format needs golden pages of its own."""
    assert (NODES_FORMAT, SLO_FORMAT) == (1, 3)
    assert write_open(SloTable(histograms_in_hours=True), Origin(), SeriesIndex())[4:].startswith(b'{"format":3,')


@pytest.mark.parametrize("golden", [OF_TWO["slo"], PAGES_3["two topics"]])
def test_a_table_of_two_topics_comes_back(golden: dict[str, str]) -> None:
    pages, index = PartPages(), SeriesIndex()
    for key, value in golden.items():
        pages.apply(key.encode(), base64.b64decode(value))
    table = SloTable(histograms_in_hours=True)
    assert load(table, pages, "series", index, Origin("id", 0, 4)) == []
    counts = lane(COUNTS, 3)
    assert table.frontiers == {3: (SECOND + 1) * 1_000, counts: (SECOND + 1) * 1_000}
    assert table.lineage.topics == {PROBES: ["A"], COUNTS: ["B", "C"]}
    assert (table.lineage.newest, list(table.lineage.retired())) == ({counts: 1}, [counts])
    probed, counted = (index.number(name) for name in ('["s","/","eu","http"]', SERIES))
    assert table.read(probed, SECONDS, 0, 1 << 32).drop("series").rows() == [(SECOND, 3, True, 6, 0, 30, 5)]
    assert table.read(counted, SECONDS, 0, 1 << 32).drop("series").rows() == [
        (SECOND, 3, False, 40, 0, 200, 5),
        (SECOND, NO_BUCKET, True, 500, 0, 2_500, 5),
        (SECOND + 1, 3, True, 9, 0, 45, 5),
    ]
    assert set(table.open_rows()["source"]) == {3, number(counts, 1)}


@pytest.mark.parametrize(("golden", "written"), [(PAGES, Origin()), (PAGES_3, Origin("id", 0, 4))])
def test_tables_of_earlier_versions_come_back(golden: dict[str, dict[str, str]], written: Origin) -> None:
    pages, index = PartPages(), SeriesIndex()
    index.number("another one")
    for key, value in golden["slo"].items():
        pages.apply(key.encode(), base64.b64decode(value))
    origins = [page.origin for page in pages.all()]
    origin = origin_now(TopicIdentity("id", 4), origins)
    assert (set(origins), origin) == ({written}, Origin("id", 0, 4))
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
    assert table.read(slices, MINUTE_COUNTS, 0, 1 << 32).drop("series").rows() == [
        (SECOND - 20, -1, False, 2, 0, 10, 5),
        (SECOND - 20, -1, True, 6, 0, 30, 5),
        (SECOND + 40, -1, True, 5, 0, 25, 5),
    ]
    assert table.read(events, MINUTE_COUNTS, 0, 1 << 32).is_empty()
    assert table.read(events, MINUTES, 0, 1 << 32)["n"].to_list() == [2, 6, 1]


def test_nodes_of_the_first_version_come_back() -> None:
    columns = {
        name: [f"{name}-{row}" for row in range(2)] if dtype == pl.String else np.arange(2)
        for name, dtype in PAGE_SCHEMA.items()
    }
    origin, rows = read_page(base64.b64decode(PAGES["nodes"]), 3)
    assert origin == Origin()
    assert rows.equals(pl.DataFrame(columns, schema=PAGE_SCHEMA))


def test_hours_of_plain_series_are_given_up() -> None:
    """Earlier versions kept them; nobody asked for them."""
    pages, index = PartPages(), SeriesIndex()
    for key, value in PAGES["slo"].items():
        pages.apply(key.encode(), base64.b64decode(value))
    table = SloTable(histograms_in_hours=False)
    assert load(table, pages, "series", index) == []
    table.seal()
    assert {tier for tier, _ in table.chunks} == {"1s", "1m"}
    assert {tier for tier, _ in table.expired} == {"1h"}
