"""Encoding by columns gives byte for byte what fastavro and Kafka's own record format give one by one."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka.record.memory_records import MemoryRecords
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.simulate.batches import MAX_RECORDS, MAX_RECORDS_BYTES, RecordBatch, record_batch, slices
from agents.simulate.bodies import AGENT_VERSION, Bodies, explain, probe_name
from agents.simulate.pieces import Piece, constant, join, longs, table, total_size
from agents.simulate.rows import BOOT, COUNT, HEARTBEAT, REQUEST, RESULT, STATES, Counted, Rows, Series
from schemas.buckets import bucket_of
from schemas.codec import decode, encode
from schemas.records import BucketCount, Heartbeat, ProbeResult, RequestCount

NAMES = st.text(min_size=1, max_size=85)  # at most 255 bytes for nearly all
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
MILLIS = st.integers(0, 1 << 45)
U4 = st.integers(0, (1 << 32) - 1)
PERMILLE = st.integers(0, 1_000)
INTERVAL_MS = 7_500


def texts(pieces: Sequence[Piece], records: int) -> list[bytes]:
    sizes = np.broadcast_to(total_size(pieces), records)
    joined = join(pieces, records).tobytes()
    ends = np.cumsum(sizes).tolist()
    assert len(joined) == ends[-1]
    return [joined[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]


@given(st.lists(LONGS, min_size=1))
def test_longs_are_fastavros(values: list[int]) -> None:
    expected = []
    for value in values:
        out = io.BytesIO()
        schemaless_writer(out, "long", value)
        expected.append(out.getvalue())
    assert texts([longs(np.array(values))], len(values)) == expected


@given(st.lists(st.binary(max_size=80), min_size=1), st.binary(min_size=1, max_size=5), st.data())
def test_joined_pieces_are_the_texts_one_after_the_other(words: list[bytes], fixed: bytes, data: st.DataObject) -> None:
    if not any(words):
        words = [*words, b"x"]
    index = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=50))
    pieces = [constant(fixed), table(words).pick(np.array(index)), constant(fixed)]
    assert texts(pieces, len(index)) == [fixed + words[one] + fixed for one in index]


def test_a_part_of_the_records_is_cut_from_every_piece() -> None:
    words = [b"a", b"bcd", b"", b"ef"]
    pieces = [constant(b"<"), table(words).pick(np.arange(4)), Piece(np.array([[1], [2], [3], [4]], np.uint8))]
    assert texts([piece.cut(slice(1, 3)) for piece in pieces], 2) == [b"<bcd\2", b"<\3"]


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]], list[Series], Rows]:
    nodes = draw(st.lists(NAMES, min_size=1, max_size=4))
    zones = [(draw(NAMES), draw(NAMES)) for _ in nodes]
    kinds = st.sampled_from(["http", "https", "tcp", "dns", "ünusual"])
    series = draw(st.lists(st.builds(Series, NAMES, NAMES, NAMES, kinds), min_size=1, max_size=4))
    boot_ids = st.text("0123456789abcdef", min_size=16, max_size=16)
    boots = draw(st.lists(st.tuples(MILLIS, st.integers(0, len(nodes) - 1), boot_ids), min_size=1, max_size=4))
    return nodes, zones, series, np.array([(ts, node, text.encode()) for ts, node, text in boots], BOOT)


@settings(deadline=None, max_examples=40)
@given(fleets(), st.data())
def test_a_probe_result_is_what_the_codec_writes(
    fleet: tuple[list[str], list[tuple[str, str]], list[Series], Rows], data: st.DataObject
) -> None:
    nodes, zones, series, boots = fleet
    row = st.tuples(MILLIS, *_indices(nodes, boots), U4, st.integers(0, len(series) - 1), U4, st.integers(0, 3))
    drawn = data.draw(st.lists(row, min_size=1, max_size=20))
    rows = np.array([(*one, one[-1] == 0, 0) for one in drawn], RESULT)
    bodies = bodies_of(nodes, zones, series)
    bodies.see(boots)
    expected = [encode(_result(one, nodes, series, boots)) for one in rows]
    assert texts(bodies.results(rows), len(rows)) == expected


@settings(deadline=None, max_examples=40)
@given(fleets(), st.data())
def test_a_heartbeat_is_what_the_codec_writes(
    fleet: tuple[list[str], list[tuple[str, str]], list[Series], Rows], data: st.DataObject
) -> None:
    nodes, zones, series, boots = fleet
    loads = (U4, U4, PERMILLE, PERMILLE, PERMILLE, st.integers(0, 100), st.integers(0, len(STATES) - 1))
    drawn = data.draw(st.lists(st.tuples(MILLIS, *_indices(nodes, boots), U4, *loads), min_size=1, max_size=20))
    rows = np.array(drawn, HEARTBEAT)
    bodies = bodies_of(nodes, zones, series)
    for boot in boots:  # seen one by one as well as together
        bodies.see(np.array([boot], BOOT))
    expected = [encode(_heartbeat(one, nodes, zones, boots)) for one in rows]
    assert texts(bodies.heartbeats(rows), len(rows)) == expected


@settings(deadline=None, max_examples=40)
@given(fleets(), st.data())
def test_a_request_count_is_what_the_codec_writes(
    fleet: tuple[list[str], list[tuple[str, str]], list[Series], Rows], data: st.DataObject
) -> None:
    nodes, zones, series, boots = fleet
    request = st.tuples(U4 | st.integers(0, 60), st.booleans())
    head = st.tuples(MILLIS, *_indices(nodes, boots), U4, st.integers(0, len(series) - 1), st.booleans())
    drawn = data.draw(st.lists(st.tuples(head, st.lists(request, max_size=9)), min_size=1, max_size=8))
    rows = np.zeros(len(drawn), COUNT)
    rows[["ts_ms", "node", "boot", "seq", "series", "measured"]] = [head for head, _ in drawn]
    rows["total"], rows["window_ms"] = [len(requests) for _, requests in drawn], 1_000
    counted = Counted.of(rows, np.array([one for _, requests in drawn for one in requests], REQUEST))
    order = data.draw(st.permutations(range(len(drawn))))  # as the emitter does, by partition
    bodies = bodies_of(nodes, zones, series)
    bodies.see(boots)
    expected = [_count(rows[place], drawn[place][1], nodes, series, boots) for place in order]
    found = texts(bodies.counts(counted.rows[order], counted.requests), len(order))
    assert [decode(value) for value in found] == expected
    assert found == [encode(one) for one in expected]


def bodies_of(nodes: list[str], zones: list[tuple[str, str]], series: list[Series]) -> Bodies:
    """Bodies of a fleet whose nodes stand in a zone each."""
    names = table([node.encode() for node in nodes])
    return Bodies(names, zones, np.arange(len(nodes)), series, INTERVAL_MS, counted=series)


def _indices(nodes: list[str], boots: Rows) -> tuple[st.SearchStrategy[int], st.SearchStrategy[int]]:
    return st.integers(0, len(nodes) - 1), st.integers(0, len(boots) - 1)


def _result(row: np.void, nodes: list[str], series: list[Series], boots: Rows) -> ProbeResult:
    one = series[row["series"]]
    status_code, error = explain(row["outcome"], one.kind)
    return ProbeResult(
        node_id=nodes[row["node"]],
        ts=int(row["ts_ms"]),
        boot_id=boots["boot_id"][row["boot"]].decode(),
        seq=int(row["seq"]),
        probe=probe_name(one),
        kind=one.kind,
        service=one.service,
        endpoint=one.endpoint,
        region=one.region,
        success=bool(row["success"]),
        latency_us=int(row["latency_us"]),
        status_code=status_code,
        error=error,
    )


def _count(
    row: np.void, requests: list[tuple[int, bool]], nodes: list[str], series: list[Series], boots: Rows
) -> RequestCount:
    one = series[row["series"]]
    said = requests if row["measured"] else []
    buckets: dict[int, list[bool]] = {}
    for latency_us, success in said:
        buckets.setdefault(bucket_of(latency_us), []).append(success)
    return RequestCount(
        node_id=nodes[row["node"]],
        ts=int(row["ts_ms"]),
        window_ms=1_000,
        boot_id=boots["boot_id"][row["boot"]].decode(),
        seq=int(row["seq"]),
        service=one.service,
        endpoint=one.endpoint,
        region=one.region,
        total=len(requests),
        good=sum(success for _, success in requests),
        sum_us=sum(latency_us for latency_us, _ in said),
        max_us=max((latency_us for latency_us, _ in said), default=0),
        histogram=tuple(BucketCount(bucket, len(all_), sum(all_)) for bucket, all_ in sorted(buckets.items())),
    )


def _heartbeat(row: np.void, nodes: list[str], zones: list[tuple[str, str]], boots: Rows) -> Heartbeat:
    region, zone = zones[row["node"]]
    return Heartbeat(
        node_id=nodes[row["node"]],
        ts=int(row["ts_ms"]),
        boot_id=boots["boot_id"][row["boot"]].decode(),
        boot_ts=int(boots["boot_ts"][row["boot"]]),
        seq=int(row["seq"]),
        interval_ms=INTERVAL_MS,
        state=STATES[row["state"]],
        region=region,
        zone=zone,
        agent_version=AGENT_VERSION,
        health=int(row["health"]),
        cpu_permille=int(row["cpu_permille"]),
        memory_permille=int(row["memory_permille"]),
        disk_permille=int(row["disk_permille"]),
        spooled=int(row["spooled"]),
        heartbeat_seq=int(row["heartbeat_seq"]),
    )


@pytest.mark.parametrize(
    ("outcome", "kind", "expected"),
    [
        (0, "http", (200, None)),
        (0, "tcp", (None, None)),
        (1, "http", (None, "timeout")),
        (2, "dns", (None, "refused")),
        (3, "http", (503, "status")),
        (3, "tcp", (None, "reset")),
    ],
)
def test_a_failure_says_why(outcome: int, kind: str, expected: tuple[int | None, str | None]) -> None:
    assert explain(outcome, kind) == expected


def _batch(keys: list[bytes], values: list[bytes]) -> RecordBatch:
    index = np.arange(len(keys))
    return record_batch(table(keys).pick(index), [table(values).pick(index)], len(keys), 1_700_000_000_123)


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=9_000)), min_size=1))
def test_a_record_batch_reads_back_with_kafkas_own_reader(records: list[tuple[bytes, bytes]]) -> None:
    keys, values = [key for key, _ in records], [value for _, value in records]
    wire = _batch(keys, values).wire(producer_id=77, producer_epoch=3, base_sequence=12)
    batch = MemoryRecords(bytes(wire)).next_batch()
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 3, 12)
    read = list(batch)
    assert [(record.key, record.value, record.headers) for record in read] == [(*one, []) for one in records]
    assert [record.offset for record in read] == list(range(len(records)))
    assert {record.timestamp for record in read} == {1_700_000_000_123}


def test_a_batch_is_compressed_only_when_that_makes_it_smaller() -> None:
    noise = np.random.default_rng(1).bytes(5_000)
    assert _batch([b"n"] * 50, [b"the same value"] * 50).compressed
    assert not _batch([b"n"], [noise]).compressed


@pytest.mark.parametrize(("rows", "widest"), [(1, 100), (10_000, 100), (4_097, 1), (3, 2 << 20), (9_000, 3_000)])
def test_batches_are_cut_to_what_a_broker_takes(rows: int, widest: int) -> None:
    parts = list(slices(50, 50 + rows, widest))
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(50, 50 + rows))
    for part in parts:
        count = part.stop - part.start
        assert count <= MAX_RECORDS
        assert count == 1 or count * widest <= MAX_RECORDS_BYTES


def test_nothing_is_cut_from_no_rows() -> None:
    assert list(slices(7, 7, 100)) == []
