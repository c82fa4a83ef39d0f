"""`fleetbeat reconcile`: sealed steps of the tables against the raw rows in ClickHouse, every integer of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from streams.core.objectives import is_kept_by_minute
from streams.core.slices import COUNTS, HOURS, LATENESS_MS, MINUTES, SLICE_MS, Tier, held_since
from streams.core.sources import SOURCES
from streams.core.versions import Timeline
from streams.engine.partitioning import partition_of
from streams.history.judging import Judging, judgings
from streams.history.recount import STEPS, Recount
from streams.history.rows import RawRows
from streams.history.sums import Cut, Span
from streams.processors.rollup import owner_key
from streams.processors.slo_parts import OBJECTIVES, PLAIN
from streams.processors.slo_recovery import PARTIALS
from streams.state.cluster import Cluster, StateError
from streams.state.compare import Difference, differences, steps_of
from streams.state.coverage import LeftOut, Reaches, await_offsets, judged, offsets_of, whole_from_s
from streams.state.kept import Input, Kept, LostError, read_kept
from streams.topic_ids import TopicIdentity

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be reconciled; `minutes`: minutes of objectives and of plain series as well as hours."""

    span: Span
    minutes: bool = False
    wait_s: float = 60.0


@dataclass(slots=True)
class Finding:
    """`compared`: steps of series by tier; `events`: of raw rows, once for each series that they are in.

    `lost`: partitions without whole pages, with the reason; their series could not be compared.
    """

    compared: dict[str, int] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    events: int = 0
    not_sealed: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    differences: list[tuple[str, Difference]] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to compare, which is no equality."""
        return not any(self.compared.values()) and not self.lost

    @property
    def equal(self) -> bool:
        """Whether something was compared, nothing of it differs, and nothing is lost."""
        return not self.differences and not self.lost and not self.nothing


async def reconcile(cluster: Cluster, rows: RawRows, timeline: Timeline, asked: Asked, say: Say) -> Finding:
    """Workers and archive may run meanwhile: what one side has and the other cannot have yet is left out of both.

    Raises StateError, RawRowsError, and what Kafka and ClickHouse raise.
    """
    finding = Finding()
    inputs = await inputs_of(cluster)
    series = judgings(timeline)
    known, recount = dict[str, dict[int, int]](), Recount(rows, {})
    for partition, given in inputs.items():
        try:
            kept = await read_kept(cluster.brokers, partition, given)
        except LostError as cause:
            finding.lost[partition] = str(cause)
            continue
        say(f"partition {partition}: tables read up to offset {kept.part.applied} of {PARTIALS}")
        frontiers = {source: kept.frontiers(source) for source in SOURCES}
        reaches = await await_offsets(rows, await offsets_of(cluster, frontiers), asked.wait_s, frontiers)
        own = {name: each for name, each in series.items() if owner_of(name, len(inputs)) == partition}
        if known != frontiers:
            cuts = await asyncio.to_thread(cuts_of, rows, frontiers, asked.span.start_s)
            known, recount = frontiers, Recount(rows, cuts)
        before = recount.not_sealed
        step = _Step(kept, len(inputs), recount, reaches, own)
        await asyncio.to_thread(step.run, asked, finding)
        finding.not_sealed += recount.not_sealed - before
        say(f"partition {partition}: {len(own)} series of objectives compared, {len(finding.differences)} differences")
    return finding


async def inputs_of(cluster: Cluster) -> dict[int, Input]:
    """By partition of slo-partials. Raises StateError."""
    counts = await cluster.partitions([PARTIALS])
    if PARTIALS not in counts:
        raise StateError(f"no topic {PARTIALS}; run `fleetbeat topics apply --brokers {cluster.brokers}` first")
    ids, commits = await cluster.topic_ids([PARTIALS]), await cluster.commits()
    logs = await cluster.logs(PARTIALS, range(counts[PARTIALS]))
    identity = TopicIdentity(ids.get(PARTIALS, ""), counts[PARTIALS])
    return {p: Input(identity, log, commits.get((PARTIALS, p))) for p, log in sorted(logs.items())}


def cuts_of(rows: RawRows, frontiers: Mapping[str, Mapping[int, int]], since_s: int) -> dict[str, Cut]:
    """What tables at these frontiers have sealed, of slices from `since_s` on. Raises RawRowsError."""
    return {source: Cut(source, known, rows.setbacks(source, since_s)) for source, known in frontiers.items() if known}


@dataclass(frozen=True, slots=True)
class _Step:
    """One partition of slo-partials."""

    kept: Kept
    partitions: int
    recount: Recount
    reaches: Reaches
    series: Mapping[str, Judging]

    def run(self, asked: Asked, finding: Finding) -> None:
        """Compares all tiers, an objective at a time."""
        self._objectives(HOURS, asked, finding, self.series)
        if asked.minutes:
            self._objectives(MINUTES, asked, finding, self.series)
            by_minute = {name: each for name, each in self.series.items() if is_kept_by_minute(name)}
            self._objectives(COUNTS, asked, finding, by_minute)
            self._plain(MINUTES, asked, finding)

    def _objectives(self, tier: Tier, asked: Asked, finding: Finding, series: Mapping[str, Judging]) -> None:
        span = self._span(tier, asked, finding)
        stream = self.kept.sealed(OBJECTIVES, tier, span)
        parts = [pl.DataFrame(schema=STEPS)]
        for name, judging in series.items():
            parts.append(self.recount.objective(name, judging, span, tier, histograms=tier is not COUNTS))
        self._compare(tier, stream, pl.concat(parts), finding)

    def _plain(self, tier: Tier, asked: Asked, finding: Finding) -> None:
        """Raw rows of all partitions are asked for, and those of this one kept: no SQL knows who owns a series."""
        span = self._span(tier, asked, finding)
        stream = self.kept.sealed(PLAIN, tier, span)
        parts = [pl.DataFrame(schema=STEPS)]
        parts += [
            owned(rows, self.kept.partition, self.partitions)
            for rows in self.recount.plain(span, tier, histograms=False)
        ]
        self._compare(tier, stream, pl.concat(parts), finding)

    def _compare(self, tier: Tier, stream: pl.DataFrame, raw: pl.DataFrame, finding: Finding) -> None:
        finding.differences += [(tier.name, each) for each in differences(stream, raw)]
        finding.compared[tier.name] = finding.compared.get(tier.name, 0) + steps_of(stream, raw)
        finding.events += int(raw["n"].sum())

    def _span(self, tier: Tier, asked: Asked, finding: Finding) -> Span:
        limits = {
            "the archive's rows begin later": whole_from_s(self.reaches),
            f"the tables keep {tier.name} no longer": held_since(tier, self.kept.now_s),
        }
        over_s = (self.kept.now_s * SLICE_MS - LATENESS_MS) // SLICE_MS
        span, left_out = judged(asked.span, tier.step_s, limits, over_s)
        finding.left_out += [each for each in left_out if each not in finding.left_out]
        finding.spans.setdefault(tier.name, span)
        return span


def owned(rows: pl.DataFrame, partition: int, partitions: int) -> pl.DataFrame:
    """Rows of the series that a partition owns."""
    names: Sequence[str] = rows["series"].unique().to_list()
    mine = [name for name in names if owner_of(name, partitions) == partition]
    return rows.filter(pl.col("series").is_in(mine))


def owner_of(series: str, partitions: int) -> int:
    """The partition of slo-partials that a series belongs to."""
    return partition_of(owner_key(series), partitions)
