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
    kinds = data.draw(st.sampled_from([SIGNED, SIGNED, SIGNED | ODD]))
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
