"""Whether a schema can read what another wrote, by Avro's rules of resolution, and if not, because of which field.

The `avro` package has such a check, but its messages come as a set without their places, and it does not compare
logical types; a test holds the two verdicts together.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastavro import parse_schema

Schema = str | dict[str, Any] | list[Any]
Names = dict[str, dict[str, Any]]

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a reader fails on a writer's data; `field_path` is such as `labels[].key`, or empty for the whole schema."""

    field_path: str
    message: str

    def __str__(self) -> str:
        """The sentence for people."""
        return f"field `{self.field_path}`: {self.message}" if self.field_path else self.message


def check_backward(reader: str, writer: str) -> list[Problem]:
    """What keeps the reader's schema from reading the writer's data; both are JSON texts of schemas.

    Raises fastavro.schema.SchemaParseException for a text that is no schema.
    """
    reader_names: Names = {}
    writer_names: Names = {}
    parsed_reader = parse_schema(json.loads(reader), reader_names)
    parsed_writer = parse_schema(json.loads(writer), writer_names)
    return list(_Check(reader_names, writer_names).compare(parsed_reader, parsed_writer, ""))


class _Check:
    """One comparison: resolves names in both schemas and remembers the pairs it is in: types may contain themselves."""

    def __init__(self, reader_names: Names, writer_names: Names) -> None:
        self._reader_names = reader_names
        self._writer_names = writer_names
        self._open: set[tuple[str, str]] = set()

    def compare(self, reader: Schema, writer: Schema, path: str) -> Iterator[Problem]:
        reader, writer = _resolve(reader, self._reader_names), _resolve(writer, self._writer_names)
        if isinstance(writer, list):
            for branch in writer:
                found = list(self.compare(reader, branch, path))
                if found and not _takes_kind(reader, _resolve(branch, self._writer_names), self._reader_names):
                    found = [Problem(path, f"{_changed(writer, reader)}: {_name(branch)} can no longer be read")]
                yield from found
        elif isinstance(reader, list):
            yield from self._compare_to_union(reader, writer, path)
        elif _kind(reader) == _kind(writer):
            yield from self._compare_same_kind(reader, writer, path)
        elif _kind(reader) not in _PROMOTIONS.get(_kind(writer), set()):
            yield Problem(path, _changed(writer, reader))

    def _compare_to_union(self, reader: list[Any], writer: Schema, path: str) -> Iterator[Problem]:
        """Any branch may do; when none does, the one of the writer's own kind tells best what is wrong."""
        telling = [Problem(path, _changed(writer, reader))]
        for branch in reader:
            found = list(self.compare(branch, writer, path))
            if not found:
                return
            if _kind(_resolve(branch, self._reader_names)) == _kind(writer):
                telling = found
        yield from telling

    def _compare_same_kind(self, reader: Schema, writer: Schema, path: str) -> Iterator[Problem]:
        if not isinstance(reader, dict) or not isinstance(writer, dict):  # plain names of primitive types
            return
        yield from _compare_meaning(reader, writer, path)
        match reader["type"]:
            case "array":
                yield from self.compare(reader["items"], writer["items"], f"{path}[]")
            case "map":
                yield from self.compare(reader["values"], writer["values"], f"{path}{{}}")
            case "enum" | "fixed" | "record" if not _same_name(reader, writer):
                yield Problem(
                    path, f"{reader['type']} renamed from {writer['name']} to {reader['name']} without an alias"
                )
            case "fixed" if reader["size"] != writer["size"]:
                yield Problem(path, f"size changed from {writer['size']} to {reader['size']} bytes")
            case "enum":
                gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                if gone and "default" not in reader:
                    yield Problem(path, f"enum {reader['name']} lost {', '.join(gone)} and has no default symbol")
            case "record":
                yield from self._compare_records(reader, writer, path)

    def _compare_records(self, reader: dict[str, Any], writer: dict[str, Any], path: str) -> Iterator[Problem]:
        pair = (reader["name"], writer["name"])
        if pair in self._open:
            return
        self._open.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            place = f"{path}.{field['name']}" if path else field["name"]
            names = [field["name"], *field.get("aliases", [])]
            source = next((written[name] for name in names if name in written), None)
            if source is not None:
                yield from self.compare(field["type"], source["type"], place)
            elif "default" not in field:
                yield Problem(place, "is new and has no default")
        self._open.remove(pair)


def _compare_meaning(reader: dict[str, Any], writer: dict[str, Any], path: str) -> Iterator[Problem]:
    """Bytes that can be read, but would mean something else: milliseconds as microseconds, cents as euros."""
    for key in ("logicalType", "precision", "scale"):
        if key in reader and key in writer and reader[key] != writer[key]:
            yield Problem(path, f"{key} changed from {writer[key]} to {reader[key]}")


def _resolve(schema: Schema, names: Names) -> Schema:
    """The definition behind a name; primitive types stay names unless they carry a meaning."""
    if isinstance(schema, str):
        return names.get(schema, schema)
    if isinstance(schema, dict) and isinstance(schema["type"], (dict, list)):
        return _resolve(schema["type"], names)
    return schema


def _kind(schema: Schema) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else schema


def _takes_kind(reader: Schema, writer: Schema, names: Names) -> bool:
    branches = reader if isinstance(reader, list) else [reader]
    return any(_kind(_resolve(branch, names)) == _kind(writer) for branch in branches)


def _same_name(reader: dict[str, Any], writer: dict[str, Any]) -> bool:
    """Names match without their namespace; an alias may have one or not."""
    short = writer["name"].rpartition(".")[2]
    return reader["name"].rpartition(".")[2] == short or bool({short, writer["name"]} & set(reader.get("aliases", [])))


def _changed(old: Schema, new: Schema) -> str:
    return f"type changed from {_name(old)} to {_name(new)}"


def _name(schema: Schema) -> str:
    """How a message calls a type."""
    if isinstance(schema, list):
        return " or ".join(_name(branch) for branch in schema)
    if isinstance(schema, str):
        return schema
    meaning = f" ({schema['logicalType']})" if "logicalType" in schema else ""
    return (f"{schema['type']} {schema['name']}" if "name" in schema else str(schema["type"])) + meaning
