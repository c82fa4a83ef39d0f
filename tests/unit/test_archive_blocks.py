"""Records become rows, plans and rejects."""

from dataclasses import replace

import polars as pl
import pyarrow as pa
import pytest

from schemas.codec import encode
from schemas.event_time import FUTURE_LIMIT_MS, PAST_LIMIT_MS
from schemas.records import BucketCount, DeadLetter, Heartbeat, Label, ProbeResult, RequestCount, SloStatus, SloWindow
from streams.archive.blocks import Chunk, Route, Shaped, Shaper, arrow_stream, is_minute, routes

NOW = 1_767_225_600_000
RESULT = ProbeResult(
    "node-1",
    NOW,
    "boot",
    0,
    "p",
    "http",
    "checkout",
    "/pay",
    "eu-1",
    success=True,
    latency_us=48_211,
    labels=(Label("rack", "r12"),),
)
BEAT = Heartbeat("node-1", NOW, "boot", NOW - 5, 0, 10_000, "UP", "eu-1", "a", "1.0")
WINDOW = SloWindow(60, NOW, NOW + 60_000, *(True, 10, 9, 1, 900, 500, 100, 200, 300))
STATUS = SloStatus("checkout", "checkout", "v1", 0.999, NOW + 61_000, NOW + 60_000, 77, (WINDOW,))


def route(topic: str) -> Route:
    return next(each for each in routes() if each.topic == topic)


def chunk(
    values: list[bytes | None], keys: list[bytes | None], partition: int = 2, offsets: list[int] | None = None
) -> Chunk:
    return Chunk(partition, offsets or list(range(50, 50 + len(values))), [NOW] * len(values), keys, values)


def shape(topic: str, *chunks: Chunk) -> Shaped:
    return Shaper(route(topic)).shape(chunks)


def test_rows_carry_where_they_come_from() -> None:
    good = encode(RESULT)
    shaped = shape(
        "probe-results",
        chunk([good, good], [b"node-1"] * 2, offsets=[50, 53]),
        chunk([good], [b"node-1"], partition=7, offsets=[1]),
    )
    places = shaped.frame.select("kafka_partition", "kafka_offset").rows()
    assert places == [(2, 50), (2, 53), (7, 1)]
    assert [(plan.partition, plan.first, plan.last, plan.rows) for plan in shaped.plans] == [
        (2, 50, 53, 2),
        (7, 1, 1, 1),
    ]
    assert [(plan.received_from_ms, plan.received_to_ms) for plan in shaped.plans] == [(NOW, NOW)] * 2
    assert not shaped.rejected


def test_a_rejected_record_leaves_a_gap_that_the_plan_counts() -> None:
    good = encode(BEAT)
    shaped = shape("heartbeats", chunk([good, b"\0rubbish", good], [b"node-1", b"k", b"node-2"]))
    assert shaped.frame["kafka_offset"].to_list() == [50]
    assert [(plan.first, plan.last, plan.rows) for plan in shaped.plans] == [(50, 52, 1)]
    assert [(reject.offset, reject.reason) for reject in shaped.rejected] == [
        (51, "unknown-schema"),
        (52, "key-mismatch"),
    ]
    assert shaped.rejected[0].value == b"\0rubbish"
    assert shaped.rejected[1].key == b"node-2"


def test_a_batch_of_rejects_has_a_plan_without_rows() -> None:
    shaped = shape("heartbeats", chunk([None, b"x"], [b"a", b"b"]))
    assert shaped.frame.is_empty()
    assert [(plan.first, plan.last, plan.rows) for plan in shaped.plans] == [(50, 51, 0)]
    assert [reject.reason for reject in shaped.rejected] == ["empty", "bad-frame"]


@pytest.mark.parametrize(
    ("said", "held"),
    [(NOW - 1, NOW - 1), (NOW - 10 * PAST_LIMIT_MS, NOW - PAST_LIMIT_MS), ((1 << 63) - 1, NOW + FUTURE_LIMIT_MS)],
)
def test_a_wild_clock_is_held_and_kept_beside(said: int, held: int) -> None:
    shaped = shape("probe-results", chunk([encode(replace(RESULT, ts=said))], [b"node-1"]))
    assert shaped.frame["ts"].cast(pl.Int64).to_list() == [held]
    assert shaped.frame["reported_ts_ms"].to_list() == [None if said == held else said]


