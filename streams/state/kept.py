"""What workers keep of one partition, as one would find it that starts now: from its pages and from slo-partials."""

from dataclasses import dataclass

import polars as pl

from schemas.kafka import Brokers
from streams.core.rows import STEP_SCHEMA
from streams.core.series import SeriesIndex
from streams.core.slices import Tier
from streams.core.sources import place_of
from streams.core.table import SloTable
from streams.engine.changelog import read_changelog
from streams.engine.page_heads import PageFormatError, PartitionsChangedError, origin_now, require_partitions
from streams.engine.pages import NotWholeError, PartPages, load
from streams.history.sums import Span
from streams.processors.slo_parts import OBJECTIVES, Part, PartFolder
from streams.processors.slo_recovery import PAGES_TOPIC, PARTIALS
from streams.state.cluster import Commit, Log, StateError
from streams.topic_ids import TopicIdentity

NAMED = pl.Schema({**STEP_SCHEMA, "series": pl.String()})


class LostError(StateError):
    """The pages of a partition are not there, or not all of them, and slo-partials do not make up for it."""


@dataclass(frozen=True, slots=True)
class Input:
    """Of one partition of slo-partials: its topic, what it holds, and where the group reads on."""

    identity: TopicIdentity
    log: Log
    commit: Commit | None


@dataclass(slots=True)
class Kept:
    """The tables of a partition after all that slo-partials hold for it, and the number of each series."""

    partition: int
    part: Part
    index: SeriesIndex

    def frontiers(self, source: str) -> dict[int, int]:
        """Of a topic by partition: the append time (ms) by which cells are sealed here."""
        known = self.part.tables[OBJECTIVES].frontiers
        return {place_of(lane)[1]: at for lane, at in known.items() if place_of(lane)[0] == source}

    @property
    def now_s(self) -> int:
        """By which chunks are over."""
        return max(self.part.tables[OBJECTIVES].frontiers.values(), default=0) // 1_000

    def sealed(self, family: str, tier: Tier, span: Span) -> pl.DataFrame:
        """Steps (NAMED) of a span, without open cells."""
        return sealed_steps(self.part.tables[family], self.index, tier, span)


def sealed_steps(table: SloTable, index: SeriesIndex, tier: Tier, span: Span) -> pl.DataFrame:
    """Steps (NAMED) of a span, without open cells."""
    chunks = [
        chunk.rows.frame()
        for (name, begins_s), chunk in table.chunks.items()
        if name == tier.name and begins_s < span.end_s and begins_s + tier.chunk_s > span.start_s
    ]
    rows = pl.concat([pl.DataFrame(schema=STEP_SCHEMA), *chunks])
    rows = rows.filter(pl.col("start").is_between(span.start_s, span.end_s, closed="left"))
    names = pl.Series(index.names, dtype=pl.String)
    return rows.with_columns(series=names.gather(rows["series"]) if rows.height else pl.lit("")).cast(NAMED)


async def read_pages(brokers: Brokers, partition: int) -> PartPages:
    """All pages of a partition. Raises StateError for those of a newer version."""
    pages = PartPages()
    async for records in read_changelog(brokers, PAGES_TOPIC, [partition]):
        for record in records:
            try:
                pages.apply(record.key or b"", record.value)
            except PageFormatError as cause:
                raise StateError(f"partition {partition}: {cause}") from cause
    return pages


def restored(partition: int, pages: PartPages, given: Input, folder: PartFolder) -> Part:
    """The tables as the pages have them. Raises LostError, and StateError for pages that nobody can go on from."""
    origins = [page.origin for page in pages.all()]
    origin = origin_now(given.identity, origins)
    tables = folder.new_tables()
    unreadable: list[str] = []
    try:
        require_partitions(PARTIALS, partition, origin, origins)
        for family, table in tables.items():
            unreadable += load(table, pages, family, folder.index, origin)
    except PartitionsChangedError as cause:
        raise StateError(str(cause)) from cause
    except NotWholeError as cause:
        raise LostError(f"partition {partition}: {cause}") from cause
    part = Part(tables, {name: set(keys) for name, keys in pages.keys.items()}, origin)
    if unreadable:
        raise LostError(f"partition {partition}: {unreadable[0]}")
    committed = given.commit.offset if given.commit else 0
    if part.applied + 1 < max(committed, given.log.begin):
        raise LostError(
            f"partition {partition}: the state pages end at offset {part.applied} of {PARTIALS}, the commit is "
            f"{committed} and the log begins at {given.log.begin}; expected pages up to there"
        )
    return part


async def read_kept(brokers: Brokers, partition: int, given: Input) -> Kept:
    """The tables of a partition; workers may run. Raises LostError, StateError and KafkaError."""
    folder = PartFolder(SeriesIndex())
    part = restored(partition, await read_pages(brokers, partition), given, folder)
    async for records in read_changelog(brokers, PARTIALS, [partition], {partition: part.applied + 1}):
        folder.fold(part, records)
        _seal(part)
    _seal(part)
    _require_one_topic(part)
    return Kept(partition, part, folder.index)


def _seal(part: Part) -> None:
    for table in part.tables.values():
        table.seal()


def _require_one_topic(part: Part) -> None:
    """The archive's rows are of one log; what came from an earlier topic of the same name cannot be told apart."""
    for source, ids in part.tables[OBJECTIVES].lineage.topics.items():
        if len(ids) > 1:
            raise StateError(
                f"topic {source} was created anew while the tables were kept; raw rows are only of one topic, so that "
                "sums of them cannot be compared"
            )
