"""Topics that are deleted and created again, with all that Kafka holds in lists: sources, state pages and nodes."""

from collections.abc import Iterable, Sequence
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Source
from streams.core.lineage import Lineage
from streams.core.liveness.admission import Limits
from streams.core.liveness.columns import PAGE_SCHEMA
from streams.core.liveness.table import NodeTable
from streams.core.rollup import Flush
from streams.core.rows import OpenCells
from streams.core.table import Heading, SloTable
from streams.engine.node_pages import PartitionPages, write_page
from streams.engine.node_pages import page_key as node_key
from streams.engine.page_heads import Origin, PartitionsChangedError, origin_now, require_partitions
from streams.engine.pages import NotWholeError, PartPages, load
from streams.engine.partials import write_partials
from streams.processors.node_recovery import beginning
from streams.topic_ids import TopicIdentity
from tests.unit.exactness import PROMISES, START_MS, Event, Log, Logged, Rows, frontier_of, recompute
from tests.unit.exactness_parts import Counter, Owner, rows_of
from tests.unit.exactness_world import World

SHOP = ("shop", "/cart", "us", "http")


def at(append_s: float, ts_s: float) -> Logged:
    event = Event(SHOP, START_MS + int(ts_s * 1_000), success=True, latency_us=300)
    return Logged(START_MS + int(append_s * 1_000), event)


# Both logs have events of second 3; in the older one they stand at greater offsets.
FIRST = [at(0.1 * n, 3) for n in range(20)]
SECOND = [at(4, 3), at(4.1, 3.5), at(4.2, 4), at(30, 30), at(60, 60)]


class ForgetfulTable(SloTable):
    """The control: a source is a partition, whichever topic it is of."""

    def fold(self, records: Sequence[Heading], rows: OpenCells) -> None:
        super().fold([Heading(record.offset, record.sources) for record in records], rows)


class RecreatedWorld(World):
    """Its source topic may be created anew; `topic_id` is of the one that is read now."""

    def __init__(self, log: Log, **options: int) -> None:
        self.topic_id = "first"
        super().__init__(log, **options)

    def recreate_source(self, log: Log) -> Counter:
        """Counters begin at the beginning of the new one; the old counter is returned: it may linger."""
        (old,) = self.counters
        self.log, self.topic_id = log, "second"
        self.commits = dict.fromkeys(range(len(log)), (0, 0))
        self.counters = [self.new_counter(range(len(log)))]
        return old

    def _partials(self, counter: Counter, flush: Flush, *, everyone: bool) -> Iterable[tuple[int, bytes]]:
        assert everyone
        rows = pl.concat([flush.plain, flush.objectives])
        sources = [Source(p, progress.applied_offset, progress.frontier) for p, progress in flush.progress.items()]
        for value in write_partials("probe-results", self.topic_id, sources, rows, counter.index):
            yield 0, value


class Forgetful(RecreatedWorld):
    table = ForgetfulTable


def both(*logs: Sequence[Logged]) -> Rows:
    """What the tables must hold: the sum over logs."""
    found: Rows = {}
    for log in logs:
        for row, (n, late, sum_us, max_us) in recompute([list(log)], PROMISES).items():
            before = found.get(row, (0, 0, 0, 0))
            found[row] = (before[0] + n, before[1] + late, before[2] + sum_us, max(before[3], max_us))
    return found


def totals(rows: Rows) -> dict[str, int]:
    """Events by tier: which tiers hold a time follows from the newest frontier, which both logs share here."""
    found: dict[str, int] = {}
    for (tier, *_), (n, *_) in rows.items():
        found[tier] = found.get(tier, 0) + n
    return found


def answered(world: World) -> Rows:
    found: Rows = {}
    for owner in world.owners:
        for table in owner.tables.values():
            found |= rows_of(table, owner.index, frontier_of(world.log))
    return found


