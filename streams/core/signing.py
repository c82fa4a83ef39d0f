"""Whether records are their nodes' own: signatures against keys, each record judged by itself.

A verdict depends on the record, its append time and the keys alone: whoever reads the log again finds the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from typing import NamedTuple

from schemas.signatures import (
    MAX_AGE_MS,
    SIGNATURE_BYTES,
    TAG_BYTES,
    VERSION,
    SigningKey,
    head,
    node_key,
    parse_head,
    signed_bytes,
)

# Keys that are kept ready, some 400 bytes each. The key of one more node costs as much as a record.
MOST_KEYS = 131_072


class Doubt(StrEnum):
    """Why a record is not taken; reasons of dead letters and of metrics."""

    UNSIGNED = "unsigned"
    BAD = "bad-signature"
    UNKNOWN_KEY = "unknown-signing-key"
    RETIRED_KEY = "retired-signing-key"
    REVOKED = "revoked-node"
    STALE = "stale-signature"
    REPLAYED = "replayed"


class Finding(NamedTuple):
    """What is wrong with one record."""

    doubt: Doubt
    detail: str


@dataclass(frozen=True, slots=True)
class Master:
    """The secret that keys of nodes are made of; none is good for records appended at `until_ms` or later."""

    secret: bytes = field(repr=False)
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Keyring:
    """Masters by key id; and from which append time on the records of a node are refused."""

    masters: Mapping[int, Master]
    revoked: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signed:
    """Readable records of one topic, an item each; `signatures`: the header's value, b"" for several of them."""

    signatures: Sequence[bytes | None]
    node_ids: Sequence[str]
    boot_ids: Sequence[str]
    seqs: Sequence[int]
    values: Sequence[bytes]
    append_ms: Sequence[int]


class Verifier:
    """Judges records of one topic; used by one thread.

    This is the slow path, some microseconds of Python a record: there is no HMAC of many messages at once.
    """

    def __init__(self, topic: str, keyring: Keyring) -> None:
        self._topic = topic.encode()
        self._keyring = keyring
        self._keys: dict[tuple[int, str], SigningKey] = {}

    def follow(self, keyring: Keyring) -> None:
        """From the next record on these are the keys."""
        if keyring is not self._keyring:
            self._keyring, self._keys = keyring, {}

    def judge(self, records: Signed) -> Iterator[Finding | None]:
        """For each record what is wrong with it; None for nothing."""
        columns = (records.signatures, records.node_ids, records.boot_ids, records.seqs)
        for signature, node, boot, seq, value, append_ms in zip(
            *columns, records.values, records.append_ms, strict=True
        ):
            if signature is None:
                yield Finding(Doubt.UNSIGNED, "no header fb-sig; expected one")
            else:
                yield self._judge(signature, (node, boot, seq), value, append_ms)

    def _judge(self, signature: bytes, who: tuple[str, str, int], value: bytes, append_ms: int) -> Finding | None:
        parsed = parse_head(signature)
        if parsed is None:
            found = f"{len(signature)} bytes that begin with {signature[:1].hex() or 'nothing'}"
            return Finding(Doubt.BAD, f"header of {found}; expected one of {SIGNATURE_BYTES}, version {VERSION}")
        key_id, signed_ms = parsed
        node, boot, seq = who
        master = self._keyring.masters.get(key_id)
        if master is None:
            known = sorted(self._keyring.masters)
            return Finding(Doubt.UNKNOWN_KEY, f"key id {key_id}; expected one of {known}")
        key = self._keys.get((key_id, node)) or self._make_key(key_id, node, master)
        said = signed_bytes(head(key_id, signed_ms), self._topic, (node.encode(), boot.encode(), seq), value)
        if not compare_digest(key.tag(said), signature[-TAG_BYTES:]):
            return Finding(Doubt.BAD, f"not signed with the key of {node[:100]!r} (key id {key_id})")
        return self._judge_time(key_id, node, signed_ms, append_ms)

    def _judge_time(self, key_id: int, node: str, signed_ms: int, append_ms: int) -> Finding | None:
        """Of a record that its node has signed."""
        until_ms = self._keyring.masters[key_id].until_ms
        if until_ms is not None and append_ms >= until_ms:
            return Finding(Doubt.RETIRED_KEY, f"key id {key_id} at {append_ms}; expected before {until_ms}")
        since_ms = self._keyring.revoked.get(node)
        if since_ms is not None and append_ms >= since_ms:
            return Finding(Doubt.REVOKED, f"{node[:100]!r} is revoked from {since_ms} on")
        if abs(append_ms - signed_ms) > MAX_AGE_MS:
            return Finding(
                Doubt.STALE,
                f"signed at {signed_ms}, appended at {append_ms}: {(append_ms - signed_ms) / 1_000:.3f} s later; "
                f"expected at most {MAX_AGE_MS // 1_000} s either way (an old record, or the node's clock is wrong)",
            )
        return None

    def _make_key(self, key_id: int, node: str, master: Master) -> SigningKey:
        if len(self._keys) >= MOST_KEYS:
            self._keys.clear()
        key = self._keys[key_id, node] = SigningKey(node_key(master.secret, node))
        return key
