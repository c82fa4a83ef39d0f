"""Worlds without one of the rules: what they get wrong shows that the tests can fail."""

from dataclasses import replace

import numpy as np
import polars as pl

from streams.core.rollup import Flush, Progress, Rollup, SourceBatch
from streams.core.rows import OpenCells, starts_of
from streams.core.series import SeriesIndex
from streams.core.slices import seal_ms
from streams.core.table import Heading, SloTable
from streams.engine.pages import Page, PartPages
from tests.unit.exactness_parts import Counter, Owner, Write
from tests.unit.exactness_world import World


class SealingFirst(SloTable):
    """A record's frontier seals before its cells are folded."""

    def fold(self, records: list[Heading], rows: OpenCells) -> None:  # type: ignore[override]
        told = {(record.offset, source, frontier or 0) for record in records for source, _, frontier in record.sources}
        schema = {"offset": pl.Int64, "source": pl.Int32, "told": pl.Int64}
        frame, told_frame = rows.frame(), pl.DataFrame(list(told), schema=schema, orient="row")
        known = frame.join(told_frame, on=["offset", "source"], how="left", maintain_order="left")
        limits = seal_ms(starts_of(rows.key), rows.late)
        super().fold(records, rows.where(limits > known["told"].to_numpy()))


class Adding(SloTable):
    """Cells are added to what is there."""

    def __init__(self, *, histograms_in_hours: bool, index: SeriesIndex | None = None) -> None:
        super().__init__(histograms_in_hours=histograms_in_hours, index=index)
        self.seen: list[pl.DataFrame] = []

    def fold(self, records: list[Heading], rows: OpenCells) -> None:  # type: ignore[override]
        row = ["source", "series", "slice", "late", "bucket", "good"]
        added = []
        for part in rows.frame().partition_by("offset"):
            self.seen.append(part)
            sums = pl.concat(self.seen).group_by(row).agg(pl.col("n", "sum_us").sum(), pl.col("max_us").max())
            added.append(part.select(*row, "applied", "offset").join(sums, on=row).select(part.columns))
        super().fold(records, OpenCells.from_frame(pl.concat(added)) if added else rows)


class FoldingRepeats(SloTable):
    """What comes twice in one call is folded twice."""

    def fold(self, records: list[Heading], rows: OpenCells) -> None:  # type: ignore[override]
        copies = [record for record in records if record.offset > self.applied]
        for record in copies:
            self._advance(record)
        self._pending.append(rows.where(np.isin(rows.offset, [record.offset for record in copies])))


class CountingAgain(Rollup):
    """Records that were counted before count again."""

    def step(self, batches: list[SourceBatch], events: pl.DataFrame) -> Flush:  # type: ignore[override]
        for batch in batches:
            self.progress[batch.partition] = Progress(-1, self.progress[batch.partition].frontier)
        return super().step(batches, events)


class CuttingWholePolls(Rollup):
    """A poll that was counted to its end is skipped; of one that was not, all rows count."""

    def step(self, batches: list[SourceBatch], events: pl.DataFrame) -> Flush:  # type: ignore[override]
        for batch in batches:
            known = self.progress[batch.partition]
            if known.applied_offset < batch.offsets[-1]:
                self.progress[batch.partition] = Progress(int(batch.offsets[0]) - 1, known.frontier)
        return super().step(batches, events)


class SealingByTheClock(SloTable):
    """What is over by the clock is sealed, here as if each record were followed by 20 s of silence."""

    def seal(self) -> None:
        self._settled()
        for source, steps in self._steps.items():
            self.frontiers[source] = max(self.frontiers[source], steps[-1][0] + 20_000)
        super().seal()


class Unlisted(PartPages):
    """The page of the open cells does not say how new the chunks were."""

    def of(self, family: str) -> dict[str, list[Page]]:
        parts = super().of(family)
        return {part: [replace(p, header={**p.header, "chunks": {}}) for p in pages] for part, pages in parts.items()}


class LastPage(Unlisted):
    """The last page of a part counts."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[bytes] = []

    def apply(self, key: bytes, value: bytes | None) -> None:
        super().apply(key, value)
        self._order.append(key)

    def of(self, family: str) -> dict[str, list[Page]]:
        last = {key: at for at, key in enumerate(self._order)}
        parts = super().of(family)
        return {part: sorted(pages, key=lambda page: -last[page.key]) for part, pages in parts.items()}


class SealsFirst(World):
    table = SealingFirst


class SealsByTheClock(World):
    table = SealingByTheClock


class Adds(World):
    table = Adding


class FoldsRepeats(World):
    table = FoldingRepeats


class BelievesOpenCells(World):
    part_pages = Unlisted


class KeepsOldTables(World):
    """Whoever had a partition before goes on with the tables of then, from the commit of now."""

    def return_to(self, ghost: Owner, target: int = 0) -> None:
        self.owners[target] = ghost
        ghost.next = self.page_commits[target]


class CountsAgain(World):
    rollup = CountingAgain


class CutsWholePolls(World):
    rollup = CuttingWholePolls


class TakesTheLastPage(World):
    part_pages = LastPage


class ForgetsWhatChunksHold(World):
    """A chunk's applied offset is not looked at."""

    def loaded(self, owner: Owner) -> Owner:
        for table in owner.tables.values():
            for chunk in table.chunks.values():
                chunk.applied = -1
        return owner


class WritesOpenCellsFirst(World):
    """The page that stands for the table is written before its chunks, and does not say how new they should be."""

    part_pages = Unlisted

    def in_order(self, pages: list[Write]) -> list[Write]:
        return [*pages[-2:], *pages[:-2]]


class SharesPageKeys(World):
    """Owners write under the same keys."""

    def name_owner(self) -> str:
        return "owner"


class SettlesUnheard(World):
    """Cells are done with though some owner has not heard the frontier that seals them."""

    def may_settle(self, *, everyone: bool) -> bool:  # noqa: ARG002 - the rule that is not kept
        return True


class CommitsTheNewestFrontier(World):
    """The commit's frontier is not the one ahead of its offset."""

    def commit_of(self, counter: Counter, partition: int) -> tuple[int, int]:
        return super().commit_of(counter, partition)[0], counter.rollup.progress[partition].frontier


class CommitsWhatIsRead(World):
    """The commit does not wait for open cells."""

    def commit_of(self, counter: Counter, partition: int) -> tuple[int, int]:
        progress = counter.rollup.progress[partition]
        return progress.applied_offset + 1, progress.frontier


RULES: tuple[type[World], ...] = (
    SealsFirst,
    SealsByTheClock,
    TakesTheLastPage,
    ForgetsWhatChunksHold,
    CutsWholePolls,
    Adds,
    BelievesOpenCells,
    CommitsTheNewestFrontier,
    CommitsWhatIsRead,
    CountsAgain,
    FoldsRepeats,
    KeepsOldTables,
    SettlesUnheard,
    SharesPageKeys,
    WritesOpenCellsFirst,
)
# Four things must meet for the other two: that these are needed is shown by scripts in test_exactness.py.
FOUND_BY_CHANCE = tuple(rule for rule in RULES if rule not in {BelievesOpenCells, SettlesUnheard})
