"""Whole record batches as columns: what is read is what the records say, and anything odd goes the careful way."""

import io
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from aiokafka.record.util import encode_varint
from aiokafka.structs import ConsumerRecord
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import record_batches
from schemas.blocks import SMALL_GROUP, BlockReader
from schemas.codec import encode
from schemas.record_batches import RecordBatch, value_prefix
from schemas.records import ProbeResult
from schemas.sizes import long_sizes, sizes
from streams import pieces
from streams.engine.transport import Poll, RawPoll
from streams.processors.source_reading import SourceReader
from tests.unit.raw_batches import raw_batches
from tests.unit.test_blocks_poison import GOOD, MIXES, Row, row_of

TOPIC = "probe-results"
COLUMNS = ["service", "endpoint", "region", "kind", "ts", "success", "latency_us"]
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)


def kept(rows: list[Row], first: int, times: list[int], headers: tuple[Any, ...] = ()) -> list[Any]:
    """The rows as records, with sizes as aiokafka gives them."""
    found = []
    for offset, ((key, value), time) in enumerate(zip(rows, times, strict=True), first):
        lengths = [-1 if text is None else len(text) for text in (key, value)]
        found.append(ConsumerRecord(TOPIC, 0, offset, time, 1, key, value, None, *lengths, headers))
    return found


def batch(rows: list[Row], headers: tuple[Any, ...] = ()) -> RecordBatch:
    (raw,) = raw_batches(kept(rows, 0, [7] * len(rows), headers))
    return raw.content()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(MIXES.filter(len), st.booleans()), min_size=1, max_size=4), st.integers(0, 9), st.data())
def test_batches_and_records_are_read_alike(
    mixes: list[tuple[list[Row], bool]], skip: int, data: st.DataObject
) -> None:
    """Each mix is a poll, of batches or of records; the first may begin in the middle of a batch."""
    batched, listed, at = list[Poll | RawPoll](), list[Poll | RawPoll](), 0
    for rows, raw in mixes:
        times = sorted(data.draw(st.lists(st.integers(1, 3), min_size=len(rows), max_size=len(rows))))
        records = kept(rows, at, times)
        begin = min(at + skip, at + len(rows) - 1) if not listed else at
        plain = Poll([record for record in records if record.offset >= begin], begin)
        batched.append(RawPoll(raw_batches(records), begin) if raw else plain)
        listed.append(plain)
        at += len(rows)
    reader = SourceReader(TOPIC, COLUMNS)
    with patch.object(pieces, "WORTH_IT", data.draw(st.sampled_from([1, 1, 3, 8]))):
        found, wanted = reader.read(batched), reader.read(listed)
    assert found.frame.equals(wanted.frame)
    assert found.rejects == wanted.rejects or [(r.reason, r.detail) for r in found.rejects] == [
        (r.reason, r.detail) for r in wanted.rejects
    ]
    assert found.rejected == wanted.rejected
    for column in ("offsets", "append_ms"):
        both = [np.concatenate([getattr(each, column) for each in reading.batches]) for reading in (found, wanted)]
        assert (both[0] == both[1]).all()


def test_good_batches_are_not_taken_apart() -> None:
    good = batch([row_of(replace(GOOD, seq=n)) for n in range(50)])
    frame, doubtful = BlockReader(TOPIC, COLUMNS).read_batches([good, good])
    assert frame["_row"].to_list() == list(range(100))
    assert not doubtful


