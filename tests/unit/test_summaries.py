"""What is shown of a table sums up to what its rows do: any windows, tiers and series, before and after a seal."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.cells import CELL_ROWS
from streams.core.rows import OpenCells
from streams.core.slices import HOURS, MINUTES, ON_TIME, SECONDS, Tier
from streams.core.summaries import ShownRows
from streams.core.table import Heading, SloTable
from streams.core.windows import Summary, summarize_all

BEGIN_S = 1_767_225_600
SERIES = (0, 1, 2)
TIERS = (SECONDS, MINUTES, HOURS)

# (series, seconds ago, bucket, good, n, late)
Cell = tuple[int, int, int, bool, int, bool]
cells = st.lists(
    st.tuples(
        st.sampled_from(SERIES),
        st.sampled_from([0, 1, 5, 9, 10, 11, 59, 60, 61, 300, 599, 3_599, 3_600, 7_000, 86_400, 200_000]),
        st.sampled_from([0, 1, 2, 400, 1_200]),
        st.booleans(),
        st.integers(1, 5),
        st.booleans(),
    ),
    max_size=30,
)
bounds = st.integers(-90_000, 20)


def folded(batches: list[list[Cell]]) -> SloTable:
    """Each batch a record a second; the table is sealed after every other one."""
    table = SloTable(histograms_in_hours=True)
    for offset, batch in enumerate(batches):
        now_s = BEGIN_S + 20 * offset
        rows = [
            (0, series, now_s - ago, now_s if late else ON_TIME, bucket, good, n, n * 7, 7 + bucket)
            for series, ago, bucket, good, n, late in {(c[:4], c[5]): c for c in batch}.values()
        ]
        frame = pl.DataFrame(rows, schema=CELL_ROWS, orient="row").with_columns(offset=pl.lit(offset, pl.Int64))
        table.fold(
            [Heading(offset, ((0, offset, now_s * 1_000),))], OpenCells.arrived(frame, frame["offset"].to_numpy())
        )
        if offset % 2:
            table.seal()
        table.show().summarize(SERIES, SECONDS, BEGIN_S, BEGIN_S + 60)  # a reader, whose sums are kept
    return table


def by_rows(table: SloTable, numbers: tuple[int, ...], tier: Tier, start_s: int, end_s: int) -> Summary:
    """The same without any sum that was kept."""
    parts = [table.read(number, tier, start_s, end_s) for number in numbers]
    return summarize_all(pl.concat(parts).sort("start"), start_s)


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=5), st.sampled_from(TIERS), bounds, bounds)
def test_a_window_is_the_sum_of_its_rows(batches: list[list[Cell]], tier: Tier, one: int, other: int) -> None:
    table = folded(batches)
    shown = table.show()
    windows = [(BEGIN_S + min(one, other), BEGIN_S + max(one, other)), (BEGIN_S - 40, BEGIN_S + 90), (0, 1 << 31)]
    for start_s, end_s in windows:
        for numbers in ((0,), (1, 2)):
            wanted = by_rows(table, numbers, tier, start_s, end_s)
            assert shown.summarize(numbers, tier, start_s, end_s) == wanted
            assert shown.summarize(numbers, tier, start_s, end_s) == wanted, "the second time"


def test_a_quiet_table_keeps_no_more_windows_the_longer_it_is_asked() -> None:
    shown = folded([[(0, 0, 1, True, 1, False)]]).show()
    for second in range(1_000):
        assert shown.summarize((0,), SECONDS, BEGIN_S - second, BEGIN_S + 1).total == 1
    assert len(shown._windows) <= 256


def test_nothing_is_the_sum_of_no_rows() -> None:
    assert SloTable(histograms_in_hours=True).show().summarize((5,), SECONDS, 3, 9) == Summary(3)


def test_what_no_fold_has_changed_is_shared_with_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    table = folded([[(0, 0, 1, True, 1, False)], [], [(0, 0, 1, True, 1, False)], []])
    before = table.show()
    window = (BEGIN_S - 100_000 // 600 * 600, BEGIN_S + 6_000)
    wanted = before.summarize((0,), MINUTES, *window)
    made: list[int] = []
    whole = ShownRows.whole

    def counting(self: ShownRows, series: int) -> Any:  # noqa: ANN401 - as the method
        made.append(len(self._wholes))
        return whole(self, series)

    monkeypatch.setattr(ShownRows, "whole", counting)
    none = OpenCells.arrived(pl.DataFrame(schema=CELL_ROWS), np.zeros(0, np.int64))
    table.fold([Heading(9, ((0, 9, (BEGIN_S + 61) * 1_000),))], none)
    after = table.show()
    assert all(after.chunks[key] is chunk for key, chunk in before.chunks.items())
    assert after.summarize((0,), MINUTES, *window) == wanted
    assert np.any(np.array(made) == 1), "sums of before are there"
