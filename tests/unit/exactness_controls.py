"""Worlds without one of the rules: what they get wrong shows that the tests can fail."""

import polars as pl

from streams.core.rollup import Flush, Progress, Rollup, SourceBatch
from streams.core.slices import seal_ms
from streams.core.table import Heading, SloTable
from streams.engine.pages import PartPages, read_page
from tests.unit.exactness_parts import Counter, Owner, Write
from tests.unit.exactness_world import World


class SealingFirst(SloTable):
    """A record's frontier seals before its cells are folded."""

    def fold(self, records: list[Heading], rows: pl.DataFrame) -> None:  # type: ignore[override]
        told = [(record.offset, source, frontier or 0) for record in records for source, _, frontier in record.sources]
        schema = {"offset": pl.Int64, "source": pl.Int32, "told": pl.Int64}
        known = rows.join(pl.DataFrame(told, schema=schema, orient="row"), on=["offset", "source"], how="left")
        limits = seal_ms(rows["slice"].to_numpy(), rows["late"].to_numpy())
        super().fold(records, rows.filter(pl.Series(limits > known["told"].to_numpy())))


class Adding(SloTable):
    """Cells are added to what is there."""

    def __init__(self, *, histograms_in_hours: bool) -> None:
        super().__init__(histograms_in_hours=histograms_in_hours)
        self.seen: list[pl.DataFrame] = []

    def fold(self, records: list[Heading], rows: pl.DataFrame) -> None:  # type: ignore[override]
        row = ["source", "series", "slice", "late", "bucket", "good"]
        added = []
        for part in rows.partition_by("offset"):
            self.seen.append(part)
            sums = pl.concat(self.seen).group_by(row).agg(pl.col("n", "sum_us").sum(), pl.col("max_us").max())
            added.append(part.select(*row, "offset").join(sums, on=row).select(part.columns))
        super().fold(records, pl.concat(added) if added else rows)


class CountingAgain(Rollup):
    """Records that were counted before count again."""

    def step(self, batches: list[SourceBatch], events: pl.DataFrame) -> Flush:  # type: ignore[override]
        for batch in batches:
            self.progress[batch.partition] = Progress(-1, self.progress[batch.partition].frontier)
        return super().step(batches, events)


class LastPage(PartPages):
    """The last page of a part counts."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        super().apply(key, value)
        if value is not None:
            page = read_page(key, value)
            self.best[page.family, page.part] = page


class SealsFirst(World):
    table = SealingFirst


class Adds(World):
    table = Adding


class CountsAgain(World):
    rollup = CountingAgain


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
    """The page that stands for the table is written before its chunks."""

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
