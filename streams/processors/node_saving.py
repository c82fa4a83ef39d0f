"""How node tables are saved: changed pages to the changelog, acknowledged, then the position to the commit."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import polars as pl
from faust.types import TP

from streams import metrics
from streams.core.liveness.columns import PAGE_NODES
from streams.core.liveness.pages import PageRows, Position
from streams.engine.app import App
from streams.engine.bulk import Bulk
from streams.engine.node_pages import page_key, write_page
from streams.engine.positions import fetch_committed, move
from streams.processors.dead_letters import Letters, send_letters
from streams.processors.node_parts import Part
from streams.processors.node_recovery import PAGES_TOPIC, SOURCE
from streams.processors.node_states import TOPIC as NODE_STATES

# A page that changes all the time is written once in so many saves; one with new nodes at once. So many seconds of
# heartbeats are read again after a crash: with two million nodes that costs as much as all else of a restart.
ROUNDS = 10

Page = tuple[int, bytes, bytes | None]  # partition, key, value


@dataclass(frozen=True, slots=True)
class Saved:
    """What one moment of a part needs: its pages, and the commit (offset and position) that they allow.

    `left`: ids of nodes that are in no page any more; that must be told before the pages are written.
    """

    part: Part
    left: pl.Series
    pages: tuple[PageRows, ...]
    position: Position
    offset: int
    settled: bool

    def packed(self) -> list[Page]:
        """The pages as records."""
        partition, owner = self.part.partition, self.part.owner
        return [
            (
                partition,
                page_key(p.page, owner),
                write_page(p.rows, partition, self.part.origin) if p.rows.height else None,
            )
            for p in self.pages
        ]


def snapshot(part: Part) -> Saved:
    """The pages that are due."""
    taken = part.table.snapshot(-(-part.table.nodes // (PAGE_NODES * ROUNDS)))
    # Behind the last heartbeat there may be records that were none.
    done = taken.position.resume_offset > part.table.applied
    offset = part.read_to if done else taken.position.resume_offset
    return Saved(part, taken.left, taken.pages, taken.position, offset, taken.settled)


class NodeSaver:
    """Sends pages and moves commits."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def write_letters(self, letters: Letters) -> None:
        """Returns when the broker has acknowledged every dead letter."""
        await asyncio.gather(*await send_letters(self._app, letters))

    async def tell_who_left(self, saved: Collection[Saved]) -> None:
        """Returns when the broker has acknowledged a tombstone for every node that has left."""
        bulk = Bulk(self._app, NODE_STATES)
        for each in saved:
            bulk.pack(each.part.partition, [(node_id.encode(), None) for node_id in each.left])
        await bulk.send()

    async def write(self, pages: Collection[Page]) -> None:
        """Returns when the broker has acknowledged every page."""
        send = self._app.producer.send
        acks: list[Any] = [
            await send(PAGES_TOPIC, key, value, partition, None, None) for partition, key, value in pages
        ]
        await asyncio.gather(*acks)
        metrics.PAGES.labels("nodes").inc(sum(value is not None for *_, value in pages))
        metrics.PAGES.labels("tombstone").inc(sum(value is None for *_, value in pages))
        metrics.PAGE_BYTES.inc(sum(len(value) for *_, value in pages if value is not None))

    async def commit(self, saved: Collection[Saved]) -> None:
        """Moves the commits to what was written; pages of earlier owners go once that has been committed."""
        consumer: Any = self._app.consumer
        for each in saved:
            move(consumer, TP(SOURCE, each.part.partition), each.offset, each.position.text())
            if each.settled and each.part.settled_at is None:
                each.part.settled_at = each.offset
        leaving = [each.part for each in saved if each.part.earlier_pages and each.part.settled_at is not None]
        if not leaving:
            return
        commits = await fetch_committed(consumer)
        for part in leaving:
            known = commits.get(TP(SOURCE, part.partition))
            if known is not None and part.settled_at is not None and known.offset >= part.settled_at:
                await self.write([(part.partition, key, None) for key in part.earlier_pages])
                part.earlier_pages = set()
