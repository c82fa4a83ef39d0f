"""Random mixes of good records and poison: the block reader is the one-record codec, only faster, and never raises."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.blocks import STRETCH, Block, BlockReader
from schemas.codec import MAX_VALUE_BYTES, DecodeError, decode, encode, frame, split_frame, writer_of
from schemas.records import Heartbeat, ProbeResult
from tests.contract.strategies import records

TOPIC = "probe-results"
READER = BlockReader(TOPIC)
FEW = BlockReader(TOPIC, ["ts", "success"])
Row = tuple[bytes | None, bytes | None]  # key, value

GOOD = ProbeResult("n", 1, "b", 0, "p", "http", "s", "e", "r", success=True, latency_us=5)
BEAT = encode(Heartbeat("n", 2, "b", 1, 0, 5_000, "UP", "r", "z", "0"))


def long(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def probes() -> st.SearchStrategy[ProbeResult]:
    return records(TOPIC)  # type: ignore[return-value]


def row_of(record: ProbeResult) -> Row:
    return record.node_id.encode(), encode(record)


def truncated(record: ProbeResult, cut: int) -> list[Row]:
    key, value = row_of(record)
    assert value is not None
    return [(key, value[: max(5, len(value) - cut)])]


def two_in_one(first: ProbeResult, second: ProbeResult) -> list[Row]:
    """The second record hides in the first body; the next body is empty, so that the count still fits."""
    key, value = row_of(first)
    assert value is not None
    return [(key, value + encode(second)[5:]), (key, value[:5])]


def two_in_one_under_the_next_key(record: ProbeResult, victim: ProbeResult) -> list[Row]:
    """The hidden record says that it comes from the next message's node."""
    key, value = row_of(record)
    assert value is not None
    return [(key, value + encode(replace(record, node_id=victim.node_id))[5:]), row_of(victim)]


def swallowing(record: ProbeResult, victim: ProbeResult, number: int) -> list[Row]:
    """The body ends in a string that is long enough to take in the next message, after the index `number`."""
    key, value = row_of(record)
    bare = replace(record, node_id=victim.node_id, error=None, impact=None, trace_id=None, labels=())
    index = long(number)
    swallowed = len(index) + len(encode(victim)) - 5 - 3
    hidden = encode(bare)[5:-4] + b"\x02" + long(swallowed)
    assert value is not None
    return [(key, value + index + hidden), row_of(replace(victim, impact=None, trace_id=None, labels=()))]


def with_array_count(record: ProbeResult, count: int) -> list[Row]:
    key, value = row_of(replace(record, labels=()))
    assert value is not None
    return [(key, value[:-1] + long(count))]


SMALL = st.sampled_from(
    [GOOD, replace(GOOD, node_id="m", error="x"), replace(GOOD, node_id="日本", latency_us=1 << 36)]
)
POISON: st.SearchStrategy[list[Row]] = st.one_of(
    st.builds(truncated, probes(), st.integers(1, 400)),
    st.builds(lambda r, tail: [(row_of(r)[0], encode(r) + tail)], probes(), st.binary(min_size=1, max_size=40)),
    st.builds(lambda r, i: [(row_of(r)[0], frame(i, encode(r)[5:]))], probes(), st.integers(6, (1 << 32) - 1)),
    st.builds(two_in_one, probes(), probes()),
    st.builds(two_in_one_under_the_next_key, probes(), probes()),
    st.builds(swallowing, SMALL, SMALL, st.integers(0, 12)),
    st.builds(lambda r, key: [(key, encode(r))], probes(), st.one_of(st.none(), st.binary(max_size=5))),
    st.builds(with_array_count, probes(), st.sampled_from([1, 1 << 20, 1 << 40, 1 << 62, -1, -(1 << 40)])),
    st.builds(lambda r, us: [row_of(replace(r, latency_us=us))], probes(), st.integers(-(1 << 63), -1)),
    st.builds(lambda r: [row_of(replace(r, node_id=""))], probes()),
    st.builds(lambda r: [row_of(replace(r, service="x" * 256))], probes()),
    st.builds(lambda r: [row_of(replace(r, endpoint="日" * 86))], probes()),  # 86 characters, 258 bytes
    st.just([(b"n", BEAT)]),
    st.just([(b"n", encode(GOOD) + b"\0" * 2_000_000)]),
    st.just([(b"n", None)]),
    st.builds(lambda value: [(b"n", value)], st.binary(max_size=30)),
)
MIXES = st.lists(st.one_of(probes().map(lambda r: [row_of(r)]), POISON), max_size=12).map(
    lambda parts: [row for part in parts for row in part]
)


def one_record(key: bytes | None, value: bytes | None) -> ProbeResult | str:
    """What the row is by the one-record codec and the rules, or the reason why it is nothing."""
    try:
        topic, _ = writer_of(split_frame(value)[0])
        if topic.name != TOPIC:
            return "unknown-schema"
        record = decode(value)
    except DecodeError as error:
        return error.reason
    assert isinstance(record, ProbeResult)
    if key != record.node_id.encode():
        return "key-mismatch"
    names = (record.node_id, record.service, record.endpoint, record.region, record.kind)
    within = all(1 <= len(name.encode()) <= 255 for name in names)
    within = within and 0 <= record.latency_us <= 86_400_000_000 and record.seq >= 0
    return record if within else "invalid-value"


