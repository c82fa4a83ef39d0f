"""Up to where both sides hold everything: the archive must have what the tables have sealed, and as far back."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from streams.core.slices import SLICE_MS
from streams.core.sources import SOURCES
from streams.history.rows import RawRows, Reach
from streams.history.sums import AHEAD_MS, Span
from streams.state.cluster import Cluster, StateError

_POLL_S = 1.0

Frontiers = Mapping[str, Mapping[int, int]]
Reaches = Mapping[str, Mapping[int, Reach]]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A stretch of time that was not judged."""

    span: Span
    why: str


async def await_offsets(
    rows: RawRows, wanted: Mapping[str, Mapping[int, int]], wait_s: float, frontiers: Frontiers | None = None
) -> Reaches:
    """How far the archive reaches, as soon as it has all records before the `wanted` offsets of each partition.

    A frontier (ms) in the archive's rows that is as great as in `frontiers` will do as well. Raises StateError when it
    takes longer than `wait_s`.
    """
    until_s = time.monotonic() + wait_s
    while True:
        reaches = {source: await asyncio.to_thread(rows.reaches, source) for source in wanted}
        lacking = [
            text
            for source, offsets in wanted.items()
            for partition, offset in offsets.items()
            if (
                text := _lacks(
                    source,
                    partition,
                    offset,
                    (frontiers or {}).get(source, {}).get(partition),
                    reaches[source].get(partition),
                )
            )
        ]
        if not lacking:
            return reaches
        if time.monotonic() >= until_s:
            raise StateError(
                f"ClickHouse is behind: {'; '.join(lacking[:3])}; expected them within {wait_s:.0f} s: does "
                "`fleetbeat archive` run?"
            )
        await asyncio.sleep(_POLL_S)


async def offsets_of(cluster: Cluster, frontiers: Frontiers) -> dict[str, dict[int, int]]:
    """For each partition an offset that is behind all that its frontier has sealed."""
    return {source: await cluster.offsets_at(source, frontiers[source]) for source in SOURCES if frontiers.get(source)}


def whole_from_s(reaches: Reaches) -> int:
    """The first second of which the archive can have all events that there ever were; 0 when it has everything."""
    from_ms = max((reach.whole_from_ms for found in reaches.values() for reach in found.values()), default=0)
    return -(-(from_ms + AHEAD_MS) // SLICE_MS) if from_ms else 0


def judged(asked: Span, step_s: int, limits: Mapping[str, int], over_s: int) -> tuple[Span, list[LeftOut]]:
    """The whole steps of a span that both sides hold, and what is left out.

    `limits`: the reason why nothing before a second can be judged. From `over_s` on time is not over.
    """
    begin, end = -(-asked.start_s // step_s) * step_s, asked.end_s // step_s * step_s
    left_out: list[LeftOut] = []
    first, last = begin, min(end, over_s // step_s * step_s)
    for why, since_s in limits.items():
        since_s = -(-since_s // step_s) * step_s  # noqa: PLW2901 - the step that it is in is not whole either
        if since_s > first:
            left_out.append(LeftOut(Span(first, min(since_s, end)), why))
            first = since_s
    if last < end:
        left_out.append(LeftOut(Span(max(last, begin), end), "not over yet: late events apart, more may come"))
    return Span(min(first, last), last) if first < last else Span(begin, begin), left_out


def _lacks(source: str, partition: int, offset: int, frontier_ms: int | None, reach: Reach | None) -> str:
    """What is missing before an offset; empty when nothing is."""
    if reach is None:
        return f"{source} partition {partition} is not archived" if offset else ""
    if reach.missing:
        return f"{source} partition {partition} lacks {reach.missing} rows of its last plan"
    if reach.last >= offset - 1 or (frontier_ms is not None and reach.frontier_ms >= frontier_ms):
        return ""
    return f"{source} partition {partition} is archived up to offset {reach.last}, wanted is {offset - 1}"