@pytest.mark.parametrize(
    ("began", "held"),
    [(NOW - 1_000, NOW - 1), ((1 << 63) - 1, NOW + FUTURE_LIMIT_MS), (-(1 << 63), NOW - PAST_LIMIT_MS)],
)
def test_counted_requests_stand_where_the_worker_counts_them(began: int, held: int) -> None:
    histogram = (BucketCount(300, 4, 3), BucketCount(310, 2, 2))
    said = RequestCount("pod", began, 1_000, "b", 0, "s", "/", "eu", 6, 5, 2_300, 450, histogram)
    shaped = shape("request-counts", chunk([encode(said)], [b"pod"]))
    row = shaped.frame.with_columns(pl.col("ts").cast(pl.Int64)).row(0, named=True)
    assert (row["ts"], row["began_ms"], row["total"], row["good"]) == (held, began, 6, 5)
    assert (row["reported_ts_ms"] is None) == (held == NOW - 1)
    assert (row["histogram_bucket"], row["histogram_total"], row["histogram_good"]) == ([300, 310], [4, 2], [3, 2])


def test_labels_become_a_map() -> None:
    shaped = shape("probe-results", chunk([encode(RESULT), encode(replace(RESULT, labels=()))], [b"node-1"] * 2))
    table = pa.ipc.open_stream(arrow_stream(shaped.frame)).read_all()
    assert table.column("labels").to_pylist() == [[("rack", "r12")], []]


def test_only_minutes_of_slo_status_become_windows() -> None:
    minute = b"checkout@%d" % NOW
    two = replace(STATUS, windows=(WINDOW, replace(WINDOW, window_s=300)))
    shaped = shape(
        "slo-status",
        chunk(
            [encode(STATUS), encode(STATUS), None, None, encode(two), b"rubbish", encode(STATUS)],
            [b"checkout", minute, b"checkout", minute, minute, b"checkout@1", None],
        ),
    )
    assert shaped.frame.select("kafka_offset", "window_s", "revision", "total").rows() == [
        (51, 60, 77, 10),
        (54, 60, 77, 10),
        (54, 300, 77, 10),
    ]
    assert [(plan.first, plan.last, plan.rows) for plan in shaped.plans] == [(50, 56, 3)]
    assert [(reject.offset, reject.reason) for reject in shaped.rejected] == [(55, "bad-frame")]


@pytest.mark.parametrize("key", [b"other@%d" % NOW, b"checkout@%d" % (NOW + 1)])
def test_a_minute_must_be_keyed_by_its_objective_and_start(key: bytes) -> None:
    shaped = shape("slo-status", chunk([encode(STATUS)], [key]))
    assert shaped.frame.is_empty()
    assert [reject.reason for reject in shaped.rejected] == ["key-mismatch"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [(b"a@12", b"v", True), (b"a@b@12", b"v", True), (b"a", b"v", False), (b"12", b"v", False), (b"a@x", b"v", False),
     (b"a@12", None, False), (None, b"v", False)],
)  # fmt: skip
def test_which_keys_are_minutes(key: bytes | None, value: bytes | None, *, expected: bool) -> None:
    assert is_minute(key, value) is expected


def test_dead_letters_keep_the_bytes() -> None:
    letter = DeadLetter("truncated", "why", "heartbeats", 4, 9, NOW - 1, "worker", b"\xff", b"\0\xfe", 2)
    shaped = shape("dead-letters", chunk([encode(letter)], [None]))
    row = shaped.frame.row(0, named=True)
    assert (row["topic"], row["partition"], row["offset"], row["key"], row["value"]) == (
        "heartbeats",
        4,
        9,
        b"\xff",
        b"\0\xfe",
    )
    assert (row["kafka_partition"], row["kafka_offset"]) == (2, 50)


def test_what_the_worker_reads_is_not_reported_again_by_the_archive() -> None:
    assert [each.topic for each in routes() if each.letters] == ["node-states"]
