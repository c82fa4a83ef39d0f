"""Batches whose records have one header: read whole, with its value and the record's own bytes, as record by record."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.blocks import BlockReader
from schemas.record_batches import SIGNATURE, VALUE, RecordBatch
from schemas.signatures import HEADER, SIGNATURE_BYTES
from schemas.traces import HEADER as TRACE_HEADER
from streams import pieces
from streams.engine.transport import Poll, RawPoll
from streams.pieces import records_at
from streams.processors.source_reading import SourceReader
from tests.unit.raw_batches import raw_batches
from tests.unit.test_blocks_poison import GOOD, MIXES, Row, row_of

TOPIC = "probe-results"
COLUMNS = ["service", "ts", "success", "latency_us", "node_id", "boot_id", "seq"]
SIZES = st.just(SIGNATURE_BYTES) | st.integers(0, 80)
SIGNED = SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(lambda made: ((HEADER, made),))
TRACE = (TRACE_HEADER, f"00-{7:032x}-{8:016x}-01".encode())
TRACED = st.sampled_from([(), (TRACE,)])
ODD_TRACES = st.sampled_from([
    (TRACE, TRACE),
    ((TRACE_HEADER, None),),
    ((TRACE_HEADER, b"\xff"),),
    ((TRACE_HEADER, b"anything"),),
    (("other", b"1"),),
    (("other", b"1"), TRACE),
])  # fmt: skip
ODD = st.sampled_from([
    (),
    ((HEADER, None),),
    (("trace", b"1"),),
    ((HEADER, b"1"), (HEADER, b"2")),
    (("trace", b"1"), (HEADER, b"2")),
    ((HEADER + "2", b"1"),),
])  # fmt: skip
Headers = tuple[tuple[str, bytes | None], ...]


def kept(rows: list[Row], headers: list[Headers]) -> list[Any]:
    found = []
    for offset, ((key, value), own) in enumerate(zip(rows, headers, strict=True)):
        lengths = [-1 if text is None else len(text) for text in (key, value)]
        found.append(ConsumerRecord(TOPIC, 0, offset, 7 + offset // 12, 1, key, value, None, *lengths, own))
    return found


@settings(deadline=None, max_examples=20)
@given(MIXES.filter(len), st.data())
def test_batches_and_records_are_read_alike(rows: list[Row], data: st.DataObject) -> None:
    both = st.tuples(TRACED, SIGNED).map(lambda two: two[0] + two[1])
    kinds = data.draw(
        st.sampled_from([SIGNED, SIGNED | ODD, TRACED, both, TRACED | ODD_TRACES, both | ODD_TRACES | ODD])
    )
    records = kept(rows, data.draw(st.lists(kinds, min_size=len(rows), max_size=len(rows))))
    reader = SourceReader(TOPIC, COLUMNS, signatures=True)
    with patch.object(pieces, "WORTH_IT", 1):
        found, wanted = reader.read([RawPoll(raw_batches(records), 0)]), reader.read([Poll(records, 0)])
    assert found.frame.equals(wanted.frame)
    assert [(r.reason, r.detail) for r in found.rejects] == [(r.reason, r.detail) for r in wanted.rejects]
    assert found.rejected == wanted.rejected
    every = range(len(rows))
    assert records_at(found.pieces, every) == records_at(wanted.pieces, every) == records


def test_well_formed_ones_are_not_taken_apart_and_have_their_bytes() -> None:
    rows = [row_of(replace(GOOD, seq=n, service="s" * (n % 90 + 1))) for n in range(300)]
    # The last one says what the batch is like; all others may be longer or shorter.
    headers: list[Headers] = [((HEADER, bytes(SIGNATURE_BYTES if n == 299 else n % 70)),) for n in range(300)]
    (raw,) = raw_batches([replace(record, timestamp=7) for record in kept(rows, headers)])
    frame, doubtful = BlockReader(TOPIC, COLUMNS, signatures=True).read_batches([raw.content(), raw.content()])
    assert not doubtful
    assert frame[VALUE].to_list() == [value for _, value in rows] * 2
    assert frame[SIGNATURE].to_list() == [signed for ((_, signed),) in headers] * 2


@pytest.mark.parametrize("wanted", [True, False])
def test_who_does_not_look_at_signatures_reads_signed_batches_whole_too_and_the_other_way_round(
    *, wanted: bool
) -> None:
    """All that keeps a batch from being read whole is records of both kinds in it."""
    row = row_of(GOOD)
    signed: Headers = ((HEADER, bytes(SIGNATURE_BYTES)),)
    reader = BlockReader(TOPIC, COLUMNS, signatures=wanted)

    def batch(*headers: Headers) -> RecordBatch:
        (raw,) = raw_batches(kept([row] * len(headers), list(headers)))
        return raw.content()

    frame, doubtful = reader.read_batches([batch(*[()] * 9), batch(*[signed] * 9)])
    assert not doubtful
    assert frame["_row"].to_list() == list(range(18))
    if wanted:
        assert frame[SIGNATURE].to_list() == [None] * 9 + [bytes(SIGNATURE_BYTES)] * 9
        assert frame[VALUE].to_list() == [row[1]] * 18
    for odd in ([*[()] * 8, signed], [*[signed] * 8, ()], [((HEADER, b"1"),)] * 9, [(("trace", b"1"),)] * 9):
        assert reader.read_batches([batch(*odd)])[1] == {0}


@pytest.mark.parametrize("signed", [True, False])
def test_batches_are_read_whole_though_some_records_have_a_trace(*, signed: bool) -> None:
    # Bytes in a text that look like the header are no header.
    rows = [row_of(replace(GOOD, seq=n, service="traceparent" if n == 3 else "s" * (n % 90 + 1))) for n in range(300)]
    own: Headers = ((HEADER, bytes(SIGNATURE_BYTES)),) if signed else ()
    headers: list[Headers] = [(TRACE, *own) if n % 7 == 0 else own for n in range(300)]
    raw = [kept(rows[begin:end], headers[begin:end]) for begin, end in ((0, 299), (1, 7), (299, 300))]
    batches = [raw_batches([replace(record, timestamp=7) for record in some])[0].content() for some in raw]
    frame, doubtful = BlockReader(TOPIC, COLUMNS, signatures=True).read_batches(batches)
    assert not doubtful
    values = [value for _, value in rows]
    assert frame[VALUE].to_list() == values[:299] + values[1:7] + values[299:]
    assert frame[SIGNATURE].to_list() == [bytes(SIGNATURE_BYTES) if signed else None] * 306
    # Without the rule for traces it would be taken apart.
    with patch("schemas.blocks.is_traced", return_value=False):
        assert BlockReader(TOPIC, COLUMNS, signatures=True).read_batches(batches)[1]


@pytest.mark.parametrize(
    ("found", "lie"),
    [
        pytest.param(b"\x02\x16traceparent", b"\x04\x16traceparent", id="a header more than there is"),
        pytest.param(b"\x02\x16traceparent", b"\x01\x16traceparent", id="less than none"),
        pytest.param(b"\x04\x16traceparent", b"\x06\x16traceparent", id="a third header"),
        pytest.param(b"\x04\x16traceparent", b"\x02\x16traceparent", id="one of two"),
        pytest.param(b"\x02\x0cfb-sig", b"\x00\x0cfb-sig", id="none, and there is one"),
        pytest.param(b"\x02\x0cfb-sig", b"\x04\x0cfb-sig", id="two, and there is one"),
    ],
)
def test_a_record_that_lies_about_its_number_of_headers_is_a_doubt(found: bytes, lie: bytes) -> None:
    signed: Headers = () if found[:2] == b"\x02\x16" else ((HEADER, bytes(SIGNATURE_BYTES)),)
    (raw,) = raw_batches(kept([row_of(GOOD)] * 9, [signed, (TRACE, *signed), *[signed] * 7]))
    batch, reader = raw.content(), BlockReader(TOPIC, COLUMNS, signatures=True)
    assert found in batch.records
    assert reader.read_batches([batch])[1] == set()
    assert reader.read_batches([replace(batch, records=batch.records.replace(found, lie, 1))])[1] == {0}


def test_bytes_in_a_text_that_look_like_a_signature_are_not_changed() -> None:
    """Reading traced and signed records changes such bytes where they are a header's; elsewhere that is a doubt."""
    text = "\x02\x0c" + HEADER
    own: Headers = ((HEADER, bytes(SIGNATURE_BYTES)),)
    rows = [row_of(replace(GOOD, service=text)), *[row_of(GOOD)] * 8]
    records = kept(rows, [(TRACE, *own), *[own] * 8])
    found = SourceReader(TOPIC, COLUMNS, signatures=True).read([RawPoll(raw_batches(records), 0)])
    assert found.frame["service"].to_list() == [text, *["s"] * 8]
