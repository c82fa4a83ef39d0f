"""How the node tables of newly owned partitions come back: their pages, and the position in the commit."""

import secrets
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import structlog
from faust.types import TP

from streams import metrics
from streams.core.liveness.admission import Limits
from streams.core.liveness.pages import BEGINNING, Position
from streams.core.liveness.table import NodeTable
from streams.engine.app import APP_ID, App
from streams.engine.changelog import ReadLog
from streams.engine.node_pages import PartitionPages
from streams.engine.page_heads import Origin, origin_now, require_partitions
from streams.engine.positions import Committed, fetch_committed
from streams.processors.node_clock import BrokerClock
from streams.processors.node_parts import Part

SOURCE = "heartbeats"
PAGES_TOPIC = f"{APP_ID}-nodes-changelog"

log = structlog.get_logger("fleetbeat.liveness")


class NodesLostError(RuntimeError):
    """The commit and what the topics hold do not fit together: going on would be wrong silently."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a partition of heartbeats holds: [start, end)."""

    start: int
    end: int


@dataclass(slots=True)
class NodeRecovery:
    """Builds parts; `in_thread` runs a step where it holds up nothing."""

    app: App
    read: ReadLog
    limits: Limits
    in_thread: Callable[..., Any]
    clocks: dict[int, BrokerClock] = field(default_factory=dict)

    def clock(self, partition: int) -> BrokerClock:
        """The clock of the partition's broker; it is known before the part is built, and longer."""
        return self.clocks.setdefault(partition, BrokerClock())

    async def build(self, partitions: Collection[int]) -> dict[int, Part]:
        """Raises NodesLostError, PageFormatError and PartitionsChangedError.

        Pages that cannot be read are counted and left out.
        """
        if not partitions:
            return {}
        consumer: Any = self.app.consumer
        tps = [TP(SOURCE, partition) for partition in partitions]
        commits = await fetch_committed(consumer)
        starts, ends = await consumer.earliest_offsets(*tps), await consumer.highwaters(*tps)
        pages = {partition: PartitionPages(partition) for partition in partitions}
        async for records in self.read(PAGES_TOPIC, partitions):
            pages[records[0].partition].apply((record.key, record.value) for record in records)
        parts = {}
        for tp in tps:
            span = Span(starts[tp] or 0, ends[tp] or 0)
            found = pages.pop(tp.partition)
            parts[tp.partition] = await self.in_thread(self._part, found, commits.get(tp), span)
        return parts

    def _origin(self, pages: PartitionPages, committed: Committed | None) -> Origin:
        identity = self.app.consumer.identity(SOURCE)  # type: ignore[attr-defined]
        origins = [*pages.origins(), Origin("" if committed is None else committed.topic_id)]
        origin = origin_now(identity, origins)
        require_partitions(SOURCE, pages.partition, origin, origins)
        return origin

    def _part(self, pages: PartitionPages, committed: Committed | None, span: Span) -> Part:
        partition = pages.partition
        origin = self._origin(pages, committed)
        if committed is not None and committed.topic_id not in ("", origin.topic_id or committed.topic_id):
            committed = None  # of a topic that was deleted since, as the seek has told
        table = NodeTable(self.limits, secrets.randbits(63))
        rows = list(pages.rows(origin))
        position = beginning(rows) if committed is None else Position.parse(committed.text)
        table.restore(rows, position)
        for sentence in pages.unreadable:
            metrics.UNREADABLE_PAGES.inc()
            log.error("nodes lost: their page cannot be read", partition=partition, page=sentence)
        offset = span.start if committed is None else committed.offset
        if offset > span.end:
            raise NodesLostError(
                f"{SOURCE} partition {partition}: the log ends at {span.end}, the commit is {offset}; expected it "
                f"in the log (was the topic created anew? then delete {PAGES_TOPIC} and the group's commits too)"
            )
        if position is not None and position.known and not table.nodes and not pages.unreadable:
            raise NodesLostError(
                f"{SOURCE} partition {partition}: no pages, but {position.known} nodes are in the commit {offset}; "
                f"expected their pages in {PAGES_TOPIC} (was it created anew, or changed by hand?)"
            )
        owner = uuid.uuid4().hex[:12]
        read_to = max(offset, span.start)
        part = Part(partition, self.limits, table, self.clock(partition), read_to, owner, origin, set(pages.values))
        part.promised = 0 if position is None else position.known
        return part


def beginning(rows: Collection[pl.DataFrame]) -> Position:
    """Nothing of the log was ever committed: all is read, and only who was known before it began is known."""
    known = [page.filter(pl.col("first_offset") < 0)["node_id"] for page in rows]
    return replace(BEGINNING, known=pl.concat(known).n_unique()) if known else BEGINNING
