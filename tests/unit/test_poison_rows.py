"""Each kind of poison by name, at each place of a batch, on the block path and the slow one: one reason, no victim."""

import resource
from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from schemas.blocks import BlockReader
from schemas.codec import DecodeError, decode, encode, frame
from schemas.records import Heartbeat, ProbeResult, SloPartial, SloStatus, SloWindow, Source
from streams.core.cells import CELL_ROWS
from streams.core.series import SeriesIndex
from streams.engine.frames import FrameError, pack
from streams.engine.partials import read_partial

RESULT = ProbeResult("n-1", 1_000, "b", 3, "p", "http", "s", "/", "eu", success=True, latency_us=5)
BEAT = Heartbeat("n-1", 1_000, "b", 500, 3, 5_000, "UP", "eu", "a", "1")
RECORDS: dict[str, ProbeResult | Heartbeat] = {"probe-results": RESULT, "heartbeats": BEAT}
READERS = {topic: BlockReader(topic) for topic in RECORDS}
MAX = (1 << 63) - 1
NEIGHBOURS = 40


def long(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def body(record: ProbeResult | Heartbeat) -> bytes:
    return encode(record)[5:]


def schema_id(record: ProbeResult | Heartbeat) -> int:
    return int.from_bytes(encode(record)[1:5], "big")


def labels_at(record: ProbeResult | Heartbeat) -> int:
    """Where the count of no labels stands, from the end of the body."""
    return 1 if isinstance(record, ProbeResult) else 5


def with_labels(record: ProbeResult | Heartbeat, count: bytes) -> bytes:
    return frame(schema_id(record), body(record)[: -labels_at(record)] + count)


Make = Callable[[ProbeResult | Heartbeat], bytes]
# name → (value, reason)
POISON: dict[str, tuple[Make, str]] = {
    "the last byte is missing": (lambda r: encode(r)[:-1], "truncated"),
    "no body": (lambda r: encode(r)[:5], "truncated"),
    "one byte more": (lambda r: encode(r) + b"\0", "trailing-bytes"),
    "a second record under its own name": (lambda r: encode(r) + body(r), "trailing-bytes"),
    "a second record under the next one's name": (
        lambda r: encode(r) + body(replace(r, node_id="n-2")),
        "trailing-bytes",
    ),
    "an unknown schema": (lambda r: frame(900, body(r)), "unknown-schema"),
    "the largest schema id": (lambda r: frame((1 << 32) - 1, body(r)), "unknown-schema"),
    "another frame": (lambda r: b"\x01" + encode(r)[1:], "bad-frame"),
    "2**62 labels": (lambda r: with_labels(r, long(1 << 62)), "truncated"),
    "2**20 labels in a block that says it is short": (
        lambda r: with_labels(r, long(-(1 << 20)) + long(1)),
        "truncated",
    ),
    "200,000 levels": (lambda r: frame(schema_id(r), b"\x02" * 200_000), "truncated"),
    "a text of 2**62 bytes": (lambda r: frame(schema_id(r), long(1 << 62) + b"n-1"), "truncated"),
    "a text of less than nothing": (lambda r: frame(schema_id(r), long(-5) + b"n-1"), "truncated"),
    "a number without end": (lambda r: frame(schema_id(r), body(r)[:4] + b"\xff" * 300), "undecodable"),
    "64 MiB of zeros": (lambda _: bytes(64 << 20), "too-large"),
    "a name that is no text": (lambda r: encode(r).replace(b"n-1", b"\xff\xfe1"), "undecodable"),
}


def key_of(value: bytes) -> bytes:
    return b"n-2" if value[5:9] == long(3) + b"n-2" else b"n-1"


@pytest.mark.parametrize("topic", RECORDS)
@pytest.mark.parametrize("name", POISON)
def test_poison_is_refused_for_its_reason_and_its_neighbours_are_whole(topic: str, name: str) -> None:
    record = RECORDS[topic]
    make, reason = POISON[name]
    value = make(record)
    if name != "a number without end":  # the two readers may stop at another place
        with pytest.raises(DecodeError) as refused:
            decode(value)
        assert refused.value.reason == reason
    good = [encode(replace(record, node_id="n-2", seq=n)) for n in range(NEIGHBOURS)]
    for place in (0, NEIGHBOURS // 2, NEIGHBOURS):
        values = [*good[:place], value, *good[place:]]
        keys: list[bytes | None] = [b"n-1" if n == place else b"n-2" for n in range(len(values))]
        block = READERS[topic].read(keys, values)
        assert block.frame["seq"].to_list() == list(range(NEIGHBOURS))
        assert set(block.frame["node_id"]) == {"n-2"}
        (reject,) = block.rejects
        assert reject.row == place
        assert reject.reason in ({reason} if name != "a number without end" else {"truncated", "undecodable"})


@pytest.mark.parametrize("topic", RECORDS)
def test_a_batch_of_nothing_but_bombs_takes_no_memory(topic: str) -> None:
    """What a body claims to hold is never set aside: 4,000 bombs cost less than 200 MB."""
    record = RECORDS[topic]
    kinds = [
        make(record) for name, (make, _) in POISON.items() if name != "64 MiB of zeros" and len(make(record)) < 500
    ]
    values = [kinds[n % len(kinds)] for n in range(4_000)]
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block = READERS[topic].read([b"n-1"] * len(values), values)
    assert (block.frame.height, len(block.rejects)) == (0, len(values))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


@pytest.mark.parametrize(
    ("record", "holds"),
    [
        pytest.param(replace(RESULT, ts=-MAX - 1), True, id="the first of all times"),
        pytest.param(replace(RESULT, ts=MAX), True, id="the last of all times"),
        pytest.param(replace(RESULT, seq=MAX), True, id="the greatest number"),
        pytest.param(replace(RESULT, latency_us=MAX), False, id="a latency without end"),
        pytest.param(replace(RESULT, latency_us=-MAX - 1), False, id="a latency before all beginning"),
        pytest.param(replace(BEAT, ts=-MAX - 1), True, id="a heartbeat before all times"),
        pytest.param(replace(BEAT, heartbeat_seq=MAX, seq=MAX), True, id="the greatest numbers of a heartbeat"),
        pytest.param(replace(BEAT, boot_ts=MAX), False, id="a boot after the year 9999"),
        pytest.param(replace(BEAT, interval_ms=(1 << 31) - 1), False, id="an interval of weeks"),
        pytest.param(replace(BEAT, interval_ms=-(1 << 31)), False, id="an interval of less than nothing"),
    ],
)
def test_extreme_numbers_are_taken_or_refused_and_never_wrapped(record: ProbeResult | Heartbeat, holds: bool) -> None:  # noqa: FBT001 - a case
    topic = "probe-results" if isinstance(record, ProbeResult) else "heartbeats"
    assert decode(encode(record)) == record
    block = READERS[topic].read([b"n-1"], [encode(record)])
    assert [reject.reason for reject in block.rejects] == ([] if holds else ["invalid-value"])
    if holds:
        fields = ("ts", "seq")
        assert block.frame.select(fields).row(0) == tuple(getattr(record, name) for name in fields)


def test_no_record_that_a_node_writes_has_a_number_that_may_be_nan() -> None:
    for topic, reader in READERS.items():
        frame_ = reader.read([], []).frame
        assert [name for name, kind in frame_.schema.items() if kind.is_float()] == [], topic


def test_a_status_with_nan_is_read_as_it_is_and_is_never_counted() -> None:
    """Only `slo-status` has a float, which fleetbeat writes and never reads back into tables."""
    window = SloWindow(60, 0, 60_000, True, 1, 1, 0, 5, 5, 5, 5, 5)  # noqa: FBT003 - final
    found = decode(encode(SloStatus("a", "s", "v", float("nan"), 1, 1, 1, (window,))))
    assert isinstance(found, SloStatus)
    assert found.target != found.target


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_cells_with_floats_are_refused(bad: float) -> None:
    row = (0, 0, 5, -1, 3, True, 1, 5, bad)
    schema = pl.Schema({**CELL_ROWS, "max_us": pl.Float64()})
    cells = pack(pl.DataFrame([row], schema=schema, orient="row"))
    value = encode(SloPartial("probe-results", "", (Source(0, 1, 1),), ("s",), cells))
    with pytest.raises(FrameError, match="columns"):
        read_partial(value, SeriesIndex())