def source_created_anew(kind: type[RecreatedWorld], *, saved: bool = False, zombie: bool = False) -> Rows:
    world = kind([FIRST])
    world.count(world.counters[0], (0, 0, 15))
    lingering = world.counters[0]
    world.count(world.counters[0], (0, 15, 20))
    world.fold()
    if saved:
        world.save()
    world.recreate_source([SECOND])
    world.count(world.counters[0], (0, 0, 1))
    if saved:
        world.fold()
        world.save()
        world.replace_owner()
    if zombie:
        world.topic_id, log = "first", world.log
        world.log = [[*FIRST, at(3, 3)]]
        world.count(lingering, (0, 20, 21), commit=False)
        world.topic_id, world.log = "second", log
    world.count(world.counters[0], (0, 1, 3))
    world.count(world.counters[0], (0, 3, 5))
    world.fold()
    world.owners[0].seal()
    return answered(world)


@pytest.mark.parametrize("saved", [False, True])
def test_events_of_a_second_that_two_topics_share_all_count(saved: bool) -> None:  # noqa: FBT001 - a case
    assert source_created_anew(RecreatedWorld, saved=saved) == both(FIRST, SECOND)


def test_control_by_partition_alone_the_events_of_the_second_topic_are_lost() -> None:
    lost = totals(both(FIRST, SECOND))["1s"] - totals(source_created_anew(Forgetful))["1s"]
    assert lost > 0


@pytest.mark.parametrize("saved", [False, True])
def test_what_a_stopped_worker_says_of_the_first_topic_afterwards_changes_nothing(saved: bool) -> None:  # noqa: FBT001 - a case
    assert source_created_anew(RecreatedWorld, saved=saved, zombie=True) == both(FIRST, SECOND)


def random_life(rng: Random) -> tuple[Rows, Rows]:
    """Two topics after each other whose seconds overlap, with crashes and saves; in the end all is sealed."""
    first = [at(0.2 * n, 0.2 * n + rng.choice((0, 0, 3, -1))) for n in range(rng.randint(1, 30))]
    begin = 0.2 * len(first) + rng.choice((0.1, 1, 8))
    second = [at(begin + 0.3 * n, begin + 0.3 * n - rng.choice((0, 0, 2, 20))) for n in range(rng.randint(1, 30))]
    second += [at(begin + 40, begin + 40), at(begin + 80, begin + 80)]
    world = RecreatedWorld([first])
    for log in (first, second):
        if log is second:
            ghost = world.recreate_source([second])
        while world.counters[0].next[0] < len(log):
            at_ = world.counters[0].next[0]
            world.count(world.counters[0], (0, at_, rng.randint(at_ + 1, min(len(log), at_ + 12))))
            happen(world, rng)
    world.topic_id, world.log = "first", [[*first, at(begin, begin)]]
    world.count(ghost, (0, len(first), len(first) + 1), commit=False)
    world.topic_id, world.log = "second", [second]
    world.fold()
    world.owners[0].seal()
    return answered(world), both(first, second)


def happen(world: World, rng: Random) -> None:
    act = rng.random()
    if act < 0.3:
        world.fold()
    elif act < 0.5:
        world.fold()
        world.save(acked=rng.choice((None, None, 1, 2)))
        world.replace_owner()
    elif act < 0.6:
        world.restart_counters()


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_happens_the_tables_hold_both_topics(rng: Random) -> None:
    found, wanted = random_life(rng)
    assert found == wanted


def test_partials_that_name_no_topic_are_of_the_one_that_was_heard_last() -> None:
    """Workers of before this rule run beside newer ones."""
    lineage = Lineage()
    assert lineage.place(3, "") == (3, None, False)
    assert lineage.place(3, "a") == (3, None, False)
    assert lineage.place(3, "") == (3, None, False)
    number, retires, retired = lineage.place(3, "b")
    assert (retires, retired) == (3, False)
    assert lineage.place(3, "").number == lineage.place(3, "b").number == lineage.live(3) == number != 3
    assert lineage.place(3, "a") == (3, None, True)
    assert lineage.place(4, "a") == (4, None, False)
    assert list(lineage.retired()) == [3]


