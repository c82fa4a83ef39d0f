"""Every example is a record of its topic: both codecs carry it unchanged and agree on it."""

import json
import runpy
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.blocks import BlockReader
from schemas.buckets import bucket_of
from schemas.catalog import load_catalog
from schemas.codec import decode, encode, from_fields
from schemas.records import Record
from tests.contract.strategies import TOPICS, records

CASES = [(topic, file) for topic in TOPICS for file in load_catalog().topic(topic).examples]
READERS = {topic: BlockReader(topic) for topic in TOPICS}


def load_example(topic: str, file: str) -> Record:
    """The record of an example file; in JSON the fields of type bytes stand as strings."""
    example = json.loads((files("schemas") / "examples" / file).read_text(encoding="utf-8"))
    for field in load_catalog().topic(topic).latest.parsed["fields"]:
        if "bytes" in field["type"] and isinstance(example[field["name"]], str):
            example[field["name"]] = example[field["name"]].encode()
    return from_fields(topic, example)


def key_of(record: Record) -> bytes | None:
    node_id = getattr(record, "node_id", None)
    return None if node_id is None else node_id.encode()


def columns(record: Record) -> dict[str, Any]:
    """The record as a row of a frame, where arrays are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(record).items()}


def test_every_topic_with_a_schema_has_examples_and_every_file_is_used() -> None:
    assert {topic for topic, _ in CASES} == set(TOPICS)
    assert sorted(file for _, file in CASES) == sorted(e.name for e in (files("schemas") / "examples").iterdir())


@pytest.mark.parametrize(("topic", "file"), CASES)
def test_an_example_names_every_field(topic: str, file: str) -> None:
    example = json.loads((files("schemas") / "examples" / file).read_text(encoding="utf-8"))
    assert list(example) == [field["name"] for field in load_catalog().topic(topic).latest.parsed["fields"]]


@pytest.mark.parametrize(("topic", "file"), CASES)
def test_both_codecs_carry_an_example_unchanged(topic: str, file: str) -> None:
    record = load_example(topic, file)
    value = encode(record)
    assert decode(value) == record
    assert hash(decode(value)) == hash(record), "arrays are tuples"
    block = READERS[topic].read([key_of(record)], [value])
    assert block.rejects == ()
    assert block.frame.drop("_row").to_dicts() == [columns(record)]


@pytest.mark.parametrize("file", ["probe_result.json", "probe_result_failed.json"])
def test_the_bytes_on_the_wire_are_those_of_the_example_that_builds_them_by_hand(file: str) -> None:
    path = Path(__file__).parents[2] / "examples" / "producers" / "python_plain_bytes.py"
    by_hand = runpy.run_path(str(path))["probe_result"]
    example = json.loads((files("schemas") / "examples" / file).read_text(encoding="utf-8"))
    example["labels"] = {label["key"]: label["value"] for label in example["labels"]}
    assert by_hand(example) == encode(load_example("probe-results", file))


@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_records_come_back_the_same_from_both_codecs(topic: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(records(topic), min_size=1, max_size=5))
    values = [encode(record) for record in drawn]
    assert [decode(value) for value in values] == drawn
    block = READERS[topic].read([key_of(record) for record in drawn], values)
    assert block.rejects == ()
    assert block.frame["_row"].to_list() == list(range(len(drawn)))
    assert block.frame.drop("_row").to_dicts() == [columns(record) for record in drawn]


def test_the_example_that_counts_requests_writes_what_the_contract_says() -> None:
    path = Path(__file__).parents[2] / "examples" / "producers" / "python_request_counts.py"
    example = runpy.run_path(str(path))
    window = example["Window"](1_767_225_600_000)
    for latency_us in (0, 1, 2, 48_211, 99_242, 99_243, 86_400_000_000):
        assert example["bucket_of"](latency_us) == bucket_of(latency_us)
        window.observe(latency_us, succeeded=latency_us < 99_243)
    of = {"node_id": "pod", "boot_id": "b", "seq": 0, "service": "s", "endpoint": "/", "region": "eu", "labels": []}
    value = example["request_count"]({**of, **window.fields()})
    block = READERS["request-counts"].read([b"pod"], [value])
    assert block.rejects == ()
    assert block.frame.select("total", "good", "window_ms").rows() == [(7, 5, 1_000)]
    assert encode(decode(value)) == value
