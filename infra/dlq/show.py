"""One letter in full: its fields as far as they can be read, and what would bring it back. Pure."""

import base64
from typing import Any

from infra.dlq.corrections import Corrections, Left, Ready, judge
from infra.dlq.dissect import Dissection, dissect, name_of
from infra.dlq.letters import Origin
from infra.dlq.log import LetterAt, Notes
from infra.dlq.words import hex_dump, key_text, moment, plain
from schemas.records import DeadLetter


def as_lines(at: LetterAt, notes: Notes) -> list[str]:
    """The letter for people."""
    letter = at.letter
    origin = Origin.of(letter)
    anatomy = None if letter.value is None else dissect(letter.topic, letter.value)
    rows = [
        ("reason", f"{plain(letter.reason)}: {plain(letter.detail)}"),
        ("appended", moment(letter.append_ts)),
        ("detected", f"{moment(at.told_ms)} by {plain(letter.detected_by)}"),
        ("key", plain(key_text(letter.key))),
        ("value", _size(letter)),
        ("schema", _schema(anatomy)),
        ("replay", _replay(origin, notes)),
    ]
    lines = [plain(origin.place), *(f"  {name:<9} {text}" for name, text in rows)]
    if anatomy is not None and letter.value is not None:
        lines += _fields(anatomy, letter.value)
    if origin not in notes.done:
        lines.append(f"  to replay it: {way_back(letter)}")
    return lines


def as_json(at: LetterAt, notes: Notes) -> dict[str, Any]:
    """The letter for programs; bytes in base64."""
    letter = at.letter
    origin = Origin.of(letter)
    anatomy = None if letter.value is None else dissect(letter.topic, letter.value)
    found: dict[str, Any] = {
        "origin": origin.place,
        "append_ms": letter.append_ts,
        "detected_ms": at.told_ms,
        "detected_by": letter.detected_by,
        "reason": letter.reason,
        "detail": letter.detail,
        "value_bytes": letter.value_bytes,
        "key_base64": _base64(letter.key),
        "value_base64": _base64(letter.value),
        "replay": _replay(origin, notes),
    }
    if anatomy is not None:
        stop = anatomy.stop
        found |= {
            "schema_id": anatomy.schema_id,
            "schema": None if anatomy.schema is None else name_of(anatomy.schema),
            "schema_guessed": anatomy.guessed,
            "fields": {field.path: field.text for field in anatomy.fields},
            "stop": None if stop is None else {"byte": stop.at, "field": stop.path, "why": stop.why},
        }
    return found


def way_back(letter: DeadLetter) -> str:
    """The arguments with which the letter can go back, or why there are none."""
    origin = Origin.of(letter)
    verdict = judge([letter], Corrections(), {})[0]
    for corrections, arguments in _tries(letter):
        match judge([letter], corrections, {})[0]:
            case Ready():
                return " ".join(["fleetbeat dlq replay", plain(origin.place), *arguments])
            case _:
                continue
    return f"no way: {plain(verdict.detail)}" if isinstance(verdict, Left) else "no way"


def _tries(letter: DeadLetter) -> list[tuple[Corrections, list[str]]]:
    """As it is; with the schema that fits instead of an unknown one; under the key that the record names; both."""
    anatomy = None if letter.value is None else dissect(letter.topic, letter.value)
    ids: dict[int, int] = {}
    arguments: list[str] = []
    if anatomy is not None and anatomy.guessed and anatomy.schema is not None and anatomy.schema_id is not None:
        ids = {anatomy.schema_id: anatomy.schema.id}
        arguments = ["--schema-id", f"{anatomy.schema_id}={anatomy.schema.id}"]
    return [
        (Corrections(), []),
        (Corrections(ids), arguments),
        (Corrections({}, key_from_node_id=True), ["--key-from-node-id"]),
        (Corrections(ids, key_from_node_id=True), [*arguments, "--key-from-node-id"]),
    ]


def _size(letter: DeadLetter) -> str:
    if letter.value is None:
        return "none"
    kept = len(letter.value)
    return f"{kept:,} bytes" if kept == letter.value_bytes else f"the first {kept:,} of {letter.value_bytes:,} bytes"


def _schema(anatomy: Dissection | None) -> str:
    if anatomy is None:
        return "none"
    if anatomy.schema_id is None:
        return "no frame"
    if anatomy.schema is None:
        return f"id {anatomy.schema_id}, which is none of ours"
    if anatomy.guessed:
        return f"id {anatomy.schema_id} is none of ours; reads as {name_of(anatomy.schema)}, id {anatomy.schema.id}"
    return f"id {anatomy.schema_id}, {name_of(anatomy.schema)}"


def _replay(origin: Origin, notes: Notes) -> str:
    note = notes.done.get(origin)
    if note is not None:
        changed = f"; {plain(note.correction)}" if note.correction else ""
        return f"went back to {plain(note.topic)}/{note.target_partition}/{note.target_offset}{changed}"
    return "begun and cut short; the next replay finds out" if origin in notes.begun else "not yet"


def _fields(anatomy: Dissection, value: bytes) -> list[str]:
    width = max((len(field.path) for field in anatomy.fields), default=0)
    lines = [f"    {field.path:<{width}}  {plain(field.text)}" for field in anatomy.fields]
    if lines:
        lines.insert(0, "  fields")
    if anatomy.stop is not None:
        where = f" in {anatomy.stop.path}" if anatomy.stop.path else ""
        lines.append(f"  stops at byte {anatomy.stop.at}{where}: {plain(anatomy.stop.why)}")
        lines += [f"    {line}" for line in hex_dump(value, anatomy.stop.at)]
    return lines


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
