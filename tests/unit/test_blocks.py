"""Many values at once: columns, types, older writers and several threads."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from fastavro import parse_schema

from schemas import blocks, codec
from schemas.blocks import BlockReader
from schemas.catalog import Catalog, SchemaVersion, load_catalog
from schemas.codec import encode, frame
from schemas.records import DeadLetter, Heartbeat, Label, ProbeResult, SloPartial, Source

GOOD = ProbeResult("n", 1_767_225_600_123, "b", 0, "p", "http", "s", "e", "r", success=True, latency_us=5)


def test_only_the_wanted_columns_come_and_those_that_rules_need() -> None:
    wanted = BlockReader("probe-results", ["ts", "success"]).read([b"n"], [encode(GOOD)]).frame
    ruled = {"node_id", "service", "endpoint", "region", "kind", "latency_us", "seq"}
    assert set(wanted.columns) == {"ts", "success", "_row"} | ruled


def test_an_unknown_topic_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        BlockReader("nothing")


def test_times_are_int64_milliseconds_and_enums_are_strings() -> None:
    beat = Heartbeat("n", GOOD.ts, "b", GOOD.ts - 1, 0, 5_000, "GOODBYE", "r", "z", "0", labels=(Label("k", "v"),))
    got = BlockReader("heartbeats").read([b"n"], [encode(beat)]).frame
    assert got.schema["ts"] == got.schema["boot_ts"] == pl.Int64
    assert got.schema["interval_ms"] == pl.Int32
    assert got.schema["state"] == pl.String
    assert got.schema["_row"] == pl.UInt32
    assert got.select("ts", "boot_ts", "state").rows() == [(GOOD.ts, GOOD.ts - 1, "GOODBYE")]


@pytest.mark.parametrize("ts", [-(1 << 63), (1 << 63) - 1])
def test_times_may_be_any_long(ts: int) -> None:
    got = BlockReader("probe-results").read([b"n"], [encode(replace(GOOD, ts=ts))])
    assert got.frame["ts"].to_list() == [ts]


def test_topics_without_a_node_take_any_key() -> None:
    letter = DeadLetter("truncated", "", "probe-results", 0, 1, 2, "worker", b"\xff", None, 3)
    partial = SloPartial("probe-results", "id", (Source(1, 2, None), Source(2, 3, 4)), ("s",), b"\0\1")
    letters = BlockReader("dead-letters").read([None, b"x"], [encode(letter)] * 2)
    assert letters.frame.select("key", "value", "value_bytes").rows() == [(b"\xff", None, 3)] * 2
    partials = BlockReader("slo-partials").read([None], [encode(partial)])
    assert partials.frame["sources"].to_list() == [
        [{"partition": 1, "applied_offset": 2, "frontier": None}, {"partition": 2, "applied_offset": 3, "frontier": 4}]
    ]


def test_no_values_are_an_empty_frame_with_all_columns() -> None:
    reader = BlockReader("probe-results")
    empty, full = reader.read([], []), reader.read([b"n"], [encode(GOOD)])
    assert empty.frame.schema == full.frame.schema
    assert (empty.frame.height, empty.rejects) == (0, ())


def test_nothing_but_poison_is_an_empty_frame_with_all_columns() -> None:
    reader = BlockReader("probe-results")
    block = reader.read([b"n"] * 3, [None, b"", b"\0\0\0\0\2"])
    assert block.frame.schema == reader.read([], []).frame.schema
    assert [reject.reason for reject in block.rejects] == ["empty", "bad-frame", "truncated"]


def test_several_threads_may_share_a_reader() -> None:
    reader = BlockReader("probe-results", ["seq"])
    batches = [[replace(GOOD, seq=n) for n in range(size)] for size in (3, 700, 1_500, 40, 2_200, 9)]

    def read(batch: list[ProbeResult]) -> list[int]:
        block = reader.read([b"n"] * len(batch), [encode(record) for record in batch])
        assert block.rejects == ()
        return block.frame["seq"].to_list()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, batches)) == [[record.seq for record in batch] for batch in batches]
    trailers = reader._containers[2]._trailers
    assert len(set(trailers)) == len(trailers)


def version(number: int, schema_id: int, fields: list[dict[str, Any]]) -> SchemaVersion:
    schema = {"type": "record", "name": "SloStatus", "fields": fields}
    return SchemaVersion(number, schema_id, "", json.dumps(schema), parse_schema(schema))  # type: ignore[arg-type]


TS = {"type": "long", "logicalType": "timestamp-millis"}
STATE = {"type": "enum", "name": "State", "symbols": ["A", "B"]}
OLD = version(
    1, 901, [{"name": "slo", "type": "string"}, {"name": "gone", "type": "int"}, {"name": "n", "type": "int"}]
)
NEW = version(
    2,
    902,
    [
        {"name": "slo", "type": "string"},
        {"name": "n", "type": "long"},
        {"name": "ts", "type": TS, "default": 7},
        {"name": "state", "type": STATE, "default": "B"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    ],
)


@pytest.fixture
def two_versions(monkeypatch: pytest.MonkeyPatch) -> BlockReader:
    topic = replace(load_catalog().topic("slo-status"), versions=(OLD, NEW))
    monkeypatch.setattr(blocks, "load_catalog", lambda: Catalog({topic.name: topic}))
    monkeypatch.setattr(codec, "_by_id", lambda: {901: (topic, OLD), 902: (topic, NEW)})
    return BlockReader("slo-status")


OLD_BODY = b"\x02a" + b"\x0a" + b"\x06"
NEW_BODY = b"\x02b" + b"\x08" + b"\x02" + b"\x00" + b"\x02\x02x" + b"\x02\x02t\x00"


@pytest.mark.parametrize("poison", [[], [frame(901, b"\x02")]])
def test_what_an_older_writer_did_not_know_takes_the_default(two_versions: BlockReader, poison: list[bytes]) -> None:
    values = [frame(902, NEW_BODY), frame(901, OLD_BODY), frame(902, NEW_BODY), *poison]
    block = two_versions.read([None] * len(values), values)
    new = {"slo": "b", "n": 4, "ts": 1, "state": "A", "note": "x", "tags": ["t"]}
    old = {"slo": "a", "n": 3, "ts": 7, "state": "B", "note": None, "tags": []}
    assert block.frame.drop("_row").to_dicts() == [new, old, new]
    assert block.frame["_row"].to_list() == [0, 1, 2]
    assert block.frame.schema["n"] == pl.Int64
    assert [reject.row for reject in block.rejects] == ([3] if poison else [])
