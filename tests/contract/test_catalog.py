"""The topic descriptions and the schemas hold together, and a published schema never changes."""

import io
import json
import re
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from ruamel.yaml import YAML

from schemas.blocks import BlockReader
from schemas.catalog import SchemaVersion, Topic, load_catalog
from schemas.records import RECORD_TYPES, BucketCount, Label, ObjectiveRule, ObjectiveVersion, SloWindow, Source
from schemas.rules import KEYED_BY_NODE, RULES

CATALOG = load_catalog()
VERSIONED = [topic for topic in CATALOG.topics.values() if topic.versions]
SCHEMAS = [version for _, version in CATALOG.schemas()]
# What is on the wire under each id. A change of the form needs a new version, not a new fingerprint.
PUBLISHED = {
    1: "ff96535451b48b7e",
    2: "3451fd7450f9992c",
    3: "b02d1f5fc2d8a4f2",
    4: "e2686bcfe23ad847",
    5: "d50d76433822d170",
    6: "67a7dec4cfe1f743",
    7: "8e2670270f6e40f8",
    8: "d4a89e3215d88417",
    9: "bba4a2cdea769ab7",
    11: "5b741dc52223a628",
    12: "c6dbb4e25d30ea9b",
    13: "b23af6a46ab1d4b5",
}


def name(case: Topic | SchemaVersion) -> str:
    return case.name if isinstance(case, Topic) else case.file


@pytest.mark.parametrize(
    "entry", sorted((files("schemas") / "topics").iterdir(), key=str), ids=lambda entry: entry.name
)
def test_a_topic_file_has_exactly_the_known_keys_and_values(entry: io.TextIOBase) -> None:
    document = YAML(typ="safe", pure=True).load(entry.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    wanted = {"topic", "description", "key", "versions", "config", "validated_by", "producers", "consumers", "examples"}
    assert set(document) - {"compatibility"} == wanted
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,80}", document["topic"])
    assert document["description"].endswith(".")
    assert document["key"] is None or isinstance(document["key"], str)
    assert document.get("compatibility", "NONE") in ("NONE", "BACKWARD_TRANSITIVE")
    assert ("compatibility" in document) == bool(document["versions"])
    config = document["config"]
    assert set(config) - {"segment_mb", "max_message_mb"} == {"retention_hours", "cleanup", "timestamps"}
    assert config["cleanup"] in ("delete", "compact", "compact,delete")
    # A topic that is only compacted keeps its records for ever; nothing else may.
    assert (config["retention_hours"] is None) == (config["cleanup"] == "compact")
    assert config["retention_hours"] is None or config["retention_hours"] > 0
    assert config["timestamps"] == "LogAppendTime"
    rooms = {"agent", "service", "simulate", "worker", "archive", "dlq"}
    assert document["producers"]
    assert set(document["producers"]) <= rooms
    assert set(document["consumers"]) <= rooms
    assert document["validated_by"] in document["consumers"]
    for version in document["versions"]:
        assert set(version) == {"version", "id", "file"}


def test_a_topic_file_is_named_after_its_topic_unless_the_worker_prefixes_it() -> None:
    names = {entry.name.removesuffix(".yaml") for entry in (files("schemas") / "topics").iterdir()}
    unlike = {topic for topic in CATALOG.topics if topic not in names}
    assert unlike == {"fleetbeat-worker-pages-changelog", "fleetbeat-worker-nodes-changelog"}


def test_schema_ids_are_unique_and_positive() -> None:
    ids = [version.id for version in SCHEMAS]
    assert len(ids) == len(set(ids))
    assert min(ids) > 0


def test_every_schema_file_belongs_to_one_version_of_one_topic() -> None:
    used = sorted(version.file for version in SCHEMAS)
    assert used == sorted(entry.name for entry in (files("schemas") / "avro").iterdir())


@pytest.mark.parametrize("topic", VERSIONED, ids=name)
def test_versions_count_from_one_and_files_say_which(topic: Topic) -> None:
    assert [version.version for version in topic.versions] == list(range(1, len(topic.versions) + 1))
    stem = topic.latest.file.split(".")[0]
    assert [version.file for version in topic.versions] == [f"{stem}.v{v.version}.avsc" for v in topic.versions]


