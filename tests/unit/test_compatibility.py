"""Which changes of a schema keep old data readable, and the sentences about those that do not."""

import io
import json
from typing import Any

import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from fastavro import parse_schema
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import load_catalog
from schemas.compatibility import check_backward


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"type": "record", "name": name, "fields": list(fields), **more}


def one(kind: Any, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return record({"name": "x", "type": kind, **more})


def problems(reader: Any, writer: Any) -> list[str]:  # noqa: ANN401 - any JSON
    return [str(problem) for problem in check_backward(json.dumps(reader), json.dumps(writer))]


LABEL = record({"name": "key", "type": "string"}, name="Label")
UP_DOWN = {"type": "enum", "name": "State", "symbols": ["UP", "DOWN"]}
ONLY_UP = {"type": "enum", "name": "State", "symbols": ["UP"]}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
TREE = record({"name": "children", "type": {"type": "array", "items": "Tree"}}, name="Tree")

FINE = {
    "the same": (one("long"), one("long")),
    "a new field with a default": (record({"name": "y", "type": "int", "default": 0}), record()),
    "a removed field": (record(), one("long")),
    "a field renamed with an alias": (record({"name": "y", "type": "int", "aliases": ["x"]}), one("int")),
    "a record renamed with an alias": (record(name="S", aliases=["R"]), record()),
    "another namespace": (record(namespace="a"), record(namespace="b")),
    "int read as long": (one("long"), one("int")),
    "string read as bytes": (one("bytes"), one("string")),
    "a field that may now be null": (one(["null", "long"]), one("int")),
    "more branches": (one(["null", "long", "string"]), one(["null", "long"])),
    "a new enum symbol": (one(UP_DOWN), one(ONLY_UP)),
    "a lost enum symbol with a default": (one({**ONLY_UP, "default": "UP"}), one(UP_DOWN)),
    "a long that gets a meaning": (one(MILLIS), one("long")),
    "a type that contains itself": (TREE, TREE),
    "documentation": (record({"name": "x", "type": "int", "doc": "new"}), one("int")),
}

REFUSED = {
    "another type": (one("string"), one("long"), "field `x`: type changed from long to string"),
    "a narrower type": (one("int"), one("long"), "field `x`: type changed from long to int"),
    "a new field without default": (one("long"), record(), "field `x`: is new and has no default"),
    "a field that may no longer be null": (
        one("long"),
        one(["null", "long"]),
        "field `x`: type changed from null or long to long: null can no longer be read",
    ),
    "a nullable field of another type": (
        one(["null", "string"]),
        one("long"),
        "field `x`: type changed from long to null or string",
    ),
    "a lost enum symbol": (one(ONLY_UP), one(UP_DOWN), "field `x`: enum State lost DOWN and has no default symbol"),
    "a lost symbol of a nullable enum": (
        one(["null", ONLY_UP]),
        one(["null", UP_DOWN]),
        "field `x`: enum State lost DOWN and has no default symbol",
    ),
    "another size": (
        one({"type": "fixed", "name": "F", "size": 4}),
        one({"type": "fixed", "name": "F", "size": 8}),
        "field `x`: size changed from 8 to 4 bytes",
    ),
    "another record": (record(name="S"), record(name="R"), "record renamed from R to S without an alias"),
    "milliseconds to microseconds": (
        one(MICROS),
        one(MILLIS),
        "field `x`: logicalType changed from timestamp-millis to timestamp-micros",
    ),
    "inside a record of an array": (
        one({"type": "array", "items": record({"name": "key", "type": "int"}, name="Label")}),
        one({"type": "array", "items": LABEL}),
        "field `x[].key`: type changed from string to int",
    ),
    "inside a map": (
        one({"type": "map", "values": "int"}),
        one({"type": "map", "values": "string"}),
        "field `x{}`: type changed from string to int",
    ),
    "inside a type that contains itself": (
        {**TREE, "fields": [*TREE["fields"], {"name": "depth", "type": "int"}]},
        TREE,
        "field `depth`: is new and has no default",
    ),
}


@pytest.mark.parametrize("case", FINE.values(), ids=FINE)
def test_a_harmless_change_has_no_problem(case: tuple[Any, Any]) -> None:
    assert problems(*case) == []


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_breaking_change_names_the_field(case: tuple[Any, Any, str]) -> None:
    reader, writer, sentence = case
    assert problems(reader, writer) == [sentence]


def test_every_problem_is_told() -> None:
    reader = record({"name": "a", "type": "int"}, {"name": "b", "type": "int"})
    writer = record({"name": "a", "type": "string"})
    assert problems(reader, writer) == [
        "field `a`: type changed from string to int",
        "field `b`: is new and has no default",
    ]


def test_the_latest_schema_of_every_topic_reads_all_its_versions() -> None:
    for topic, version in load_catalog().schemas():
        assert check_backward(topic.latest.text, version.text) == [], (topic.name, version.file)


PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
simple = st.sampled_from(PRIMITIVES)
enums = st.sets(st.sampled_from("ABC"), min_size=1).map(lambda s: {"type": "enum", "name": "E", "symbols": sorted(s)})
leaves = st.one_of(simple, enums)
unions = st.lists(leaves, min_size=1, max_size=3, unique_by=lambda s: s if isinstance(s, str) else s["type"])
types = st.one_of(
    leaves,
    unions,
    leaves.map(lambda items: {"type": "array", "items": items}),
    leaves.map(lambda values: {"type": "map", "values": values}),
)


@given(types, types)
def test_the_verdict_is_that_of_the_avro_package(reader: Any, writer: Any) -> None:  # noqa: ANN401 - any JSON
    new, old = one(reader), one(writer)
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    verdict = checker.get_compatibility(parse(json.dumps(new)), parse(json.dumps(old)))
    assert (problems(new, old) == []) == (verdict.compatibility is SchemaCompatibilityType.compatible)


def test_what_passes_is_read_by_the_codec() -> None:
    old = one(["null", "int"])
    added = {"name": "z", "type": "int", "default": 7}
    new = record({"name": "y", "type": ["null", "double"], "aliases": ["x"]}, added)
    assert problems(new, old) == []
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parse_schema(old), {"x": 3})
    body.seek(0)
    assert fastavro.schemaless_reader(body, parse_schema(old), parse_schema(new)) == {"y": 3.0, "z": 7}
