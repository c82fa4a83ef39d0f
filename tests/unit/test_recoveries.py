"""How a worker takes over partitions whose pages, commits and topics do not fit: it goes on, or says why not."""

import asyncio
from collections.abc import AsyncIterator, Collection
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams.core.liveness.admission import Limits
from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.liveness.pages import Position
from streams.core.series import SeriesIndex
from streams.core.table import SloTable
from streams.engine.node_pages import PartitionPages, write_page
from streams.engine.node_pages import page_key as node_key
from streams.engine.page_heads import Origin, PageFormatError, PartitionsChangedError
from streams.engine.pages import OPEN, page_key, write_open
from streams.engine.positions import Committed
from streams.engine.transport import ResumePoint
from streams.processors.node_parts import Part as NodePart
from streams.processors.node_recovery import NodeRecovery, NodesLostError, Span
from streams.processors.slo_parts import Part, PartFolder
from streams.processors.slo_recovery import PARTIALS, SloRecovery, StateLostError
from streams.topic_ids import TopicIdentity

NOW = TopicIdentity("now", 2)


def app(identity: TopicIdentity, committed: dict[TP, ResumePoint] | None = None) -> Any:  # noqa: ANN401 - as Faust's
    return SimpleNamespace(consumer=SimpleNamespace(identity=lambda _: identity, committed=committed or {}))


# Nodes ---------------------------------------------------------------------------------------------------------------


def node_pages(origin: Origin, nodes: int = 3) -> PartitionPages:
    """Nodes that an earlier worker had counted up to offset 400."""
    ids = pl.DataFrame({"node_id": [f"n{n}" for n in range(nodes)]})
    numbers = {"first_offset": 10, "last_offset": 400, "heartbeats": 7}
    rows = ids.select(
        pl.col(name)
        if name == "node_id"
        else pl.lit("" if kind == pl.String else numbers.get(name, 0)).cast(kind).alias(name)
        for name, kind in PAGE_SCHEMA.items()
    )
    pages = PartitionPages(0)
    pages.apply([(node_key(0, "o"), write_page(rows, 0, origin))])
    return pages


def node_part(pages: PartitionPages, topic_id: str, identity: TopicIdentity = NOW) -> NodePart:
    recovery: Any = NodeRecovery(app(identity), None, Limits(100, 100), None)  # type: ignore[arg-type]
    committed = Committed(401, Position(401, 5_000, 400, 0, 3, 3, 0).text(), topic_id)
    return recovery._part(pages, committed, Span(0, 3))  # type: ignore[no-any-return]


def test_nodes_go_on_at_the_beginning_of_a_topic_that_was_created_anew() -> None:
    part = node_part(node_pages(Origin("old", 0, 2)), "old")
    assert (part.read_to, part.origin, part.promised) == (0, Origin("now", 1, 2), 3)
    assert (part.table.nodes, part.table.applied, part.known_again) == (3, -1, True)


def test_pages_of_before_there_were_ids_follow_what_the_commit_says() -> None:
    assert node_part(node_pages(Origin()), "old").origin == Origin("now", 1, 2)


def test_control_of_the_same_topic_such_a_commit_is_refused() -> None:
    with pytest.raises(NodesLostError, match="the log ends at 3, the commit is 401"):
        node_part(node_pages(Origin("now", 0, 2)), "now")
    with pytest.raises(NodesLostError, match="the log ends at 3"):
        node_part(node_pages(Origin()), "")


def test_nodes_that_were_laid_out_over_other_partitions_are_refused() -> None:
    with pytest.raises(PartitionsChangedError, match=r"heartbeats partition 0: .* had 12 partitions, now they have 2"):
        node_part(node_pages(Origin("now", 0, 12)), "now")


# Objectives ----------------------------------------------------------------------------------------------------------


def open_pages(origin: Origin, applied: int = 40) -> list[tuple[bytes, bytes]]:
    pages = []
    for family in ("objectives", "series"):
        table = SloTable(histograms_in_hours=True)
        table.restore(applied, {0: 5_000}, table.open_rows(), {})
        pages.append((page_key(family, OPEN, "o"), write_open(table, origin, SeriesIndex())))
    return pages


def slo_part(pages: list[tuple[bytes, bytes]], committed: int | None, identity: TopicIdentity = NOW) -> Part:
    async def read(topic: str, _: Collection[int]) -> AsyncIterator[list[ConsumerRecord[bytes, bytes]]]:
        assert topic != PARTIALS
        yield [
            ConsumerRecord(topic, 0, offset, 0, 1, key, value, None, 0, 0, ())
            for offset, (key, value) in enumerate(pages)
        ]

    async def in_thread(step: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any step
        return step(*arguments)

    points = {} if committed is None else {TP(PARTIALS, 0): ResumePoint(committed, 0)}
    recovery = SloRecovery(app(identity, points), read, PartFolder(SeriesIndex()), in_thread)
    return asyncio.run(recovery.build([0]))[0]


def test_tables_go_on_at_the_beginning_of_a_topic_that_was_created_anew() -> None:
    """The seek has found the commit void; what the sources had told stays known."""
    part = slo_part(open_pages(Origin("old", 0, 2)), None)
    assert (part.applied, part.origin) == (-1, Origin("now", 1, 2))
    assert all(table.frontiers == {0: 5_000} for table in part.tables.values())


def test_control_of_the_same_topic_they_go_on_where_they_were() -> None:
    part = slo_part(open_pages(Origin("now", 0, 2)), 41)
    assert (part.applied, part.origin) == (40, Origin("now", 0, 2))


def test_pages_that_end_before_the_commit_are_refused_with_the_way_on() -> None:
    with pytest.raises(StateLostError, match=r"end at offset 40, the commit is 50; .*fleetbeat state rebuild"):
        slo_part(open_pages(Origin("now", 0, 2)), 50)


def test_tables_that_were_laid_out_over_other_partitions_are_refused() -> None:
    with pytest.raises(
        PartitionsChangedError, match=r"slo-partials partition 0: .* had 12 partitions, now they have 2"
    ):
        slo_part(open_pages(Origin("now", 0, 12)), 41)


def test_pages_of_a_newer_version_stop_the_worker() -> None:
    newer = [(key, value.replace(b'"format":3', b'"format":4')) for key, value in open_pages(Origin("now", 0, 2))]
    with pytest.raises(PageFormatError, match="page format 4; expected 3"):
        slo_part(newer, 41)
