"""Tables of lost partitions made anew from the archive's raw rows, such that a worker goes on exactly where they end.

They stand at the end of slo-partials, and of each source partition at the frontier of all that its log held when the
worker was down: whatever that frontier seals is summed up from raw rows. What it does not seal, rollups publish once
more in full when they start, since they read again from where the oldest open cell begins; and what they publish of
cells that it does seal is ignored, like anything of a cell that was sealed before (docs/adr/0020).
"""

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from streams.core.lineage import Lineage
from streams.core.objectives import is_kept_by_minute
from streams.core.rows import OPEN_SCHEMA, STEP_SCHEMA, Steps
from streams.core.series import OVERFLOW, SeriesIndex
from streams.core.slices import COUNTS, PLAIN_TIERS, SECONDS, SLICE_MS, TIERS, Tier, held_since
from streams.core.sources import SOURCES, lane
from streams.core.table import Chunk, SloTable
from streams.engine.changelog import read_changelog
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, chunk_part, page_key, write_chunk, write_open
from streams.history.judging import Judging
from streams.history.recount import STEPS, Recount
from streams.history.rows import RawRows
from streams.history.sums import Span
from streams.processors.slo_parts import OBJECTIVES, PLAIN
from streams.state.cluster import Cluster
from streams.state.coverage import Reaches, await_offsets
from streams.state.reconcile import Say, cuts_of, owner_of