def test_old_and_new_workers_share_the_cells_of_a_topic() -> None:
    world = RecreatedWorld([[*FIRST, *SECOND]])
    for step in range(0, 25, 5):
        world.topic_id = "first" if step % 2 else ""
        world.count(world.counters[0], (0, step, step + 5))
    assert world.finish() == ""


# State pages ---------------------------------------------------------------------------------------------------------


def origin(topic_id: str, generation: int = 0, partitions: int = 0) -> Origin:
    return Origin(topic_id, generation, partitions)


@pytest.mark.parametrize(
    ("found", "generation"),
    [
        pytest.param([], 0, id="no pages"),
        pytest.param([origin("")], 0, id="pages of before there were ids"),
        pytest.param([origin(""), origin("now")], 0, id="half of them written anew"),
        pytest.param([origin("old")], 1, id="of another topic"),
        pytest.param([origin(""), origin("old")], 1, id="of another topic, and of before"),
        pytest.param([origin("old"), origin("now", 1)], 1, id="half of them written anew for this topic"),
        pytest.param([origin("old"), origin("older", 3)], 4, id="of two other topics"),
    ],
)
def test_where_the_log_that_is_there_stands_among_those_of_the_pages(found: list[Origin], generation: int) -> None:
    assert origin_now(TopicIdentity("now", 4), found) == Origin("now", generation, 4)
    assert origin_now(TopicIdentity("", 4), found).generation == max((o.generation for o in found), default=0)


def test_another_number_of_partitions_is_refused() -> None:
    require_partitions("t", 1, origin("a", 0, 4), [origin("a", 0, 4), origin("")])
    with pytest.raises(PartitionsChangedError, match=r"t partition 1: .* had 12 partitions, now they have 24"):
        require_partitions("t", 1, origin("a", 0, 24), [origin("a", 0, 24), origin("", 0, 12)])


class RecreatedPartials(World):
    """The topic of the partials may be created anew; then all of the source is counted again."""

    origin = Origin("first")

    def recreate_partials(self) -> None:
        self.partials = [[] for _ in self.partials]
        self.page_commits = [0] * len(self.partials)
        self.commits = dict.fromkeys(range(len(self.log)), (0, 0))
        self.origin = Origin("second", 1)
        self.restart_counters()

    def owner_of(self, origin: Origin | None) -> Owner:
        pages = PartPages()
        for key, value in self.pages[0]:
            pages.apply(key, value)
        owner = Owner(self.name_owner(), self.table, PartPages(), 0, 0)
        for family, table in owner.tables.items():
            assert load(table, pages, family, owner.index, origin) == []
        owner.keys = {part: set(keys) for part, keys in pages.keys.items()}
        owner.origin = origin or Origin()
        return owner


def partials_created_anew(*, unfolded: int, knows: bool = True, crash: int | None = None) -> tuple[Rows, Rows]:
    """What is answered and what should be, when some `unfolded` records went with the topic."""
    log = [[at(n, n) for n in range(60)]]
    world = RecreatedPartials(log)
    world.owners[0].origin = world.origin
    for offset in range(30):
        world.count(world.counters[0], (0, offset, offset + 1))
    world.fold()
    world.save()
    if unfolded:
        world.count(world.counters[0], (0, 30, 30 + unfolded))
    world.recreate_partials()
    world.owners[0] = world.owner_of(world.origin if knows else None)
    begin = 0 if knows else world.owners[0].applied + 1
    world.count(world.counters[0], (0, 0, 20))
    world.count(world.counters[0], (0, 20, 45))
    world.fold(0, to=1)
    if crash is not None:
        world.save(acked=crash)
        world.owners[0] = world.owner_of(world.origin)
        world.owners[0].next = 0
    world.count(world.counters[0], (0, 45, 60))
    world.owners[0].next = max(world.owners[0].next, begin)
    if world.owners[0].next < len(world.partials[0]):
        world.fold()
    world.owners[0].seal()
    return answered(world), recompute(log, PROMISES)