@pytest.mark.parametrize("version", SCHEMAS, ids=name)
def test_a_published_schema_does_not_change(version: SchemaVersion) -> None:
    canonical = to_parsing_canonical_form(json.loads(version.text))
    assert fingerprint(canonical, "SHA-256")[:16] == version.fingerprint == PUBLISHED[version.id]


@pytest.mark.parametrize("version", SCHEMAS, ids=name)
def test_every_schema_is_read_by_fastavro(version: SchemaVersion) -> None:
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(json.loads(version.text)), [])
    out.seek(0)
    assert list(fastavro.reader(out)) == []


@pytest.mark.parametrize("topic", VERSIONED, ids=name)
def test_every_topic_is_read_in_blocks(topic: Topic) -> None:
    block = BlockReader(topic.name).read([], [])
    names = [field["name"] for field in topic.latest.parsed["fields"]]
    assert block.frame.columns == [*names, "_row"]
    assert block.rejects == ()


@pytest.mark.parametrize("topic", VERSIONED, ids=name)
def test_records_have_the_fields_of_the_schema_in_order(topic: Topic) -> None:
    schema = topic.latest.parsed["fields"]
    record = fields(RECORD_TYPES[topic.name])
    assert [field.name for field in record] == [field["name"] for field in schema]
    for ours, theirs in zip(record, schema, strict=True):
        if ours.default is not MISSING:
            default = theirs["default"]
            assert ours.default == (tuple(default) if isinstance(default, list) else default)


@pytest.mark.parametrize(
    ("nested", "file", "field"),
    [
        (Label, "heartbeat.v3.avsc", "labels"),
        (Label, "probe_result.v1.avsc", "labels"),
        (Label, "request_count.v1.avsc", "labels"),
        (BucketCount, "request_count.v1.avsc", "histogram"),
        (Source, "slo_partial.v1.avsc", "sources"),
        (SloWindow, "slo_status.v1.avsc", "windows"),
        (ObjectiveVersion, "objective_set.v2.avsc", "objectives"),
        (ObjectiveRule, "objective_set.v2.avsc", "rules"),
    ],
)
def test_nested_records_have_the_fields_of_the_schema_in_order(nested: type, file: str, field: str) -> None:
    schema = next(version.parsed for version in SCHEMAS if version.file == file)
    items = next(entry for entry in schema["fields"] if entry["name"] == field)["type"]["items"]
    assert [entry.name for entry in fields(nested)] == [entry["name"] for entry in items["fields"]]


def test_every_versioned_topic_has_a_record_type_and_rules() -> None:
    names = {topic.name for topic in VERSIONED}
    assert set(RECORD_TYPES) == set(RULES) == names
    assert {topic.name for topic in VERSIONED if topic.key == "node_id"} == KEYED_BY_NODE


def test_rules_name_columns_of_their_topic() -> None:
    for topic in VERSIONED:
        names = {field["name"] for field in topic.latest.parsed["fields"]}
        assert {rule.column for rule in RULES[topic.name]} <= names


def test_what_the_catalog_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        CATALOG.topic("nothing")
    with pytest.raises(KeyError):
        CATALOG.schema(0)
    assert CATALOG.schema(2).file == "probe_result.v1.avsc"


def test_subjects_are_the_topics_value_schemas() -> None:
    assert CATALOG.topic("probe-results").subject == "probe-results-value"


def test_the_page_for_producers_names_the_topics_of_agents_with_their_ids_and_keys() -> None:
    page = (Path(__file__).parents[2] / "docs" / "producing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| \[schemas/avro/([\w.]+)\].*\| (\d+) \| `(\w+)` \|$", page, re.MULTILINE)
    theirs = [topic for topic in VERSIONED if {"agent", "service"} & set(topic.producers)]
    assert sorted(rows) == sorted((t.name, t.latest.file, str(t.latest.id), t.key) for t in theirs)
