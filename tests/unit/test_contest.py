"""What `bench peers` compares by: windows worked out slowly, faults that it must find, and the peers' formats."""

import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from aiokafka.structs import ConsumerRecord

from streams.core.cells import CELL_ROWS
from streams.core.histogram import BOUNDS, buckets_of
from streams.core.rows import OpenCells
from streams.core.series import SeriesIndex, series_name
from streams.core.table import Heading, SloTable
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, PartPages, chunk_part, page_key, write_chunk, write_open
from tests.bench.contest import changelogs
from tests.bench.contest.racing import Sample, judge, told_by
from tests.bench.contest.windows import Windows, bounds, difference, from_lists, recompute
from tests.bench.contest.worker import of_tables, table_of
from tests.programs import need, run

JAVA = Path(__file__).parents[1] / "bench" / "peers" / "kafka_streams" / "src" / "main" / "java"
PAIRS = ("checkout\t/pay", "search\t/")
# pair, time in ms, good, latency in µs
EVENTS = [(0, 119_999, True, 1_000), (0, 120_000, False, 0), (1, 60_000, True, 5_000), (0, 61_500, True, 999_999)]


def slowly() -> dict[tuple[str, int], tuple[int, int, int, dict[int, int]]]:
    """Window by window: every event is looked at for each."""
    found = {}
    for code, pair in enumerate(PAIRS):
        for start_s in range(-60, 200, 10):
            inside = [e for e in EVENTS if e[0] == code and start_s * 1_000 <= e[1] < (start_s + 60) * 1_000]
            histogram = Counter(int(np.searchsorted(BOUNDS, latency)) for *_, latency in inside)
            if inside:
                good, sum_us = sum(e[2] for e in inside), sum(e[3] for e in inside)
                found[pair, start_s] = (len(inside), good, sum_us, dict(histogram))
    return found


def windows() -> Windows:
    codes, ts_ms, good, latency_us = (np.array(column) for column in zip(*EVENTS, strict=True))
    return recompute(PAIRS, codes, ts_ms, good, latency_us)


def as_lists(found: Windows) -> list[tuple[str, int, list[int]]]:
    """As peers keep them: [total, good, sum_us, first bucket, counts from there on]."""
    lists = []
    for pair, start_s, *sums in found.totals.rows():
        buckets = dict(found.histogram.filter(pair=pair, start_s=start_s).select("bucket", "n").rows())
        first = min(buckets)
        lists.append((pair, start_s, [*sums, first, *(buckets.get(b, 0) for b in range(first, max(buckets) + 3))]))
    return lists


def record(key: bytes, value: bytes, *headers: tuple[str, bytes]) -> changelogs.Record:
    return ConsumerRecord("t", 0, 0, 0, 0, key, value, None, len(key), len(value), headers)


def test_an_event_is_in_six_windows_with_its_own_counts() -> None:
    found = windows()
    wanted = slowly()
    assert {row[:2]: row[2:] for row in found.totals.rows()} == {key: want[:3] for key, want in wanted.items()}
    histogram: dict[tuple[str, int], dict[int, int]] = {key: {} for key in wanted}
    for pair, start_s, bucket, n in found.histogram.rows():
        histogram[pair, start_s][bucket] = n
    assert histogram == {key: want[3] for key, want in wanted.items()}


def test_the_bounds_are_those_of_the_worker() -> None:
    assert bounds() == BOUNDS.tolist()


def test_equal_windows_do_not_differ_whatever_their_order() -> None:
    assert difference(windows(), from_lists(reversed(as_lists(windows())))) == ""


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_one_integer_that_is_not_equal_is_found(place: int) -> None:
    lists = as_lists(windows())
    lists[1][2][place] += 1
    assert difference(windows(), from_lists(lists)).startswith("totals" if place < 3 else "histogram")


def test_a_window_too_few_or_too_many_is_found() -> None:
    lists = as_lists(windows())
    assert "1 rows missing and 0 foreign" in difference(windows(), from_lists(lists[1:]))
    assert "0 rows missing and 1 foreign" in difference(from_lists(lists[1:]), windows())