@pytest.mark.parametrize("crash", [None, 0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("unfolded", [0, 15])
def test_tables_go_on_from_pages_of_a_topic_of_partials_that_is_gone(unfolded: int, crash: int | None) -> None:
    """What was on its way comes again, and what the pages hold is not added again, also after a crash half saved."""
    found, wanted = partials_created_anew(unfolded=unfolded, crash=crash)
    assert found == wanted


def test_control_taken_for_the_same_log_the_new_partials_would_be_passed_over() -> None:
    found, wanted = partials_created_anew(unfolded=15, knows=False)
    assert totals(found)["1s"] < totals(wanted)["1s"]


def test_pages_half_saved_when_their_topic_went_are_refused() -> None:
    """A cell may be in a chunk and in the open cells too: only offsets could tell."""
    world = RecreatedPartials([[at(n, n) for n in range(60)]])
    world.owners[0].origin = world.origin
    world.count(world.counters[0], (0, 0, 5))
    world.fold()
    world.save()
    world.count(world.counters[0], (0, 5, 40))
    world.fold()
    world.save(acked=2)
    world.owner_of(world.origin)
    with pytest.raises(NotWholeError, match=r"chunk \S+ is at offset 1, the open cells at 0"):
        world.owner_of(Origin("second", 1))


# Nodes ---------------------------------------------------------------------------------------------------------------


def node_rows(*nodes: tuple[str, int, int, int]) -> pl.DataFrame:
    """(id, first offset, last offset, heartbeats)."""
    rows = pl.DataFrame(nodes, schema=["node_id", "first_offset", "last_offset", "heartbeats"], orient="row")
    missing = [pl.lit("" if kind == pl.String else 0).alias(name) for name, kind in PAGE_SCHEMA.items()]
    return rows.with_columns(column for column in missing if column.meta.output_name() not in rows.columns).select(
        pl.col(name).cast(kind) for name, kind in PAGE_SCHEMA.items()
    )


def recovered(pages: Sequence[tuple[Origin, pl.DataFrame]], now: Origin) -> dict[str, int]:
    """Heartbeats of each node that a worker knows before it reads the log from its beginning."""
    found = PartitionPages(0)
    found.apply((node_key(n, "o"), write_page(rows, 0, of)) for n, (of, rows) in enumerate(pages))
    table = NodeTable(Limits(100, 100), 1)
    rows = list(found.rows(now))
    table.restore(rows, beginning(rows))
    assert table.applied == table.decided_offset == -1
    nodes = table.describe(pl.Series([name for page in rows for name in page["node_id"].unique()]).unique(), 1)
    assert found.unreadable == []
    return {node.node_id: node.heartbeats for node in nodes}


OLD, NOW = Origin("old"), Origin("now", 1)


def test_nodes_of_the_topic_before_are_known_and_all_heartbeats_of_the_new_one_are_news() -> None:
    rows = node_rows(("a", 5, 5_000, 40), ("b", 7, 6_000, 50))
    assert recovered([(OLD, rows)], NOW) == {"a": 40, "b": 50}
    assert recovered([(OLD, rows)], OLD) == {}  # the control: never committed, so the log is to bring them


def test_what_was_counted_of_the_new_topic_wins_over_greater_offsets_of_the_old_one() -> None:
    old, new = node_rows(("a", 5, 5_000, 40)), node_rows(("a", -1, 3, 44), ("new", 2, 3, 1))
    assert recovered([(OLD, old), (NOW, new)], NOW) == {"a": 44}
    assert recovered([(NOW, new), (OLD, old)], NOW) == {"a": 44}


def test_of_two_topics_before_the_later_one_counts() -> None:
    pages = [(Origin("old"), node_rows(("a", 5, 5_000, 40))), (Origin("mid", 1), node_rows(("a", -1, 3, 44)))]
    for order in (pages, pages[::-1]):
        assert recovered(order, Origin("now", 2)) == {"a": 44}


def test_headings_without_a_topic_are_as_before() -> None:
    assert Heading(1, ()).topic_id == ""
