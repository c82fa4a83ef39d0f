"""Rollups on a real engine: equal to the raw rows, exactly, whatever was repeated or lost on the way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.records import BucketCount, Heartbeat, ProbeResult, RequestCount
from streams.archive import ddl, ingest, retention, rollups, schema
from streams.archive.blocks import Chunk, Route, Shaped, Shaper, routes
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest
from streams.archive.plans import Incomplete, PlanStore
from streams.archive.rollups import Difference

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW = time.time_ns() // 1_000_000
RESULTS, BEATS, COUNTS, *_ = routes()
RAW = {RESULTS: "probe_results", BEATS: "heartbeats", COUNTS: "request_counts"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path_factory.mktemp("rollups") / "store", memory_cap_bytes=1 << 30) as opened:
        with_tables = opened.client()
        ddl.apply(with_tables)
        with_tables.close()
        yield opened


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[Any]:
    client = store.client()
    empty(client)
    yield client
    client.close()


def empty(client: Any) -> None:  # noqa: ANN401
    for rollup in rollups.rollups().values():
        for table in (rollup.source, rollup.table, *([rollup.coarser.table] if rollup.coarser else [])):
            client.command(f"TRUNCATE TABLE telemetry.{table}")
    for table in ("archive_plans", "archive_retention"):
        client.command(f"TRUNCATE TABLE telemetry.{table}")


def batch(route: Route, first: int, ages_ms: list[int], received_at: int = NOW, partition: int = 0) -> Shaped:
    """One record an age, each of another series than the last."""
    records: list[Any] = []
    for n, age in enumerate(ages_ms):
        ts, zone = received_at - age, "ab"[n % 2]
        if route is RESULTS:
            records.append(ProbeResult("n", ts, "b", n, "p", "http", "s", f"/{zone}", "eu", n % 3 > 0, 1_000 * n + 7))
        elif route is BEATS:
            records.append(Heartbeat("n", ts, "b", ts, n, 10_000, "UP", "eu", zone, "1", cpu_permille=100 * n % 900))
        else:
            items = (BucketCount(290 + n, 4, 3), BucketCount(310, 2, 2))
            records.append(RequestCount("n", ts, 1_000, "b", n, "s", f"/{zone}", "eu", 6, 5, 2_300, 450, items))
    offsets = range(first, first + len(records))
    values = [encode(record) for record in records]
    return Shaper(route).shape([Chunk(partition, offsets, [received_at] * len(values), [b"n"] * len(values), values)])


def unequal(client: Any, days: int = 3) -> list[Difference]:  # noqa: ANN401
    """All differences between raw rows, minutes and hours."""
    found = list[Difference]()
    since = datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(days=days)
    for rollup in rollups.rollups().values():
        for cells in rollups.filled(client, rollup, since, since + timedelta(days=days + 1)):
            found += rollups.differences(client, rollup, cells)
            if rollup.coarser:
                found += rollups.differences(client, rollup.coarser, rollups.coarse(cells, rollup.coarser))
    return found


def sums(client: Any, route: Route) -> tuple[int, int, int | None]:  # noqa: ANN401
    """Rows, and what minutes and hours count."""
    rollup = rollups.rollups()[RAW[route]]
    column = next(iter(rollup.measures))
    counted = [
        int(client.command(f"SELECT sum({column}) FROM telemetry.{each.table}"))  # noqa: S608 - our own names
        for each in (rollup, rollup.coarser)
        if each
    ]
    rows = int(client.command(f"SELECT count() FROM telemetry.{rollup.source}"))  # noqa: S608
    return rows, counted[0], counted[1] if rollup.coarser else None


@contextmanager
def without_view(client: Any, name: str) -> Iterator[None]:  # noqa: ANN401
    """What is inserted meanwhile does not get further: the process died in between."""
    client.command(f"DETACH TABLE telemetry.{name}")
    try:
        yield
    finally:
        client.command(f"ATTACH TABLE telemetry.{name}")


@pytest.mark.parametrize("route", [RESULTS, BEATS, COUNTS], ids=RAW.values())
def test_rollups_are_equal_to_raw_rows_and_a_repeat_counts_once(client: Any, route: Route) -> None:  # noqa: ANN401
    stored = Ingest(client, route)
    shaped = batch(route, 0, [0, 1, 30_000, 70_000, 2 * HOUR_MS, 26 * HOUR_MS])
    stored.store(shaped)
    stored.store(shaped)
    stored.store(batch(route, 6, [5, 40_000], partition=1))
    rows, minutes, hours = sums(client, route)
    assert rows == minutes == 8
    assert hours in (8, None)
    assert unequal(client) == []


def test_a_difference_names_minute_and_series(client: Any) -> None:  # noqa: ANN401
    Ingest(client, RESULTS).store(batch(RESULTS, 0, [0, 0, 0, 0]))
    keys = "minute, received_on, service, endpoint, region, probe, kind"
    once_more = f"INSERT INTO telemetry.probe_1m ({keys}, total) SELECT {keys}, 1 FROM telemetry.probe_1m"  # noqa: S608
    client.command(f"{once_more} WHERE endpoint = '/a'")
    by_table = {found.rollup: found for found in unequal(client)}
    assert by_table.keys() == {"probe_1m"}, "the hour was made of the wrong minute, by the view"
    found = by_table["probe_1m"]
    assert found.start == datetime.fromtimestamp(NOW // 60_000 * 60, UTC)
    assert found.series["endpoint"] == "/a"
    assert found.source is not None
    assert found.kept is not None
    assert (found.source["total"], found.kept["total"]) == (2, 3)
    client.command("ALTER TABLE telemetry.probe_results DELETE WHERE 1 SETTINGS mutations_sync = 2")
    assert {found.source is None for found in unequal(client) if found.rollup == "probe_1m"} == {True}


def lose_minutes(client: Any, shaped: Shaped) -> None:  # noqa: ANN401
    with without_view(client, "probe_1m_view"):
        Ingest(client, RESULTS).store(shaped)


def lose_hours(client: Any, shaped: Shaped) -> None:  # noqa: ANN401
    with without_view(client, "probe_1h_view"):
        Ingest(client, RESULTS).store(shaped)


def lose_raw(client: Any, shaped: Shaped) -> None:  # noqa: ANN401
    Ingest(client, RESULTS).store(shaped)
    delete_raw(client, f"kafka_offset >= {shaped.plans[0].first}")


def lose_half_of_raw(client: Any, shaped: Shaped) -> None:  # noqa: ANN401
    Ingest(client, RESULTS).store(shaped)
    delete_raw(client, f"kafka_offset >= {shaped.plans[0].first} AND endpoint = '/a'")


def lose_all(client: Any, shaped: Shaped) -> None:  # noqa: ANN401
    PlanStore(client).write(shaped.plans)


def delete_raw(client: Any, condition: str) -> None:  # noqa: ANN401
    client.command(f"ALTER TABLE telemetry.probe_results DELETE WHERE {condition} SETTINGS mutations_sync = 2")


LOSSES = [lose_minutes, lose_hours, lose_raw, lose_half_of_raw, lose_all]
Loss = Callable[[Any, Shaped], None]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda loss: loss.__name__)
def test_what_was_lost_between_raw_rows_and_rollups_is_made_again(client: Any, lose: Loss) -> None:  # noqa: ANN401
    before, doubtful = batch(RESULTS, 0, [0, 30_000, 70_000]), batch(RESULTS, 3, [0, 1, 70_000, 25 * HOUR_MS])
    Ingest(client, RESULTS).store(before)
    lose(client, doubtful)
    assert sums(client, RESULTS) != (7, 7, 7), "nothing was lost: this test has lost its ground"
    if lose in (lose_minutes, lose_hours):
        # at a start all rows are found, so that nothing is settled
        assert len(Ingest(client, RESULTS).verify(doubtful.plans)) == 1
    else:
        Ingest(client, RESULTS).settle(doubtful)
    assert sums(client, RESULTS) == (7, 7, 7)
    assert unequal(client) == []


@pytest.mark.parametrize("lose", [lose_minutes, lose_hours, lose_raw, lose_half_of_raw], ids=lambda loss: loss.__name__)
def test_without_the_repair_rollups_stay_wrong(client: Any, lose: Loss, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(ingest, "mend", lambda *_: None)
    doubtful = batch(RESULTS, 0, [0, 1, 70_000])
    lose(client, doubtful)
    Ingest(client, RESULTS).verify(doubtful.plans)
    Ingest(client, RESULTS).settle(doubtful)
    assert unequal(client) != []


def test_days_of_which_raw_rows_may_have_expired_are_left_alone(client: Any) -> None:  # noqa: ANN401
    old = batch(RESULTS, 0, [0, 1, 70_000], received_at=NOW - 3 * DAY_MS)
    Ingest(client, RESULTS).store(old)
    delete_raw(client, "endpoint = '/a'")  # by its TTL, say
    client.command("INSERT INTO telemetry.archive_retention (raw, since, days) VALUES ('probe_results', now64(3), 2)")
    assert rollups.mend(client, RESULTS.table, old.plans) is None
    assert Ingest(client, RESULTS).verify(old.plans) == {}, "rows that expired are no loss"
    assert sums(client, RESULTS) == (1, 3, 3)
    # a late event of today counts in the same old minute, and is mended without what has expired
    late = batch(RESULTS, 3, [3 * DAY_MS])
    lose_minutes(client, late)
    Ingest(client, RESULTS).verify(late.plans)
    assert sums(client, RESULTS) == (2, 4, 4)


def test_a_rollup_that_is_new_is_made_of_the_rows_that_are_there(client: Any) -> None:  # noqa: ANN401
    with without_view(client, "probe_1m_view"):
        Ingest(client, RESULTS).store(batch(RESULTS, 0, [0, 70_000, 26 * HOUR_MS]))
    assert sums(client, RESULTS) == (3, 0, 0)
    for _ in range(2):
        assert rollups.fill(client, "probe_1m") in (2, 3)
        assert sums(client, RESULTS) == (3, 3, 3)
    assert unequal(client) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["new", "repeat", *LOSSES]),
        st.lists(st.sampled_from([0, 1, 20_000, 61_000, HOUR_MS, 25 * HOUR_MS]), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=3, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # short enough as they are drawn
@given(steps=STEPS)
def test_after_any_inserts_repeats_and_losses_rollups_are_equal(store: EmbeddedStore, steps: list[Any]) -> None:
    client = store.client()
    try:
        empty(client)
        first, last = 0, batch(RESULTS, 0, [0])
        arrived = False
        for step, ages_ms in [("new", [0]), *steps]:
            if step == "repeat" and not arrived:
                continue  # under a token of which nobody knows whether it was noted nothing is ever sent again
            if step == "repeat":
                Ingest(client, RESULTS).store(last)
            else:
                arrived = step == "new"
                last = batch(RESULTS, first, ages_ms)
                first += len(ages_ms)
                lose = Ingest(client, RESULTS).store if step == "new" else partial(step, client)
                lose(last)
            # as the archive does it at its start
            verdicts = Ingest(client, RESULTS).verify(last.plans)
            if any(isinstance(verdict, Incomplete) for verdict in verdicts.values()):
                Ingest(client, RESULTS).settle(last)
        assert sums(client, RESULTS) == (first, first, first)
        assert unequal(client) == []
    finally:
        client.close()


def test_the_files_say_what_the_engine_makes_of_them(client: Any) -> None:  # noqa: ANN401
    found = client.query("SELECT table, name, type FROM system.columns WHERE database = 'telemetry'").result_rows
    there = {(table, name): kind for table, name, kind in found}
    expected = {
        (table, name): kind for table, columns in schema.expected_columns().items() for name, kind in columns.items()
    }
    assert expected.items() <= there.items()
    own = {key for key in there if not key[0].endswith("_view") and key[0] != "archive_migrations"}
    assert own == expected.keys()
    client.command("ALTER TABLE telemetry.heartbeats MODIFY COLUMN spooled Int32")
    with pytest.raises(schema.SchemaError, match=r"heartbeats\.spooled: found Int32; expected Int64"):
        ddl.apply(client)
    client.command("ALTER TABLE telemetry.heartbeats MODIFY COLUMN spooled Int64")
    assert ddl.apply(client) == []


def test_retention_is_changed_where_it_differs_and_what_expired_is_remembered(client: Any) -> None:  # noqa: ANN401
    wanted = retention.ages(["probe_results=2d", "probe_1h=300d"])
    changes = retention.apply(client, wanted)
    assert changes["probe_results"] == "14 d -> 2 d"
    assert changes["probe_1h"] == "400 d -> 300 d"
    assert retention.apply(client, wanted) == {}
    today = datetime.now(UTC).date()
    assert retention.whole_from(client, "probe_results") >= today - timedelta(days=2)
    assert retention.apply(client, retention.ages([]))["probe_results"] == "2 d -> 14 d"
    assert retention.whole_from(client, "probe_results") >= today - timedelta(days=2), "it does not come back"
    # with the margin of an hour the last hour of a day has one whole day less
    assert retention.whole_from(client, "request_counts") <= today - timedelta(days=12)
    with pytest.raises(
        retention.RetentionError, match=r"no storage policy with the volumes cold, default \(found default: default\)"
    ):
        retention.apply(client, retention.ages([], ["probe_results=1d"]))
