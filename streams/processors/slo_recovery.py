"""How the objectives' tables of newly owned partitions come back: from their pages, or from `slo-partials` itself."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams import metrics
from streams.engine.app import APP_ID, App
from streams.engine.changelog import ReadLog
from streams.engine.page_heads import origin_now, require_partitions
from streams.engine.pages import PartPages, load
from streams.engine.transport import Consumer
from streams.processors.slo_parts import Part, PartFolder

PARTIALS = "slo-partials"
PAGES_TOPIC = f"{APP_ID}-pages-changelog"

log = structlog.get_logger("fleetbeat.objectives")


class StateLostError(RuntimeError):
    """The commit says more was counted than the pages hold: going on would lose events silently."""

    def __init__(self, topic: str, partition: int, applied: int, committed: int) -> None:
        super().__init__(
            f"{topic} partition {partition}: the state pages end at offset {applied}, the commit is {committed}; "
            "expected pages up to the commit (was the pages topic recreated, or changed by hand? "
            "`fleetbeat state rebuild` makes them anew, from ClickHouse or from what the topics hold)"
        )


@dataclass(frozen=True, slots=True)
class SloRecovery:
    """Builds parts; `in_thread` runs a step where it holds up nothing."""

    app: App
    read: ReadLog
    folder: PartFolder
    in_thread: Callable[..., Any]

    async def build(self, partitions: Collection[int]) -> dict[int, Part]:
        """A page that cannot be read is counted, and what it held is counted again.

        Raises StateLostError, PageFormatError, PartitionsChangedError and NotWholeError.
        """
        if not partitions:
            return {}
        pages = {partition: PartPages() for partition in partitions}
        async for records in self.read(PAGES_TOPIC, partitions):
            await self.in_thread(_apply, pages[records[0].partition], records)
        parts: dict[int, Part] = {}
        for partition in list(pages):
            found = pages.pop(partition)  # else all of them are in memory twice
            part, unreadable = await self.in_thread(self._part, partition, found)
            if unreadable:
                await self._count_again(partition, part, unreadable)
            point = self._consumer.committed.get(TP(PARTIALS, partition))
            if point is not None and part.applied + 1 < point.offset:
                raise StateLostError(PARTIALS, partition, part.applied, point.offset)
            parts[partition] = part
        return parts

    def _part(self, partition: int, pages: PartPages) -> tuple[Part, list[str]]:
        origins = [page.origin for page in pages.all()]
        origin = origin_now(self._consumer.identity(PARTIALS), origins)
        require_partitions(PARTIALS, partition, origin, origins)
        if any(known.generation < origin.generation for known in origins):
            log.warning("the tables go on from pages of a topic that was deleted since", partition=partition)
        index, tables = self.folder.index, self.folder.new_tables()
        unreadable: list[str] = []
        for family, table in tables.items():
            unreadable += load(table, pages, family, index, origin)
        part = Part(tables, {name: set(keys) for name, keys in pages.keys.items()}, origin)
        part.saved = part.applied
        return part, unreadable

    async def _count_again(self, partition: int, part: Part, unreadable: list[str]) -> None:
        """Everything that `slo-partials` still holds: exact as far back as it reaches."""
        for why in unreadable:
            metrics.UNREADABLE_PAGES.inc()
            log.error("a state page cannot be read: its partition is counted again", partition=partition, page=why)
        first: int | None = None
        async for records in self.read(PARTIALS, [partition]):
            first = records[0].offset if first is None else first
            await self.in_thread(self._refold, part, records)
        if first:
            log.error(
                "what the pages held may be lost as far as it is older than slo-partials",
                partition=partition,
                from_offset=first,
            )

    def _refold(self, part: Part, records: list[ConsumerRecord[bytes, bytes]]) -> None:
        self.folder.fold(part, records)
        for table in part.tables.values():
            table.seal()

    @property
    def _consumer(self) -> Consumer:
        return self.app.consumer  # type: ignore[return-value]


def _apply(pages: PartPages, records: list[ConsumerRecord[bytes, bytes]]) -> None:
    for record in records:
        pages.apply(record.key or b"", record.value)