def test_the_changelogs_of_the_peers_are_read() -> None:
    lists = as_lists(windows())
    positive = [row for row in lists if row[1] >= 0]
    streams = [
        record(pair.encode() + struct.pack(">qi", start_s * 1_000, 0), struct.pack(f">qqqi{len(c) - 4}i", *c))
        for pair, start_s, c in lists
    ]
    quix = [
        record(
            pair.encode() + struct.pack(">cQcQ", b"|", start_s * 1_000, b"|", (start_s + 60) * 1_000),
            json.dumps({"counts/Counts": c}).encode(),
        )
        for pair, start_s, c in positive
    ]
    bookkeeping = record(b"pair|x", b"1", ("__column_family__", b"latest-timestamps"))
    faust = [
        record(json.dumps([pair, [float(start_s), start_s + 59.9]]).encode(), json.dumps(c).encode())
        for pair, start_s, c in lists
    ]
    assert difference(windows(), changelogs.kafka_streams(streams)) == ""
    assert difference(from_lists(positive), changelogs.quix([*quix, bookkeeping])) == ""
    assert difference(windows(), changelogs.faust(faust)) == ""


def test_a_race_is_judged_between_the_first_and_the_last_tenth() -> None:
    # 5 s of warming up, then 100 events/s for 5 ms of processor time each, then a slow end
    warm = [Sample(0, 0, 0), Sample(5, 99, 9)]
    steady = [Sample(6 + n, 100 + 100 * n, 10 + n / 2) for n in range(9)]
    race = judge([*warm, *steady, Sample(100, 1_000, 99)], 1_000)
    assert race.events_per_s == pytest.approx(100)
    assert race.cpu_us == pytest.approx(5_000)


def test_a_race_without_samples_inside_has_no_rate() -> None:
    with pytest.raises(ValueError, match="expected several between a tenth and nine tenths"):
        judge([Sample(0, 0, 0), Sample(1, 500, 0), Sample(2, 1_000, 0)], 1_000)


def test_a_line_that_is_not_whole_yet_is_not_read(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    progress.write_text("1000000000 5\n2000000000 1")
    assert told_by(progress) == (1.0, 5)


def test_java_puts_latencies_into_the_same_buckets() -> None:
    need("java")
    edges = sorted({max(0, bound + by) for bound in BOUNDS.tolist() for by in (-1, 0, 1)} - {86_400_000_001})
    latencies = [latency for latency in edges if latency <= 86_400_000_000]
    done = run("java", JAVA / "Buckets.java", *map(str, latencies))
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == buckets_of(np.array(latencies)).tolist()


def test_the_recompute_takes_columns_without_events() -> None:
    nothing = np.zeros(0, np.int64)
    assert recompute(PAIRS, nothing, nothing, nothing.astype(np.bool_), nothing).totals.equals(
        pl.DataFrame(schema=windows().totals.schema)
    )


@pytest.mark.parametrize("frontier_s", [0, 100, 10_000])
def test_the_windows_of_the_worker_are_read_from_its_pages_sealed_or_not(frontier_s: int) -> None:
    index = SeriesIndex()
    labels = [pair.split("\t") for pair in PAIRS]
    series = [index.number(series_name(service, endpoint, "eu-1", "http")) for service, endpoint in labels]
    rows = [
        (0, series[code], ts_ms // 1_000, -1, int(np.searchsorted(BOUNDS, us)), good, 1, us, us, 0)
        for code, ts_ms, good, us in EVENTS
    ]
    table = SloTable(histograms_in_hours=False)
    cells = pl.DataFrame(rows, schema={**CELL_ROWS, "offset": pl.Int64}, orient="row")
    table.fold([Heading(0, ((0, 0, frontier_s * 1_000),))], OpenCells.arrived(cells, cells["offset"].to_numpy()))
    table.seal()
    pages = PartPages()
    for key, chunk in table.chunks.items():
        pages.apply(page_key("series", chunk_part(key), "e"), write_chunk(chunk, Origin(), index))
    pages.apply(page_key("series", OPEN, "e"), write_open(table, Origin(), index))
    index = SeriesIndex()
    index.number("slo:other@1")
    found = of_tables([table_of(pages, index), table_of(PartPages(), index)], index)
    # After 10,000 s nothing of this is kept as seconds any more: the control.
    assert (
        difference(windows(), found).startswith("totals") if frontier_s == 10_000 else not difference(windows(), found)
    )