Page = tuple[int, bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the new tables stand: frontiers (ms) by topic and partition, and how far the archive's rows reach."""

    frontiers: Mapping[str, Mapping[int, int]]
    reaches: Reaches
    topic_ids: Mapping[str, str]

    @property
    def now_s(self) -> int:
        """By which chunks are over."""
        return max((at for known in self.frontiers.values() for at in known.values()), default=0) // SLICE_MS

    def lanes(self) -> dict[int, int]:
        """The frontiers as tables have them."""
        return {
            lane(source, partition): at for source, known in self.frontiers.items() for partition, at in known.items()
        }

    def lineage(self) -> Lineage:
        """The topics that there are now are those which the rows are of."""
        return Lineage({source: [self.topic_ids[source]] for source in self.frontiers if self.topic_ids.get(source)})


async def stand(cluster: Cluster, rows: RawRows, wait_s: float) -> Stand:
    """Where the logs end, once the archive has all of them. Raises StateError when it is behind for longer."""
    counts = await cluster.partitions(SOURCES)
    logs = {source: await cluster.logs(source, range(counts[source])) for source in counts}
    ends = {source: {p: log.end for p, log in found.items() if log.end} for source, found in logs.items()}
    lasts = {source: await _last_times(cluster, source, found) for source, found in ends.items()}
    reaches = await await_offsets(rows, ends, wait_s)
    frontiers = {
        source: {p: max(reaches[source][p].frontier_ms, lasts[source].get(p, 0)) for p in found}
        for source, found in ends.items()
        if found
    }
    return Stand(frontiers, reaches, await cluster.topic_ids(SOURCES))


async def _last_times(cluster: Cluster, source: str, ends: Mapping[int, int]) -> dict[int, int]:
    """When the last record of each log was appended: one that makes no row may be the last that rollups have seen."""
    found: dict[int, int] = {}
    begins = {partition: end - 1 for partition, end in ends.items()}
    if begins:
        async for records in read_changelog(cluster.brokers, source, list(begins), begins):
            for record in records:
                if record.offset == begins[record.partition]:
                    found[record.partition] = record.timestamp
    return found


@dataclass(slots=True)
class Refill:
    """Makes pages for some partitions of slo-partials; `events`: that they hold, once for each series.

    `ends`: of these partitions' logs. `series_most`: plain series that one keeps apart.
    """

    rows: RawRows
    stand: Stand
    series: Mapping[str, Judging]
    partitions: int
    ends: Mapping[int, int]
    origins: Mapping[int, Origin]
    series_most: int
    from_s: int = 0
    events: int = 0

    async def pages(self, say: Say) -> tuple[list[Page], list[Page]]:
        """Those of chunks, and of what stands for them, which have to be written after the others."""
        recount = await asyncio.to_thread(self._recount)
        parts = await asyncio.to_thread(self._plain_parts, recount)
        say("sums of plain series are there")
        chunks: list[Page] = []
        opens: list[Page] = []
        for partition in self.ends:
            owner = f"refill-{secrets.token_hex(4)}"
            of_objectives = await asyncio.to_thread(self._objective_parts, recount, partition)
            of_plain = _bounded(parts.pop(partition), self.series_most)
            for family, found in ((OBJECTIVES, of_objectives), (PLAIN, of_plain)):
                made, stands = self._written(partition, family, owner, found)
                chunks += made
                opens.append(stands)
            say(f"partition {partition}: tables are summed up")
        return chunks, opens

    def _recount(self) -> Recount:
        since_s = max(self.from_s, min(held_since(tier, self.stand.now_s) for tier in TIERS))
        return Recount(self.rows, cuts_of(self.rows, self.stand.frontiers, since_s))

    def _span(self, tier: Tier) -> Span:
        """All that a tier keeps, in whole steps."""
        begin = max(held_since(tier, self.stand.now_s), -(-self.from_s // tier.step_s) * tier.step_s)
        return Span(begin, max(begin, self.stand.now_s // tier.step_s * tier.step_s + tier.step_s))

    def _objective_parts(self, recount: Recount, partition: int) -> list[tuple[Tier, pl.DataFrame]]:
        own = {name: each for name, each in self.series.items() if owner_of(name, self.partitions) == partition}
        parts = []
        for tier in TIERS:
            series = {name: each for name, each in own.items() if tier is not COUNTS or is_kept_by_minute(name)}
            for name, judging in series.items():
                found = recount.objective(name, judging, self._span(tier), tier, histograms=tier is not COUNTS)
                parts.append((tier, found))
        return parts

    def _plain_parts(self, recount: Recount) -> dict[int, list[tuple[Tier, pl.DataFrame]]]:
        """Asked for once for all partitions: no SQL knows who owns a series."""
        parts: dict[int, list[tuple[Tier, pl.DataFrame]]] = {partition: [] for partition in self.ends}
        for tier in PLAIN_TIERS:
            for found in recount.plain(self._span(tier), tier, histograms=tier is SECONDS):
                names = found["series"].unique()
                owners = pl.Series([owner_of(name, self.partitions) for name in names], dtype=pl.Int64)
                known = found.join(pl.DataFrame({"series": names, "owner": owners}), on="series", how="left")
                for partition in self.ends:
                    parts[partition].append((tier, known.filter(pl.col("owner") == partition).drop("owner")))
        return parts

    def _written(
        self, partition: int, family: str, owner: str, parts: Collection[tuple[Tier, pl.DataFrame]]
    ) -> tuple[list[Page], Page]:
        index, applied, origin = SeriesIndex(), self.ends[partition] - 1, self.origins[partition]
        chunks: dict[tuple[str, int], Chunk] = {}
        for tier in TIERS:
            rows = pl.concat([pl.DataFrame(schema=STEPS), *(found for of, found in parts if of is tier)])
            self.events += int(rows["n"].sum()) if tier is SECONDS else 0
            numbered = _numbered(rows, index)
            keyed = numbered.with_columns(chunk=pl.col("start") // tier.chunk_s * tier.chunk_s)
            for (start,), found in keyed.partition_by("chunk", as_dict=True).items():
                chunks[tier.name, start] = Chunk(Steps.from_frame(found.select(STEP_SCHEMA.names())), applied)
        table = SloTable(histograms_in_hours=family == OBJECTIVES, index=index)
        table.restore(applied, self.stand.lanes(), pl.DataFrame(schema=OPEN_SCHEMA), chunks, self.stand.lineage())
        made: list[Page] = [
            (partition, page_key(family, chunk_part(key), owner), write_chunk(chunk, origin, index))
            for key, chunk in chunks.items()
        ]
        return made, (partition, page_key(family, OPEN, owner), write_open(table, origin, index))


def _bounded(parts: Sequence[tuple[Tier, pl.DataFrame]], most: int) -> list[tuple[Tier, pl.DataFrame]]:
    """With at most so many names, those of the most events; others are summed as one."""
    sizes = (
        pl.concat([pl.DataFrame(schema=STEPS), *(rows for _, rows in parts)]).group_by("series").agg(pl.col("n").sum())
    )
    if sizes.height <= most:
        return list(parts)
    named = sizes.sort("n", "series", descending=[True, False])["series"][:most].to_list()
    name = pl.when(pl.col("series").is_in(named)).then(pl.col("series")).otherwise(pl.lit(OVERFLOW))
    return [(tier, rows.with_columns(series=name)) for tier, rows in parts]


def _numbered(rows: pl.DataFrame, index: SeriesIndex) -> pl.DataFrame:
    names = rows["series"].unique()
    numbers = pl.Series([index.number(name) for name in names], dtype=pl.UInt32)
    known = pl.DataFrame({"series": names, "number": numbers})
    joined = rows.join(known, on="series", how="left")
    return joined.with_columns(series=pl.col("number")).select(STEP_SCHEMA.names())
