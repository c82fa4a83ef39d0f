"""Sums of raw rows, made by ClickHouse, are what the tables hold of the same log: every tier, topic, step and bucket.

Logs are drawn as for the tests of exactness: late events, absurd times, unreadable records, append times that go back.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import polars as pl
import pytest

from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore
from streams.core.histogram import BOUNDS, buckets_of
from streams.core.past import Question
from streams.core.rows import Steps
from streams.core.signing import Doubt
from streams.core.slices import COUNTS, HOURS, LATENESS_MS, MINUTES, PLAIN_TIERS, SECONDS, TIERS, Tier, held_since
from streams.core.sources import COUNTS as REQUEST_COUNTS
from streams.core.sources import PROBES, place_of
from streams.core.versions import Announcement, Timeline
from streams.engine.page_heads import Origin
from streams.history.judging import judgings
from streams.history.past import RawPast
from streams.history.recount import STEPS, Recount
from streams.history.rows import RawRows
from streams.history.sums import Cut, Span
from streams.state.compare import Difference, differences
from streams.state.kept import sealed_steps
from streams.state.reconcile import cuts_of
from streams.state.refill import Refill, Stand
from tests.unit.exactness import DAY_MS, Counted, Event, Log, Logged, draw_log
from tests.unit.exactness_parts import OBJECTIVES
from tests.unit.exactness_world import World

PARTITIONS, COUNTED = 2, 1
TIMELINE = Timeline([Announcement(0, 0, 0, OBJECTIVES)])


class Asked:
    """Stands for an endpoint: asks the engine itself."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store

    def ask(self, sql: str, output_format: str) -> Generator[bytes]:
        with self._store.handle() as handle:
            yield handle.query(sql, output_format).data


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path_factory.mktemp("store"), memory_cap_bytes=1 << 30) as opened:
        client = opened.client()
        ddl.apply(client)
        client.command("SYSTEM STOP TTL MERGES")
        client.close()
        yield opened


def archived(
    store: EmbeddedStore,
    log: Log,
    without: tuple[int, int] | None = None,
    refused: Mapping[tuple[int, int], str] = MappingProxyType({}),
) -> RawRows:
    """The log as the archive would have it, but for one record (partition, offset).

    `refused`: records that are rows and that workers have written letters about, with the reason.
    """
    tables: dict[str, list[dict[str, object]]] = {"probe_results": [], "request_counts": [], "dead_letters": []}
    for place, records in enumerate(log):
        topic, partition = (PROBES, place) if place < PARTITIONS else (REQUEST_COUNTS, place - PARTITIONS)
        for offset, record in enumerate(records):
            if (place, offset) != without:
                table, row = _row(record, topic, partition, offset)
                tables[table].append(row)
            if (place, offset) in refused:
                _, letter = _row(Logged(record.append_ms, None), topic, partition, offset)
                tables["dead_letters"].append({**letter, "reason": refused[place, offset]})
    client = store.client()
    for table, rows in tables.items():
        client.command(f"TRUNCATE TABLE telemetry.{table}")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        client.raw_insert(f"telemetry.{table}", insert_block=lines.encode(), fmt="JSONEachRow")
    client.close()
    return RawRows(Asked(store))  # type: ignore[arg-type]


def _row(record: Logged, topic: str, partition: int, offset: int) -> tuple[str, dict[str, object]]:
    event, at = record.event, record.append_ms
    if event is None:
        place = {"topic": topic, "partition": partition, "offset": offset}
        return "dead_letters", {**place, "append_ts": at / 1_000, "received_at": at / 1_000}
    ts = min(max(event.ts, at - 35 * DAY_MS), at + 5_000)
    row: dict[str, object] = {"ts": ts / 1_000, "received_at": at / 1_000}
    row |= {"kafka_partition": partition, "kafka_offset": offset}
    row |= dict(zip(("service", "endpoint", "region", "kind"), event.labels, strict=True))
    if isinstance(event, Event):
        return "probe_results", {**row, "success": event.success, "latency_us": event.latency_us}
    assert isinstance(event, Counted)
    del row["kind"]
    items = dict(zip(("histogram_bucket", "histogram_total", "histogram_good"), _columns(event.histogram), strict=True))
    counts = {name: getattr(event, name) for name in ("total", "good", "sum_us", "max_us")}
    return "request_counts", {**row, **counts, **items}


def _columns(items: Sequence[tuple[int, int, int]]) -> tuple[list[int], ...]:
    return tuple([item[column] for item in items] for column in range(3))


def tables_of(log: Log) -> World:
    """All of the log, counted and sealed."""
    world = World(log, counted=COUNTED)
    world.finish()
    return world