@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_doubt_is_about_few_batches(bad: int) -> None:
    rows = [row_of(replace(GOOD, seq=n)) for n in range(SMALL_GROUP)]
    batches = [batch(rows) for _ in range(8)]
    batches[bad] = batch([*rows[:-1], (b"n", b"junk")])
    frame, doubtful = BlockReader(TOPIC, COLUMNS).read_batches(batches)
    assert doubtful == {bad}
    assert sorted(set(frame["_row"] // SMALL_GROUP)) == sorted({*range(8)} - {bad})


def forged(victim: ProbeResult) -> list[Row]:
    """A body, then a record that Kafka would frame as it does the next one, with a text that swallows that one.

    All that Kafka says of the next record, its number, lengths and key, is known to whoever can guess its size.
    """
    key, value = row_of(victim)
    assert key is not None
    assert value is not None
    ahead = b"\0\0" + _varint(1) + _varint(len(key)) + key + _varint(len(value))
    ahead = _varint(len(ahead) + len(value) + 1) + ahead
    swallowed = 1 + len(ahead) + len(value) - 1  # from the end of the first record to what ends the lie as well
    lie = encode(replace(victim, success=not victim.success))[:-2] + b"\x02" + _varint(swallowed)
    return [(b"n", encode(GOOD) + b"\0" + ahead + lie), (key, value)]


def test_a_record_that_swallows_the_next_one_does_not_speak_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = replace(GOOD, node_id="victim", success=True)
    batches = [batch(forged(victim))]
    reader = BlockReader(TOPIC, COLUMNS)
    frame, doubtful = reader.read_batches(batches)
    assert doubtful == {0}
    assert frame.is_empty()
    # Without the sums it would: all else is as it should be.
    monkeypatch.setattr(record_batches.LogContainer, "_sums_agree", lambda *_: True)
    frame, doubtful = reader.read_batches(batches)
    assert not doubtful
    assert frame["success"].to_list() == [True, False]


def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def test_headers_and_gaps_are_read_record_by_record() -> None:
    rows = [row_of(GOOD), row_of(GOOD)]
    _, doubtful = BlockReader(TOPIC, COLUMNS).read_batches([batch(rows, headers=(("trace", b"1"),))])
    assert doubtful == {0}
    records = kept(rows, 4, [7, 7])
    gap = [records[0], replace(records[1], offset=9)]
    (raw,) = raw_batches(gap)
    _, doubtful = BlockReader(TOPIC, COLUMNS).read_batches([raw.content()])
    assert doubtful == {0}
    reading = SourceReader(TOPIC, COLUMNS).read([RawPoll([raw], 4)])
    assert reading.batches[0].offsets.tolist() == [4, 9]


@given(st.lists(LONGS, min_size=1))
def test_a_long_takes_as_many_bytes_as_kafka_writes(values: list[int]) -> None:
    expected = [len(_varint(value)) for value in values]
    assert np.broadcast_to(long_sizes(np.array(values)), len(values)).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "text": st.text(max_size=200),
                "number": st.none() | LONGS,
                "words": st.none() | st.text(max_size=99),
                "flag": st.booleans(),
                "pairs": st.lists(st.fixed_dictionaries({"k": st.text(), "v": LONGS}), max_size=3),
            }
        ),
        min_size=1,
    )
)
def test_a_row_takes_as_many_bytes_as_fastavro_writes(rows: list[dict[str, Any]]) -> None:
    pair = {"type": "record", "name": "P", "fields": [{"name": "k", "type": "string"}, {"name": "v", "type": "long"}]}
    kinds = {
        "text": "string",
        "number": ["null", "long"],
        "words": ["null", "string"],
        "flag": "boolean",
        "pairs": {"type": "array", "items": pair},
    }
    schema = parse_schema({"type": "record", "name": "R", "fields": [{"name": n, "type": k} for n, k in kinds.items()]})
    expected = []
    for row in rows:
        out = io.BytesIO()
        schemaless_writer(out, schema, row)
        expected.append(len(out.getvalue()))
    pairs = pl.List(pl.Struct({"k": pl.String, "v": pl.Int64}))
    types: dict[str, Any] = {
        "text": pl.String,
        "number": pl.Int64,
        "words": pl.String,
        "flag": pl.Boolean,
        "pairs": pairs,
    }
    frame = pl.DataFrame(rows, schema=types)
    found = sum(np.broadcast_to(sizes(kind, frame[name]), len(rows)) for name, kind in kinds.items())
    assert np.array(found).tolist() == expected


def test_the_frame_of_the_first_value_is_found() -> None:
    assert value_prefix(batch([row_of(GOOD)])) == encode(GOOD)[:5]
    assert value_prefix(batch([(None, None)])) != encode(GOOD)[:5]
    assert value_prefix(RecordBatch(1, b"\xff\xff")) == b""
