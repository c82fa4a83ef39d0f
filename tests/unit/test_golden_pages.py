"""Pages as earlier versions wrote them stay readable: of format 1 without topic ids, of format 2 with packed names.

Whoever changes what pages hold keeps this test, and adds another one with pages of his format.
"""

import base64
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.series import SeriesIndex
from streams.core.slices import HOURS, MINUTES, SECONDS
from streams.core.table import SloTable
from streams.engine.node_pages import read_page
from streams.engine.page_heads import FORMAT, Origin, origin_now
from streams.engine.pages import PartPages, load
from streams.engine.topic_ids import TopicIdentity

PAGES, PAGES_2 = (
    json.loads(Path(__file__).with_name(f"pages_format_{number}.json").read_text(encoding="utf-8")) for number in (1, 2)
)
SECOND = 1_763_000_000


def test_format_2_is_the_one_that_is_written() -> None:
    """A new format needs golden pages of its own."""
    assert FORMAT == 2


@pytest.mark.parametrize(("golden", "written"), [(PAGES, Origin()), (PAGES_2, Origin("id", 0, 4))])
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