def frontiers_of(world: World) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for own, at in world.owners[0].tables["objectives"].frontiers.items():
        source, partition = place_of(own)
        found.setdefault(source, {})[partition] = at
    return found


def compared(world: World, rows: RawRows) -> tuple[list[Difference], int, Recount]:
    """What differs between tables and raw rows, in how many steps, and how they were counted again."""
    owner, frontiers = world.owners[0], frontiers_of(world)
    now_s = max(at for known in frontiers.values() for at in known.values()) // 1_000
    recount = Recount(rows, cuts_of(rows, frontiers, held_since(HOURS, now_s)))
    found, steps = list[Difference](), 0
    for tier in TIERS:
        span = Span(held_since(tier, now_s), now_s + 3_600)
        stream = sealed_steps(owner.tables["objectives"], owner.index, tier, span)
        series = {name: each for name, each in judgings(TIMELINE).items() if tier is not COUNTS or "-1m" in name}
        parts = [
            recount.objective(name, judging, span, tier, histograms=tier is not COUNTS)
            for name, judging in series.items()
        ]
        found += differences(stream, pl.concat(parts))
        steps += stream.height
    for tier in PLAIN_TIERS:
        span = Span(held_since(tier, now_s), now_s + 3_600)
        stream = sealed_steps(owner.tables["series"], owner.index, tier, span)
        found += differences(stream, all_plain(recount, span, tier, histograms=tier is SECONDS))
        steps += stream.height
    return found, steps, recount


def all_plain(recount: Recount, span: Span, tier: Tier, *, histograms: bool) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=STEPS), *recount.plain(span, tier, histograms=histograms)])


@pytest.mark.parametrize("records", [60, 700])
def test_raw_rows_add_up_to_what_the_tables_have_sealed(store: EmbeddedStore, rng: random.Random, records: int) -> None:
    log = draw_log(rng, PARTITIONS, records, counted=COUNTED)
    world = tables_of(log)
    found, steps, recount = compared(world, archived(store, log))
    assert found == []
    assert steps > records / 2
    went_back = any(after.append_ms < before.append_ms for records in log for before, after in pairwise(records))
    assert went_back == any(cut.setbacks for cut in recount.cuts.values())
    assert world.owners[0].tables["objectives"].sealed_to_ms() > 0


