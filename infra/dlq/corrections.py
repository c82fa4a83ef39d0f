"""What may be changed in a letter before it goes back, and whether it can be read then. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from infra.dlq.letters import AskedWronglyError, Origin
from schemas.blocks import BlockReader
from schemas.codec import DecodeError, frame, read_body, split_frame, writer_of
from schemas.dead_letters import MAX_KEPT_KEY_BYTES, UNREADABLE_BATCH
from schemas.records import DeadLetter, DeadLetterReplay
from schemas.rules import KEYED_BY_NODE

_PAIR = re.compile(r"(\d{1,10})=(\d{1,10})")
_MAX_ID = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Corrections:
    """What was asked for: other schema ids, by the one in the frame, and the key that the record itself names."""

    schema_ids: Mapping[int, int] = field(default_factory=dict)
    key_from_node_id: bool = False

    @classmethod
    def parse(cls, pairs: Sequence[str], *, key_from_node_id: bool) -> "Corrections":
        """From the command line's `901=2`. Raises AskedWronglyError."""
        ids: dict[int, int] = {}
        for pair in pairs:
            match = _PAIR.fullmatch(pair)
            if match is None or max(int(match[1]), int(match[2])) > _MAX_ID:
                raise AskedWronglyError(f"--schema-id {pair!r}: expected FOUND=RIGHT, as in 901=2")
            found, right = int(match[1]), int(match[2])
            try:
                writer_of(right)
            except DecodeError as cause:
                raise AskedWronglyError(f"--schema-id {pair!r}: {cause.detail}") from None
            if ids.setdefault(found, right) != right:
                raise AskedWronglyError(f"--schema-id {pair!r}: {found} was already to become {ids[found]}")
        return cls(ids, key_from_node_id)


@dataclass(frozen=True, slots=True)
class Ready:
    """Can go back: `correction` says what was changed, and is empty when nothing was."""

    origin: Origin
    key: bytes | None
    value: bytes
    correction: str


@dataclass(frozen=True, slots=True)
class Before:
    """Went back earlier."""

    origin: Origin
    note: DeadLetterReplay


@dataclass(frozen=True, slots=True)
class Left:
    """Cannot go back; `reason` is a tag, `detail` is for people."""

    origin: Origin
    reason: str
    detail: str


Verdict = Ready | Before | Left


def judge(
    letters: Sequence[DeadLetter], corrections: Corrections, done: Mapping[Origin, DeadLetterReplay]
) -> list[Verdict]:
    """What becomes of each letter, in their order. Reads the corrected records as the worker would."""
    verdicts = [_corrected(letter, corrections, done) for letter in letters]
    ready: dict[str, list[int]] = {}
    for row, verdict in enumerate(verdicts):
        if isinstance(verdict, Ready):
            ready.setdefault(verdict.origin.topic, []).append(row)
    for topic, rows in ready.items():
        chosen = [verdict for row in rows if isinstance(verdict := verdicts[row], Ready)]
        block = _reader(topic).read([each.key for each in chosen], [each.value for each in chosen])
        for reject in block.rejects:
            verdicts[rows[reject.row]] = Left(chosen[reject.row].origin, reject.reason, reject.detail)
    return verdicts


def _without_value(origin: Origin, reason: str) -> Left:
    if reason == UNREADABLE_BATCH:
        return Left(origin, reason, "its records are in Kafka only, until its retention ends")
    return Left(origin, "empty", "the record had no value")


def _corrected(letter: DeadLetter, corrections: Corrections, done: Mapping[Origin, DeadLetterReplay]) -> Verdict:
    origin = Origin.of(letter)
    if origin in done:
        return Before(origin, done[origin])
    if letter.topic not in KEYED_BY_NODE:
        return Left(origin, "not-a-producers", f"only {' and '.join(sorted(KEYED_BY_NODE))} can be replayed")
    if letter.value is None:
        return _without_value(origin, letter.reason)
    if letter.value_bytes > len(letter.value):
        kept = f"the letter keeps {len(letter.value):,} of {letter.value_bytes:,} bytes"
        return Left(origin, "cut", kept)
    value, changes = _with_schema_id(letter.value, corrections.schema_ids)
    key = letter.key
    said = _node_id(letter.topic, value) if corrections.key_from_node_id else None
    if said is not None and said != key:
        key = said
        changes = [*changes, "key from node_id"]
    if key == letter.key and key is not None and len(key) >= MAX_KEPT_KEY_BYTES:
        return Left(origin, "cut", f"the letter keeps {len(key):,} bytes of the key")
    return Ready(origin, key, value, ", ".join(changes))


def _with_schema_id(value: bytes, ids: Mapping[int, int]) -> tuple[bytes, list[str]]:
    try:
        found, body = split_frame(value)
    except DecodeError:
        return value, []
    right = ids.get(found, found)
    return (value, []) if right == found else (frame(right, body), [f"schema id {found} to {right}"])


def _node_id(topic: str, value: bytes) -> bytes | None:
    """The node that the record speaks for; None when it cannot be read, which the block reader will put into words."""
    try:
        schema_id, body = split_frame(value)
        owner, version = writer_of(schema_id)
        if owner.name != topic:
            return None
        return str(read_body(version, owner.latest, body)["node_id"]).encode()
    except DecodeError:
        return None


@cache
def _reader(topic: str) -> BlockReader:
    return BlockReader(topic)
