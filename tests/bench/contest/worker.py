"""Our worker in the contest: a real process; its windows as its state pages hold them, and as its views show them."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from infra.local.figures import total
from streams.core.series import SeriesIndex
from streams.core.slices import SECONDS
from streams.core.table import SloTable
from streams.engine.changelog import read_changelog
from streams.engine.pages import PartPages, load
from streams.processors.slo_parts import PLAIN
from streams.processors.slo_recovery import PAGES_TOPIC
from tests.bench.contest.racing import PATIENCE_S, Race, watch
from tests.bench.contest.windows import COUNTED, Windows, slide
from tests.integration.worker_process import Promise, WorkerProcess, write_objectives

_HOUR_MS = 3_600_000


class Contestant:
    """One worker with an objective for each of some (service, endpoint)."""

    def __init__(self, brokers: str, folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
        self._brokers = brokers
        self._promises = {
            pair: Promise(f"pair-{number}", {"service": pair[0], "endpoint": pair[1]})
            for number, pair in enumerate(pairs)
        }
        self._objectives = write_objectives(folder / "slos.yaml", self._promises.values())
        self._process = WorkerProcess(brokers, folder, self._objectives)

    def run(self, events: int) -> tuple[Race, float, pl.DataFrame]:
        """The race; seconds until what was counted is acknowledged and committed; what the views show (TOTALS)."""
        with self._process as worker:
            worker.start()
            race = watch(worker.child, events, self._counted)
            counted = time.monotonic()
            deadline = counted + PATIENCE_S
            while self._metric("fleetbeat_consumer_lag_records"):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the worker still lags after {PATIENCE_S:.0f} s")
                time.sleep(0.1)
            after_s = time.monotonic() - counted
            views = self._views()
            worker.stop()  # with a last save
        return race, after_s, views

    def _counted(self) -> tuple[float, int]:
        return time.monotonic(), self._metric("fleetbeat_rollup_events_total")

    def _metric(self, name: str) -> int:
        status, text = self._process.get("/metrics")
        return total(text, name) if status == 200 else 0

    def _views(self) -> pl.DataFrame:
        """The windows of the objectives' pairs, summed from the seconds that the views give."""
        now_ms = time.time_ns() // 1_000_000
        rows = [row for pair, promise in self._promises.items() for row in self._seconds(pair, promise, now_ms)]
        windows = slide(pl.DataFrame(rows, schema=COUNTED, orient="row"))
        return windows.totals

    def _seconds(self, pair: tuple[str, str], promise: Promise, now_ms: int) -> list[tuple[object, ...]]:
        slices = self._process.slices(promise, now_ms - _HOUR_MS, now_ms + 10_000)
        if isinstance(slices, str):
            raise RuntimeError(f"{promise.id}: {slices}; expected slices")  # noqa: TRY004 - an answer, not a type
        name = "\t".join(pair)
        return [
            (name, start_ms // 1_000, 0, row["total"], row["good"], row["sum_us"]) for start_ms, row in slices.items()
        ]


def from_pages(brokers: str, partitions: int) -> Windows:
    """All windows, summed from the seconds of the plain series in the worker's state pages: what a crash leaves."""
    index = SeriesIndex()
    pages = [asyncio.run(pages_of(brokers, partition)) for partition in range(partitions)]
    return of_tables([table_of(found, index) for found in pages], index)


def of_tables(tables: Sequence[SloTable], index: SeriesIndex) -> Windows:
    """All windows of the plain series of some tables, sealed or not."""
    good = pl.col("good").cast(pl.Int64) * pl.col("n")
    rows = pl.concat([_seconds_of(table) for table in tables])
    names = pl.Series("pair", [_pair(name) for name in index.names], dtype=pl.String)
    rows = rows.with_columns(pair=names.gather(rows["series"]), good=good)
    return slide(rows.select(COUNTED.names()).cast(COUNTED))


async def pages_of(brokers: str, partition: int) -> PartPages:
    """The state pages of a partition as they are in Kafka."""
    pages = PartPages()
    async for records in read_changelog(brokers, PAGES_TOPIC, [partition]):
        for record in records:
            pages.apply(record.key or b"", record.value)
    return pages


def table_of(pages: PartPages, index: SeriesIndex) -> SloTable:
    """The table of the plain series. Raises RuntimeError when pages are missing or cannot be read."""
    table = SloTable(histograms_in_hours=False)
    if reasons := load(table, pages, PLAIN, index):
        raise RuntimeError(f"pages: {reasons}; expected whole ones")
    return table


def _seconds_of(table: SloTable) -> pl.DataFrame:
    """Sealed and open seconds of all series of a table."""
    columns = ["start_s", "series", "bucket", "good", "n", "sum_us"]
    sealed = [chunk.rows.frame() for (tier, _), chunk in table.chunks.items() if tier == SECONDS.name]
    parts = [frame.rename({"start": "start_s"}).select(columns) for frame in sealed]
    return pl.concat([*parts, table.open_rows().rename({"slice": "start_s"}).select(columns)])


def _pair(series: str) -> str:
    """`service TAB endpoint` of a plain series; an objective's has none."""
    if series.startswith("slo:"):
        return ""
    service, endpoint, *_ = json.loads(series)
    return f"{service}\t{endpoint}"


def of_pairs(windows: Windows, pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """The totals of some pairs, sorted as Windows has them."""
    names = ["\t".join(pair) for pair in pairs]
    return windows.totals.filter(pl.col("pair").is_in(names))
