"""The two kinds of workers around the real core and pages, without Kafka: who counts, and who owns the tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import polars as pl

from streams.core.cells import CELL_ROWS
from streams.core.naming import Naming
from streams.core.objectives import Objective, Selector, TimeSlices
from streams.core.rollup import Flush, Rollup, SourceBatch
from streams.core.rows import OpenCells
from streams.core.series import LABELS, Judge, SeriesIndex
from streams.core.slices import MINUTES, PLAIN_TIERS, TIERS
from streams.core.table import Heading, SloTable
from streams.core.weights import WANTED, weigh
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, PartPages, chunk_part, load, page_key, write_chunk, write_open
from streams.engine.partials import heading, read_partial
from tests.unit.exactness import LEVELS, NO_BUCKET, PROBES, PROMISES, Counted, Event, Log, Logged, Promise, Rows

FAMILIES = ("objectives", "series")
FOREVER_S = 1 << 32

Write = tuple[bytes, bytes | None]
Poll = tuple[int, int, int]  # partition, first offset, offset after the last


class StateLostError(AssertionError):
    """The commit of a partition is ahead of its pages."""


def objective_of(promise: Promise) -> Objective:
    """What judges as the promise says."""
    slices = TimeSlices(60, 0.9) if promise.by_minute else None
    return Objective(
        promise.id,
        "",
        "",
        Selector(*promise.where),
        promise.latency_us_le,
        0.99,
        60,
        source=promise.source,
        time_slices=slices,
    )


OBJECTIVES = tuple(objective_of(promise) for promise in PROMISES)


def source_batch(partition: int, first_offset: int, records: Sequence[Logged]) -> SourceBatch:
    """Consecutive records as the rollup takes them."""
    offsets = np.arange(first_offset, first_offset + len(records), dtype=np.int64)
    return SourceBatch(partition, offsets, np.array([record.append_ms for record in records], dtype=np.int64))


def events_frame(records: Sequence[Logged]) -> pl.DataFrame:
    """The readable ones of the records of a step, as the block reader gives them."""
    rows = [
        (row, *record.event.labels, record.event.ts, record.event.success, record.event.latency_us)
        for row, record in enumerate(records)
        if isinstance(record.event, Event)
    ]
    kinds = {"ts": pl.Int64, "success": pl.Boolean, "latency_us": pl.Int64}
    return pl.DataFrame(rows, schema={"_row": pl.UInt32, **dict.fromkeys(LABELS, pl.String), **kinds}, orient="row")


def counts_frame(records: Sequence[Logged]) -> pl.DataFrame:
    """The same of request counts."""
    rows = [
        {
            "_row": row,
            **dict(zip(LABELS[:3], event.labels, strict=False)),
            "ts": event.began,
            **{name: getattr(event, name) for name in ("window_ms", "total", "good", "sum_us", "max_us")},
            "histogram": [dict(zip(("bucket", "total", "good"), item, strict=True)) for item in event.histogram],
        }
        for row, record in enumerate(records)
        if isinstance(event := record.event, Counted)
    ]
    item = pl.Struct({"bucket": pl.Int64, "total": pl.Int64, "good": pl.Int64})
    kinds = {name: pl.Int64() for name in WANTED} | dict.fromkeys(LABELS[:3], pl.String())
    return weigh(
        pl.DataFrame(rows, schema={"_row": pl.UInt32, **kinds, "window_ms": pl.Int32, "histogram": pl.List(item)})
    )


def rows_of(table: SloTable, index: SeriesIndex, frontier_ms: int) -> Rows:
    """What a table answers, for every series and tier, of the steps that are still kept."""
    rows: Rows = {}
    for number, name in enumerate(list(index.names)):
        series = name.rpartition("@")[0] if name.startswith("slo:") else name
        for tier in PLAIN_TIERS if series == name else TIERS:
            for start, _, bucket, good, *sums in table.read(number, tier, 0, FOREVER_S).rows():
                if LEVELS[tier.name].holds(start, frontier_ms):
                    # Open cells still have buckets where sealed ones keep counts only.
                    counted = NO_BUCKET if tier is MINUTES and series == name else bucket
                    row = (tier.name, series, start, counted, good)
                    n, late, sum_us, max_us = rows.get(row, (0, 0, 0, 0))
                    rows[row] = (n + sums[0], late + sums[1], sum_us + sums[2], max(max_us, sums[3]))
    return rows


class Counter:
    """A process that counts some partitions of a source, from their commits on; `base`: its first one in the log."""

    def __init__(
        self,
        rollup: type[Rollup],
        commits: dict[int, tuple[int, int]],
        mine: Iterable[int],
        source: str = PROBES,
        base: int = 0,
    ) -> None:
        self.base = base
        self.index = SeriesIndex()
        self.judge = Judge(OBJECTIVES, self.index, source)
        self.rollup = rollup(self.judge)
        self.first = {partition: commits[partition][0] for partition in mine}
        self.next = dict(self.first)
        for partition in self.first:
            self.rollup.open(partition - base, commits[partition][1])

    def count(self, log: Log, polls: Sequence[Poll]) -> Flush:
        """One step over some polls."""
        records = [record for partition, begin, end in polls for record in log[partition][begin:end]]
        batches = [
            source_batch(partition - self.base, begin, log[partition][begin:end]) for partition, begin, end in polls
        ]
        for partition, _, end in polls:
            self.next[partition] = max(end, self.next[partition])
        return self.rollup.step(batches, (events_frame if self.judge.source == PROBES else counts_frame)(records))


@dataclass(slots=True)
class Snapshot:
    """Pages in the order in which they are written, and what may be committed and deleted after them."""

    applied: int
    pages: list[Write] = field(default_factory=list)
    tombstones: list[bytes] = field(default_factory=list)


class Owner:
    """A process that owns one partition of the partials."""

    def __init__(
        self,
        name: str,
        table: type[SloTable],
        pages: PartPages,
        committed: int,
        junk: int,
        series_most: int | None = None,
    ) -> None:
        self.name = name
        self.origin = Origin()
        self.index = SeriesIndex()
        for number in range(junk):  # numbers mean nothing outside of a process
            self.index.number(f"[{number}]")
        self.unusable: list[str] = []
        self.tables = {
            family: table(histograms_in_hours=family == "objectives", index=self.index) for family in FAMILIES
        }
        if series_most is not None:
            self.tables["series"].naming = Naming(series_most, self.index, PLAIN_TIERS[-1])
        for family, own in self.tables.items():
            self.unusable += load(own, pages, family, self.index)
        self.keys = {part: set(keys) for part, keys in pages.keys.items()}
        self.first = self.next = committed

    @property
    def applied(self) -> int:
        return min(table.applied for table in self.tables.values())

    def fold(self, partials: Sequence[bytes], *polls: tuple[int, int]) -> None:
        """Polls (first offset, offset after the last) at once; each may begin with records that were polled before."""
        heads, frames = list[Heading](), [pl.DataFrame(schema={**CELL_ROWS, "offset": pl.Int64})]
        for offset in chain.from_iterable(range(*poll) for poll in polls):
            record, rows = read_partial(partials[offset], self.index)
            heads.append(heading(offset, record))
            frames.append(rows.with_columns(offset=pl.lit(offset, pl.Int64)))
        self.next = max(self.next, *(end for _, end in polls))
        rows = pl.concat(frames)
        judged = pl.Series([self.index.names[n].startswith("slo:") for n in rows["series"]], dtype=pl.Boolean)
        for family, wanted in (("objectives", judged), ("series", ~judged)):
            own = rows.filter(wanted)
            self.tables[family].fold(heads, OpenCells.arrived(own, own["offset"].to_numpy()))

    def seal(self) -> None:
        for table in self.tables.values():
            table.seal()

    def snapshot(self) -> Snapshot:
        """Seal, and take all pages that must be written: chunks, then what stands for the tables."""
        self.seal()
        taken, opens = Snapshot(self.applied), list[Write]()
        for family, table in self.tables.items():
            for key, chunk in table.dirty_chunks():
                taken.pages.append(
                    (self._claim(family, chunk_part(key), taken), write_chunk(chunk, self.origin, self.index))
                )
                chunk.dirty = False
            for key in table.expired:
                taken.tombstones += self.keys.pop((family, chunk_part(key)), ())
            table.expired.clear()
            opens.append((self._claim(family, OPEN, taken), write_open(table, self.origin, self.index)))
            table.pack()
        taken.pages += opens
        return taken

    def _claim(self, family: str, part: str, taken: Snapshot) -> bytes:
        key = page_key(family, part, self.name)
        taken.tombstones += self.keys.get((family, part), set()) - {key}
        self.keys[family, part] = {key}
        return key
