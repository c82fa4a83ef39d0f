"""A page for people out of a JSON Schema: every section with its keys, what each may be, and what it is without one."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "`null`",
}


def reference(schema: Schema, title: str) -> str:
    """Markdown. Each mapping is a section of its own, named by the way to it; `[]` stands for each one of a list."""
    lines = [f"# The file of {title}: every key", ""]
    lines += ["<!-- Made by `make reference` from the definition in the code: a test compares them. -->", ""]
    for place, section in _sections(schema):
        heading = [f"## `{place}`", ""] if place else []
        lines += [*heading, *_text(section), *_table(section, schema.get("$defs", {}))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _sections(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """(way, mapping) of all mappings with keys of their own, outer ones first; none is repeated."""
    definitions = schema.get("$defs", {})
    waiting, seen = [("", schema)], set()
    while waiting:
        place, section = waiting.pop(0)
        yield place, section
        inner = []
        for key, value in section.get("properties", {}).items():
            for below, name in _references(value):
                if name not in seen:
                    seen.add(name)
                    inner.append((f"{place}.{key}{below}".lstrip("."), definitions[name]))
        waiting = inner + waiting


def _references(value: Schema) -> Iterator[tuple[str, str]]:
    """("[]" for each level of lists, name) of the definitions that a value may be."""
    if "$ref" in value:
        yield "", value["$ref"].rpartition("/")[2]
    for branch in (*value.get("anyOf", ()), *value.get("oneOf", ()), *value.get("allOf", ())):
        yield from _references(branch)
    if isinstance(value.get("items"), Mapping):
        yield from ((f"[]{below}", name) for below, name in _references(value["items"]))


def _text(section: Schema) -> list[str]:
    text = section.get("description")
    return [*(line.strip() for line in text.splitlines()), ""] if text else []


def _table(section: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    keys = section.get("properties")
    if not keys:
        return
    yield from ("| key | may be | without it | |", "|---|---|---|---|")
    for key, value in keys.items():
        needed = key in section.get("required", ())
        cells = (
            f"`{key}`",
            _may_be(value, definitions),
            _default(value, needed=needed),
            value.get("description", ""),
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _default(value: Schema, *, needed: bool) -> str:
    if needed:
        return "**needed**"
    default = value.get("default")
    if default is None or isinstance(default, Mapping) or default in ("", []):
        return "—"
    return f"`{default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)}`"


def _may_be(value: Schema, definitions: Mapping[str, Schema]) -> str:
    branches = (*value.get("anyOf", ()), *value.get("oneOf", ()), *value.get("allOf", ()))
    if branches:
        return " or ".join(dict.fromkeys(_may_be(branch, definitions) for branch in branches))
    if "$ref" in value:
        definition = definitions[value["$ref"].rpartition("/")[2]]
        return "keys of its own, below" if "properties" in definition else _may_be(definition, definitions)
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    match value.get("type"):
        case "array":
            return f"list of {_may_be(value.get('items', {}), definitions)}"
        case "object":
            return f"mapping of names to {_may_be(value.get('additionalProperties') or {}, definitions)}"
        case kind:
            return f"{_WORDS[kind]}{_bounds(value)}" if kind in _WORDS else "anything"


def _bounds(value: Schema) -> str:
    least = value.get("minimum", value.get("exclusiveMinimum"))
    most = value.get("maximum", value.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in value else ""
    below = "below " if "exclusiveMaximum" in value else ""
    if least is not None and most is not None:
        return f", {above}{least:,} to {below}{most:,}"
    if least is not None:
        return f", {above or 'from '}{least:,}"
    return "" if most is None else f", {below or 'up to '}{most:,}"
