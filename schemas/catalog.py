"""The catalog: every topic with its schema versions, loaded from `avro/` and `topics/`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form
from ruamel.yaml import YAML

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One version of a topic's value schema; `id` is what frames carry on the wire."""

    version: int
    id: int
    file: str
    text: str = field(repr=False)
    parsed: Schema = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Of its form on the wire: two schemas with the same one write the same bytes."""
        return fingerprint_of(self.text)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as `topics/<name>.yaml` describes it; `retention_hours` None keeps records for ever."""

    name: str
    description: str
    key: str | None
    versions: tuple[SchemaVersion, ...]
    compatibility: str
    retention_hours: int | None
    cleanup: str
    timestamps: str
    segment_mb: int | None
    max_message_mb: int | None
    validated_by: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    examples: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The registry's name for the value schema."""
        return f"{self.name}-value"

    @property
    def latest(self) -> SchemaVersion:
        """The version that producers write."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All topics by name."""

    topics: dict[str, Topic]

    def topic(self, name: str) -> Topic:
        """The topic of that name. Raises KeyError."""
        return self.topics[name]

    def schemas(self) -> Iterator[tuple[Topic, SchemaVersion]]:
        """Every schema version with its topic."""
        for topic in self.topics.values():
            for version in topic.versions:
                yield topic, version

    def schema(self, schema_id: int) -> SchemaVersion:
        """The schema with that wire id: this is the allow-list of writers. Raises KeyError."""
        for _, version in self.schemas():
            if version.id == schema_id:
                return version
        raise KeyError(schema_id)


def fingerprint_of(text: str) -> str:
    """The first half of the SHA-256 of a schema's parsing canonical form. Raises what fastavro raises on no schema."""
    return fingerprint(to_parsing_canonical_form(json.loads(text)), "SHA-256")[:16]


@cache
def load_catalog() -> Catalog:
    """The catalog that ships with this package."""
    topics = {}
    for entry in sorted((files("schemas") / "topics").iterdir(), key=lambda e: e.name):
        topic = _read(entry)
        topics[topic.name] = topic
    ids = [version.id for topic in topics.values() for version in topic.versions]
    if len(ids) != len(set(ids)):
        message = f"schemas/topics: a schema id is used twice: {sorted(ids)}"
        raise ValueError(message)
    return Catalog(topics)


@cache
def load_topic(name: str) -> Topic:
    """The topic in the file of that name, without the rest of the catalog. Raises FileNotFoundError."""
    return _read(files("schemas") / "topics" / f"{name}.yaml")


def _read(file: Traversable) -> Topic:
    return _topic(YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")))


def _topic(document: dict[str, Any]) -> Topic:
    config = document["config"]
    return Topic(
        name=document["topic"],
        description=document["description"],
        key=document["key"],
        versions=tuple(_version(entry) for entry in document["versions"]),
        compatibility=document.get("compatibility", "NONE"),
        retention_hours=config["retention_hours"],
        cleanup=config["cleanup"],
        timestamps=config["timestamps"],
        segment_mb=config.get("segment_mb"),
        max_message_mb=config.get("max_message_mb"),
        validated_by=document["validated_by"],
        producers=tuple(document["producers"]),
        consumers=tuple(document["consumers"]),
        examples=tuple(document["examples"]),
    )


def _version(entry: dict[str, Any]) -> SchemaVersion:
    text = (files("schemas") / "avro" / entry["file"]).read_text(encoding="utf-8")
    schema = json.loads(text)
    parsed: Schema = parse_schema(schema)  # type: ignore[assignment]
    return SchemaVersion(
        entry["version"], entry["id"], entry["file"], json.dumps(schema, separators=(",", ":")), parsed
    )