def test_one_row_less_is_found_and_named(store: EmbeddedStore, rng: random.Random) -> None:
    log = draw_log(rng, PARTITIONS, 400, counted=COUNTED)
    world = tables_of(log)
    last_ms = frontiers_of(world)[PROBES][0]
    offset, event = next(
        (offset, record.event)
        for offset, record in reversed([*enumerate(log[0])])
        if isinstance(record.event, Event) and record.append_ms < last_ms - 2 * LATENESS_MS
    )
    found, _, _ = compared(world, archived(store, log, without=(0, offset)))
    append_ms = log[0][offset].append_ms
    second = min(max(event.ts, append_ms - 35 * DAY_MS), append_ms + 5_000) // 1_000
    totals = [each for each in found if each.field == "total"]
    assert {each.stream - each.raw for each in totals} == {1}
    assert second // 3_600 * 3_600 in {each.start_s for each in totals if each.series.startswith("slo:all@")}
    assert {each.start_s for each in found} <= {second, second // 60 * 60, second // 3_600 * 3_600}


@pytest.mark.parametrize("reason", [Doubt.REPLAYED, "anything else"])
def test_what_workers_have_refused_for_its_signature_is_a_row_that_does_not_count(
    store: EmbeddedStore, rng: random.Random, reason: str
) -> None:
    """With any other reason of the letters, the control, these rows are differences."""
    log = draw_log(rng, PARTITIONS, 300, counted=COUNTED)
    there = [
        (place, offset) for place, own in enumerate(log) for offset, one in enumerate(own) if one.event is not None
    ]
    refused = rng.sample(there, len(there) // 5)
    counted = [
        [Logged(one.append_ms, None) if (place, offset) in refused else one for offset, one in enumerate(own)]
        for place, own in enumerate(log)
    ]
    found, steps, _ = compared(tables_of(counted), archived(store, log, refused=dict.fromkeys(refused, reason)))
    assert steps > 100
    assert bool(found) == (reason != Doubt.REPLAYED)


def test_without_its_rule_of_frontiers_other_events_would_be_late(store: EmbeddedStore) -> None:
    """A control: append times that go back, judged by each record's own."""
    log = [[_at(0), _at(60_000), _at(49_000, lag=4_000), _at(200_000)], [], []]
    world, rows = tables_of(log), archived(store, log)
    assert compared(world, rows)[0] == []
    frontiers = frontiers_of(world)
    blind = Recount(rows, {PROBES: Cut(PROBES, frontiers[PROBES])})
    span = Span(0, 1 << 31)
    owner = world.owners[0]
    stream = sealed_steps(owner.tables["series"], owner.index, MINUTES, span)
    found = list(differences(stream, all_plain(blind, span, MINUTES, histograms=False)))
    assert [each.field for each in found] == ["late"]


def test_the_past_of_an_objective_is_what_a_table_would_have_counted(store: EmbeddedStore, rng: random.Random) -> None:
    """Sealed or not; what is late may differ where append times went back."""
    log = draw_log(rng, PARTITIONS, 300, counted=COUNTED)
    owner, past = tables_of(log).owners[0], RawPast(archived(store, log), PARTITIONS)
    now_s = max(owner.tables["objectives"].frontiers.values()) // 1_000
    columns = ["start", "bucket", "good", "n", "sum_us", "max_us"]
    found = Counter[str]()
    for objective in OBJECTIVES:
        for tier in (*PLAIN_TIERS, HOURS, *([COUNTS] if objective.time_slices else [])):
            span = held_since(tier, now_s), now_s + 3_600
            wanted = owner.tables["objectives"].read(owner.index.number(objective.series), tier, *span)
            parts = past.parts(objective.source, Question(tier, *span))
            assert parts == tuple(sorted(parts, key=lambda part: -part.start_s))
            steps = Steps.concat(Steps.empty(), *(past.steps(objective, part) for part in parts)).summed()
            assert steps.frame().select(columns).equals(wanted.select(columns))
            found[objective.source] += wanted.height
    assert min(found[source] for source in (PROBES, REQUEST_COUNTS)) > 20


def begun_anew(store: EmbeddedStore, rng: random.Random, back_ms: int = 0) -> str:
    """A worker counts some of a log and loses its pages; they are made anew, and another one counts on to the end.

    Returns how its tables then differ from the log. `back_ms`: how far the new pages stand behind the archive.
    """
    log = draw_log(rng, PARTITIONS, 500, counted=COUNTED)
    ends = [rng.randrange(len(records) // 2, len(records)) for records in log]
    world = World(log, counted=COUNTED)
    for _ in range(4):
        for counter in world.counters:
            polls = [(p, at, rng.randint(at, ends[p])) for p, at in counter.next.items()]
            polls = [poll for poll in polls if poll[1] < poll[2]]
            if polls:
                world.count(counter, *polls, commit=rng.random() < 0.8)
    rows = archived(store, [records[:end] for records, end in zip(log, ends, strict=True)])
    frontiers: dict[str, dict[int, int]] = {PROBES: {}, REQUEST_COUNTS: {}}
    for place, (records, end) in enumerate(zip(log, ends, strict=True)):
        topic, partition = (PROBES, place) if place < PARTITIONS else (REQUEST_COUNTS, place - PARTITIONS)
        frontiers[topic][partition] = max(record.append_ms for record in records[:end]) - back_ms
    last = len(world.partials[0])
    refill = Refill(rows, Stand(frontiers, {}, {}), judgings(TIMELINE), 1, {0: last}, {0: Origin()}, 10_000)
    chunks, opens = asyncio.run(refill.pages(print))
    world.pages[0] = [(key, value) for _, key, value in chunks + opens]
    world.page_commits[0] = last
    world.restart_counters()
    world.replace_owner()
    return world.finish()


def test_tables_that_were_made_anew_are_gone_on_from_exactly(store: EmbeddedStore, rng: random.Random) -> None:
    assert begun_anew(store, rng) == ""


def test_made_anew_behind_what_owners_were_told_they_would_lack_events(
    store: EmbeddedStore, rng: random.Random
) -> None:
    """A control: the frontier must not be before what rollups are done with."""
    assert begun_anew(store, rng, back_ms=600_000)


def _at(append: int, lag: int = 0) -> Logged:
    begin = 1_763_000_000_000
    return Logged(begin + append, Event(("shop", "/", "eu", "http"), begin + append - lag, success=True, latency_us=5))


def test_buckets_of_every_bound_and_its_neighbours(store: EmbeddedStore) -> None:
    values = sorted({int(v) for bound in BOUNDS for v in (bound - 1, bound, bound + 1) if 0 <= v <= BOUNDS[-2]})
    begin = 1_763_000_000_000
    log = [[Logged(begin, Event(("s", "", "", ""), begin, success=True, latency_us=value)) for value in values], [], []]
    rows = archived(store, log)
    cut = Cut(PROBES, {0: begin + 60_000})
    sums = all_plain(Recount(rows, {PROBES: cut}), Span(begin // 1_000, begin // 1_000 + 1), SECONDS, histograms=True)
    expected = Counter(buckets_of(np.array(values)).tolist())
    assert dict(sums.select("bucket", "n").iter_rows()) == expected
