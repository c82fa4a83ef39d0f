"""The store's side of the archive on a real engine: nothing lost, nothing twice, whatever a crash left behind."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.codec import encode
from schemas.records import BucketCount, DeadLetter, Heartbeat, Label, ProbeResult, RequestCount
from streams.archive import ddl, retention
from streams.archive import ingest as ingest_module
from streams.archive.blocks import Chunk, Route, Shaped, Shaper, routes
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest, UnsettledError
from streams.archive.plans import Complete, Doubled, Incomplete, PlanStore
from tests.integration.stored import emptied, offsets, small_store

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
NOW = time.time_ns() // 1_000_000  # rows of long ago would expire under the test's hands
RESULTS, BEATS, COUNTS, *_, LETTERS = routes()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with small_store(tmp_path_factory.mktemp("archive")) as opened:
        yield opened


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[Any]:
    raw = ("probe_results", "heartbeats", "request_counts", "dead_letters", "archive_plans", "archive_retention")
    with emptied(store, (*raw, "probe_1m", "probe_1h", "request_1m", "request_1h", "heartbeat_1m")) as client:
        yield client


def beats(partition: int = 0, first: int = 0, count: int = 10, received_at: int = NOW) -> Chunk:
    values = [encode(Heartbeat("n", NOW, "b", NOW, first + n, 10_000, "UP", "eu", "a", "1")) for n in range(count)]
    return Chunk(
        partition, range(first, first + count), [received_at + n for n in range(count)], [b"n"] * count, values
    )


def shape(route: Route, *chunks: Chunk) -> Shaped:
    return Shaper(route).shape(chunks)


def test_migrations_run_once(client: Any) -> None:  # noqa: ANN401
    assert ddl.apply(client) == []


def test_a_stored_batch_is_complete_and_a_repeat_changes_nothing(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    batch = shape(BEATS, beats(0), beats(1, first=100))
    ingest.store(batch)
    ingest.store(batch)
    assert ingest.verify(batch.plans) == {0: Complete(), 1: Complete()}
    assert ingest.settle(batch).inserted == 0
    assert offsets(client) == [(0, n) for n in range(10)] + [(1, n) for n in range(100, 110)]
    assert ingest.last_plans({0, 1, 2}) == {plan.partition: plan for plan in batch.plans}


@pytest.mark.parametrize("arrived", [[], [0], list(range(10)), [13, 14], [3, 9, 10]])
def test_a_batch_that_arrived_in_part_is_completed(client: Any, arrived: list[int]) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    batch = shape(BEATS, beats(4, count=20))
    PlanStore(client).write(batch.plans)
    ingest._insert(batch.frame.filter(pl.col("kafka_offset").is_in(arrived)), batch.plans)
    assert ingest.verify(batch.plans) == {4: Incomplete(20 - len(arrived))}
    assert ingest.settle(batch).inserted == 20 - len(arrived)
    assert ingest.settle(batch).inserted == 0
    assert ingest.verify(batch.plans) == {4: Complete()}
    assert offsets(client) == [(4, n) for n in range(20)]


def test_a_batch_over_two_days_that_lost_one_is_completed(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    batch = shape(BEATS, beats(0, received_at=NOW - DAY_MS), beats(0, first=10))
    ingest.store(batch)
    client.command(
        f"ALTER TABLE telemetry.heartbeats DELETE WHERE received_at < {NOW / 1000} SETTINGS mutations_sync = 2"
    )
    assert ingest.verify(batch.plans) == {0: Incomplete(10)}
    assert ingest.settle(batch).inserted == 10
    assert offsets(client) == [(0, n) for n in range(20)]


def test_a_plan_is_looked_up_while_its_rows_are_kept(client: Any) -> None:  # noqa: ANN401
    """Kept for a day, which is never whole: nobody may take the plan of this evening for one that has expired."""
    retention.apply(client, retention.ages(["heartbeats=1d"]))
    ingest = Ingest(client, BEATS)
    for partition, hours in enumerate((0, 1, 22)):
        PlanStore(client).write(shape(BEATS, beats(partition, received_at=NOW - hours * HOUR_MS)).plans)
    long_ago = shape(BEATS, beats(3, received_at=NOW - 30 * HOUR_MS))
    PlanStore(client).write(long_ago.plans)
    last = ingest.last_plans(range(4))
    assert ingest.verify(list(last.values())) == dict.fromkeys(range(3), Incomplete(10))


def test_a_token_that_was_noted_without_its_rows_does_not_lose_them(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    batch = shape(BEATS, beats())
    ingest.store(batch)
    client.command("ALTER TABLE telemetry.heartbeats DELETE WHERE 1 SETTINGS mutations_sync = 2")
    ingest.store(batch)
    assert offsets(client) == [], "the engine no longer drops a repeated token: this test has lost its ground"
    assert ingest.settle(batch).inserted == 10
    client.command("ALTER TABLE telemetry.heartbeats DELETE WHERE 1 SETTINGS mutations_sync = 2")
    assert ingest.settle(batch).inserted == 10
    assert offsets(client) == [(0, n) for n in range(10)]
    assert ingest.last_plans({0})[0].epoch == 2


def test_counted_requests_are_completed_like_any_rows(client: Any) -> None:  # noqa: ANN401
    ingest, histogram = Ingest(client, COUNTS), (BucketCount(300, 4, 3), BucketCount(310, 2, 2))
    whole = RequestCount("n", NOW - 1_000, 1_000, "b", 0, "s", "/", "eu", 6, 5, 2_300, 450, histogram)
    said = [whole, replace(whole, seq=1, sum_us=0, max_us=0, histogram=()), replace(whole, seq=2)]
    batch = shape(COUNTS, Chunk(3, range(7, 10), [NOW] * 3, [b"n"] * 3, [encode(each) for each in said]))
    PlanStore(client).write(batch.plans)
    ingest._insert(batch.frame.filter(pl.col("kafka_offset") == 7), batch.plans)
    assert (ingest.settle(batch).inserted, ingest.settle(batch).inserted) == (2, 0)
    found = client.query(
        "SELECT kafka_offset, toUnixTimestamp64Milli(ts), began_ms, window_ms, total, good, sum_us, "
        "arrayZip(histogram_bucket, histogram_total, histogram_good) FROM telemetry.request_counts ORDER BY seq"
    )
    items = [(300, 4, 3), (310, 2, 2)]
    assert [tuple(row) for row in found.result_rows] == [
        (7, NOW - 1, NOW - 1_000, 1_000, 6, 5, 2_300, items),
        (8, NOW - 1, NOW - 1_000, 1_000, 6, 5, 0, []),
        (9, NOW - 1, NOW - 1_000, 1_000, 6, 5, 2_300, items),
    ]


def test_a_plan_from_the_past_does_not_become_the_last(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    early, late = shape(BEATS, beats(0)), shape(BEATS, beats(0, first=10))
    ingest.store(late)
    ingest.store(early)
    assert ingest.last_plans({0})[0].last == 19


def test_doubled_rows_are_told(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    batch = shape(BEATS, beats())
    ingest.store(batch)
    ingest._insert(batch.frame.head(3), [plan.again() for plan in batch.plans])
    assert ingest.verify(batch.plans) == {0: Doubled(3)}


def test_a_table_with_one_row_a_key_is_written_again(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, LETTERS)
    letters = [encode(DeadLetter("r", "d", "heartbeats", 0, n, NOW, "archive", None, b"\0\xff", 2)) for n in range(5)]
    batch = shape(LETTERS, Chunk(0, range(5), [NOW] * 5, [None] * 5, letters))
    ingest.store(batch)
    assert ingest.verify(batch.plans) == {0: Incomplete(5)}
    assert ingest.settle(batch).inserted == 5
    found = client.query("SELECT offset, value = unhex('00FF'), key FROM telemetry.dead_letters FINAL ORDER BY offset")
    assert [tuple(row) for row in found.result_rows] == [(n, 1, None) for n in range(5)]


def test_every_field_arrives_as_it_was(client: Any) -> None:  # noqa: ANN401
    phases = {"resolve_us": 1, "connect_us": 2, "tls_us": 3, "first_byte_us": 4, "transfer_us": 5}
    texts = {"error": "timeout", "impact": "P0", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    optional: dict[str, Any] = {**phases, **texts, "status_code": 504}
    bare = ProbeResult(
        "n1", NOW - 90 * DAY_MS, "b1", 8, "p1", "tcp", "checkout", "/pay", "eu-1", success=True, latency_us=0
    )
    labels = (Label("rack", "r12"), Label("os", "x"))
    full = replace(bare, ts=NOW, seq=7, success=False, latency_us=86_400_000_000, labels=labels, **optional)
    batch = shape(RESULTS, Chunk(3, [5, 6], [NOW + 9] * 2, [b"n1"] * 2, [encode(full), encode(bare)]))
    Ingest(client, RESULTS).store(batch)
    found = client.query("SELECT * FROM telemetry.probe_results ORDER BY seq")
    first, second = (dict(zip(found.column_names, row, strict=True)) for row in found.result_rows)
    for name in (
        "node_id",
        "boot_id",
        "seq",
        "probe",
        "kind",
        "service",
        "endpoint",
        "region",
        "success",
        "latency_us",
    ):
        assert (first[name], second[name]) == (getattr(full, name), getattr(bare, name))
    for name in optional:
        assert (first[name], second[name]) == (getattr(full, name), None)
    assert (first["labels"], second["labels"]) == ({"rack": "r12", "os": "x"}, {})
    ms = "toUnixTimestamp64Milli(ts), toUnixTimestamp64Milli(received_at), reported_ts_ms"
    times = client.query(f"SELECT {ms} FROM telemetry.probe_results ORDER BY seq")  # noqa: S608 - our own names
    held = NOW + 9 - 35 * DAY_MS
    assert [tuple(row) for row in times.result_rows] == [(NOW, NOW + 9, None), (held, NOW + 9, NOW - 90 * DAY_MS)]


class StillRunning:
    """A client in whose server one insert never ends."""

    def __init__(self, client: Any, token: str) -> None:  # noqa: ANN401
        self._client = client
        self._token = token

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._client, name)

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        if "system.processes" in query:
            query = f"SELECT '{self._token}'"
        return self._client.query(query, parameters=parameters)


def test_nothing_is_decided_while_the_insert_may_still_run(client: Any) -> None:  # noqa: ANN401
    batch = shape(BEATS, beats())
    ingest = Ingest(StillRunning(client, "heartbeats 0:0-9#0"), BEATS)
    with pytest.raises(UnsettledError, match="still running"):
        ingest.settle(batch)
    with pytest.raises(UnsettledError, match="still running"):
        ingest.verify(batch.plans)
    other = Ingest(StillRunning(client, "heartbeats 1:0-9#0"), BEATS)
    assert other.settle(replace(batch)).inserted == 10


def test_rows_that_the_table_refuses_are_left_out_and_the_rest_goes_in(client: Any) -> None:  # noqa: ANN401
    ingest = Ingest(client, BEATS)
    client.command("ALTER TABLE telemetry.heartbeats ADD CONSTRAINT some CHECK seq NOT IN (3, 4, 19)")
    try:
        batch = shape(BEATS, beats(0, count=15), beats(1, first=15, count=5))
        with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
            ingest.store(batch)
        settled = ingest.settle(batch)
        assert [(row.partition, row.offset) for row in settled.refused] == [(0, 3), (0, 4), (1, 19)]
        assert all("VIOLATED_CONSTRAINT" in row.said for row in settled.refused)
        assert settled.inserted == 17
        assert [offset for _, offset in offsets(client)] == [n for n in range(20) if n not in {3, 4, 19}]
        last = ingest.last_plans({0, 1})
        assert ingest.verify(list(last.values())) == {0: Incomplete(2), 1: Incomplete(1)}
        ingest.accept(batch, settled.refused)
        last = ingest.last_plans({0, 1})
        assert ingest.verify(list(last.values())) == {0: Complete(), 1: Complete()}
    finally:
        client.command("ALTER TABLE telemetry.heartbeats DROP CONSTRAINT some")


def test_a_table_that_refuses_everything_is_no_matter_of_rows(
    client: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_module, "_MOST_REFUSED", 5)
    ingest = Ingest(client, BEATS)
    client.command("ALTER TABLE telemetry.heartbeats ADD CONSTRAINT none CHECK seq < 0")
    try:
        with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
            ingest.settle(shape(BEATS, beats(count=20)))
    finally:
        client.command("ALTER TABLE telemetry.heartbeats DROP CONSTRAINT none")