def read(reader: BlockReader, rows: Sequence[Row]) -> Block:
    return reader.read([key for key, _ in rows], [value for _, value in rows])


def columns(record: ProbeResult, row: int) -> dict[str, Any]:
    return {**asdict(record), "labels": [asdict(label) for label in record.labels], "_row": row}


@settings(max_examples=60, deadline=None)
@given(rows=MIXES)
def test_a_block_is_what_the_one_record_codec_makes_of_each_row(rows: list[Row]) -> None:
    expected = [one_record(key, value) for key, value in rows]
    block = read(READER, rows)
    assert block.frame.to_dicts() == [columns(r, n) for n, r in enumerate(expected) if isinstance(r, ProbeResult)]
    assert [(r.row, r.reason) for r in block.rejects] == [(n, r) for n, r in enumerate(expected) if isinstance(r, str)]
    assert all(reject.detail for reject in block.rejects)


@settings(max_examples=60, deadline=None)
@given(rows=MIXES, flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(1, 255))))
def test_what_becomes_of_a_row_depends_neither_on_its_neighbours_nor_on_the_columns(
    rows: list[Row], flips: list[tuple[int, int, int]]
) -> None:
    """With arbitrary damage, where one reader may be more lenient than another, each row still has one fate."""
    for which, where, bits in flips:
        if rows and (value := rows[which % len(rows)][1]):
            damaged = bytearray(value)
            damaged[where % len(value)] ^= bits
            rows[which % len(rows)] = (rows[which % len(rows)][0], bytes(damaged))
    block = read(READER, rows)
    good = block.frame["_row"].to_list()
    bad = [reject.row for reject in block.rejects]
    assert sorted(good + bad) == list(range(len(rows)))
    assert good == sorted(good)
    assert bad == sorted(bad)
    few = read(FEW, rows)
    assert few.frame["_row"].to_list() == good
    assert [(reject.row, reject.reason) for reject in few.rejects] == [(r.row, r.reason) for r in block.rejects]
    for number, row in enumerate(rows):
        alone = read(READER, [row])
        same = [{**fields, "_row": number} for fields in alone.frame.to_dicts()]
        assert same == [fields for fields in block.frame.to_dicts() if fields["_row"] == number]


def test_a_body_that_guesses_the_index_after_it_cannot_speak_for_the_next_node() -> None:
    victim = replace(GOOD, node_id="victim", latency_us=7)
    evil = replace(GOOD, node_id="evil", latency_us=99_999)
    for guess in (0, 1, 2):
        block = read(READER, [row_of(GOOD), *swallowing(evil, victim, guess)])
        assert block.frame.select("node_id", "latency_us").rows() == [("n", 5), ("victim", 7)]
        assert [(reject.row, reject.reason) for reject in block.rejects] == [(1, "trailing-bytes")]


@pytest.mark.parametrize("bad", [1, STRETCH, 3 * STRETCH - 1])
def test_one_bad_record_in_many_leaves_every_other_row_in_order(bad: int) -> None:
    rows = [row_of(replace(GOOD, node_id=f"n{n}", seq=n)) for n in range(3 * STRETCH)]
    rows[bad] = truncated(GOOD, 1)[0]
    block = read(READER, rows)
    wanted = [n for n in range(len(rows)) if n != bad]
    assert block.frame["seq"].to_list() == block.frame["_row"].to_list() == wanted
    assert [reject.row for reject in block.rejects] == [bad]


def test_an_int_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    fits, over = ((1 << 31) - 1), 1 << 31
    body = encode(replace(GOOD, status_code=fits))
    wide = body.replace(long(fits), long(over))
    for rows in ([(b"n", wide)], [(b"n", wide), (b"n", b"")], [(b"n", body), (b"n", wide)]):
        block = read(READER, rows)
        assert [reject.reason for reject in block.rejects if rows[reject.row][1] == wide] == ["undecodable"]
        assert block.frame["status_code"].to_list() == [fits] * sum(value == body for _, value in rows)


def test_details_name_the_field_its_value_and_what_was_expected() -> None:
    rows: list[Row] = [
        row_of(replace(GOOD, latency_us=-3)),
        (b"other", encode(GOOD)),
        (None, encode(GOOD)),
        (b"n", BEAT),
        row_of(replace(GOOD, region="")),
        (b"n", encode(GOOD) + b"\0" * MAX_VALUE_BYTES),
        (b"n", frame(99, b"")),
    ]
    size = len(encode(GOOD)) + MAX_VALUE_BYTES
    assert [reject.detail for reject in read(READER, rows).rejects] == [
        "latency_us: '-3'; expected 0 to 86400000000",
        "key b'other'; expected node_id 'n'",
        "key null; expected node_id 'n'",
        "schema id 13 is for heartbeats; expected [2]",
        "region: ''; expected 1 to 255 bytes",
        f"{size} bytes; expected at most {MAX_VALUE_BYTES}",
        "schema id 99; expected one of [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13]",
    ]
