"""What `fleetbeat state` reads off pages, says to people and to programs, and would delete; Kafka is a list here."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from aiokafka.structs import TopicPartition

from streams.core.cells import CELL_ROWS
from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.liveness.pages import Position
from streams.core.rows import OpenCells
from streams.core.series import SeriesIndex
from streams.core.table import Heading, SloTable
from streams.engine.commit_notes import Note
from streams.engine.node_pages import page_key as node_key
from streams.engine.node_pages import write_page
from streams.engine.page_heads import Origin
from streams.engine.pages import OPEN, PartPages, chunk_part, load, page_key, write_chunk, write_open
from streams.state import run, survey
from streams.state.changes import empty_pages, plan_rebuild, plan_reset
from streams.state.cluster import Commit, Log, StateError
from streams.state.run import AskedWronglyError, families_of, run_reset, run_show, table
from streams.state.survey import FAMILIES, NODES, SLO, TOPICS, as_json

SECOND = 1_763_000_000
ORIGIN = Origin("id-slo-partials", 0, 2)
Pages = Mapping[str, Sequence[tuple[int, bytes, bytes | None]]]


def slo_pages(origin: Origin = ORIGIN) -> list[tuple[int, bytes, bytes | None]]:
    """One second, sealed, of one series in partition 1; up to offset 1."""
    built, index = SloTable(histograms_in_hours=True), SeriesIndex()
    index.number("a")
    rows = pl.DataFrame([(0, 0, SECOND, -1, 3, True, 4, 20, 5, 0)], {**CELL_ROWS, "offset": pl.Int64}, orient="row")
    built.fold(
        [Heading(0, ((0, 0, 0),)), Heading(1, ((0, 1, (SECOND + 20) * 1_000),))],
        OpenCells.arrived(rows, rows["offset"].to_numpy()),
    )
    built.seal()
    chunks = [
        (1, page_key("series", chunk_part(key), "own"), write_chunk(chunk, origin, index))
        for key, chunk in built.chunks.items()
    ]
    return [*chunks, (1, page_key("series", OPEN, "own"), write_open(built, origin, index))]


def node_pages(count: int) -> list[tuple[int, bytes, bytes | None]]:
    ids = pl.DataFrame({"node_id": [f"n{n}" for n in range(count)]})
    rows = ids.select(
        pl.col(name) if name == "node_id" else pl.lit("" if kind == pl.String else 0).cast(kind).alias(name)
        for name, kind in PAGE_SCHEMA.items()
    )
    return [(0, node_key(0, "own"), write_page(rows, 0, Origin("id-heartbeats", 0, 2)))]


class FakeCluster:
    """Two partitions of everything; `members` run."""

    brokers = "nowhere:1"

    def __init__(self, pages: Pages, members: Sequence[str] = (), begin: int = 0) -> None:
        self.pages = pages
        self.running = list(members)
        self.begin = begin

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(topics, 2)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return {topic: f"id-{topic}" for topic in topics}

    async def logs(self, _topic: str, partitions: Collection[int]) -> dict[int, Log]:
        return {p: Log(self.begin, 5, 1_000_000) for p in partitions}

    async def commits(self) -> dict[tuple[str, int], Commit]:
        position = Position(4, 7_000, 3, 0, 0, 2, 0)
        return {
            ("slo-partials", 1): Commit(2, Note("0", "id-slo-partials", "", 2)),
            ("heartbeats", 0): Commit(4, Note(position.text(), "id-heartbeats", "", 2)),
        }

    async def members(self) -> list[str]:
        return self.running

    async def require_no_worker(self) -> None:
        if self.running:
            raise StateError("running")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a function
    """`use(cluster)`: it is what the commands connect to."""

    def put(cluster: FakeCluster) -> FakeCluster:
        @asynccontextmanager
        async def connected(_: str) -> AsyncIterator[FakeCluster]:
            yield cluster

        async def read(_brokers: str, topic: str, partitions: Collection[int]) -> AsyncIterator[list[Any]]:
            for partition in partitions:
                held = [r for r in cluster.pages.get(topic, ()) if r[0] == partition]
                if held:
                    yield [SimpleNamespace(partition=p, key=key, value=value) for p, key, value in held]

        monkeypatch.setattr(run, "connected", connected)
        monkeypatch.setattr(survey, "read_changelog", read)
        return cluster

    return put


def surveyed(families: Collection[str] = FAMILIES) -> survey.Survey:
    return run._run(run._survey("nowhere:1", families, ()))


PAGES: Pages = {TOPICS[3]: slo_pages(), TOPICS[4]: node_pages(3)}


def test_each_partition_is_told_as_a_worker_would_find_it(use: Any) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster(PAGES))
    found = surveyed()
    slo, nodes = found.states[1], found.states[2]
    assert (slo.family, slo.partition, len(slo.keys), slo.applied, slo.lag) == (SLO, 1, 4, 1, 3)
    assert slo.frontiers == {0: (SECOND + 20) * 1_000}
    assert slo.chunks["1s"] == (SECOND // 10 * 10, SECOND // 10 * 10 + 10)
    assert (slo.owners, slo.origins, slo.recreated) == ({"own"}, {ORIGIN}, False)
    assert (nodes.family, nodes.nodes, nodes.applied, nodes.lag, nodes.frontiers) == (NODES, 3, 3, 1, {0: 7_000})
    empty = found.states[0]
    assert (empty.applied, empty.commit, empty.lag, empty.keys) == (None, None, 5, [])
    assert as_json(found)["states"][1]["commit"] == {
        "offset": 2, "text": "0", "topic_id": "id-slo-partials", "into_topic_id": "", "partitions": 2
    }  # fmt: skip


def test_a_tombstone_is_no_page(use: Any) -> None:  # noqa: ANN401 - a fixture
    gone = [(p, key, None) for p, key, _ in slo_pages()]
    use(FakeCluster({TOPICS[3]: [*slo_pages(), *gone]}))
    assert surveyed([SLO]).states[1].keys == []


def test_what_cannot_be_read_is_newer_or_of_a_deleted_topic_is_told(
    use: Any,  # noqa: ANN401 - a fixture
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = page_key("series", OPEN, "next")
    newer = slo_pages()[-1][2].replace(b'"format":3', b'"format":4')  # type: ignore[union-attr]
    use(FakeCluster({TOPICS[3]: [*slo_pages(Origin("old")), (1, key, newer), (0, key, b"junk")]}))
    assert run_show("nowhere:1", [SLO], (), as_lines=True) == 1
    said = capsys.readouterr().out
    assert "slo partition 0: unreadable: page b'series/open/next' of 4 bytes cannot be read" in said
    assert "slo partition 1: page b'series/open/next': page format 4; expected 3" in said
    assert "slo partition 1: all pages are of a topic that was deleted since" in said


def test_a_sound_state_is_shown_with_status_0(use: Any, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster(PAGES, members=["m at /h"]))
    assert run_show("nowhere:1", [], (), as_lines=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["family", "part", "pages", "bytes", "applied", "commit"]
    assert lines[2].split()[:3] == ["slo", "1", "4"]
    assert "2025-11-13T02:13:40Z" in lines[2]
    assert "3 nodes" in lines[3]
    assert "1 members in the group" in "\n".join(lines)
    assert table(surveyed())[-1].startswith("slo-partials: id ")


def test_partitions_and_families_that_are_not_there_are_refused(use: Any) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster(PAGES))
    with pytest.raises(AskedWronglyError, match="--family tables: expected slo or nodes"):
        families_of(["tables"])
    with pytest.raises(StateError, match="no partition 7; expected 0 to 1"):
        run_show("nowhere:1", [], (7,), as_lines=True)


def test_nobody_is_asked_where_nobody_sits_and_nothing_is_done_then(
    use: Any,  # noqa: ANN401 - a fixture
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(FakeCluster(PAGES))
    with pytest.raises(AskedWronglyError, match="expected --yes"):
        run_reset("nowhere:1", [], (), yes=False)
    assert "5 pages of" in capsys.readouterr().out


def test_a_reset_of_one_partition_leaves_the_commits_that_feed_the_others(use: Any) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster(PAGES))
    found = surveyed([SLO])
    whole = plan_reset(found, [SLO], everything=True)
    part = plan_reset(found, [SLO], everything=False)
    assert {place.topic for place in whole.commits} == {"slo-partials", "probe-results", "request-counts"}
    assert {place.topic for place in part.commits} == {"slo-partials"}
    assert sorted(whole.tombstones[TOPICS[3]]) == sorted((1, key, None) for _, key, _ in slo_pages())


def test_a_rebuild_passes_over_the_partials_that_are_there(use: Any) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster(PAGES, begin=2))
    plan = plan_rebuild(surveyed(), FAMILIES)
    assert plan.jump == {0: 5, 1: 5}
    assert TopicPartition("probe-results", 1) in plan.commits
    assert TopicPartition("request-counts", 1) in plan.commits
    slo, counted, nodes = plan.sentences
    assert "records of request-counts are counted again" in counted
    assert slo.startswith(
        "objectives and series: 6 records of probe-results are counted again; exact from 1970-01-01T00:16"
    )
    assert "nodes that have not spoken since are forgotten" in nodes


def test_the_empty_pages_of_a_rebuild_stand_for_all_partials_until_then() -> None:
    pages = PartPages()
    for _, key, value in empty_pages(1, 5, ORIGIN):
        pages.apply(key, value)
    for family in ("objectives", "series"):
        built = SloTable(histograms_in_hours=True)
        assert load(built, pages, family, SeriesIndex(), ORIGIN) == []
        assert (built.applied, built.frontiers, built.chunks) == (4, {}, {})


def test_partials_for_another_number_of_partitions_are_not_counted_again(use: Any) -> None:  # noqa: ANN401 - a fixture
    use(FakeCluster({TOPICS[3]: slo_pages(Origin("id-slo-partials", 0, 12))}))
    with pytest.raises(StateError, match=r"written with \[12\] partitions, topics have 2.*state rebuild"):
        plan_reset(surveyed(), FAMILIES, everything=True)
    assert plan_rebuild(surveyed(), FAMILIES).jump
