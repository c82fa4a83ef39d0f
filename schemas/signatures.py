"""A node's signature below one of its records, in a header: the bytes, the keys, and how both sides make them.

Pure, and light to import: it is loaded on every host that signs. docs/producing.md describes the bytes for other
languages, with an example that a test holds.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from functools import cache

from schemas.catalog import load_topic
from schemas.codec import FRAME_BYTES

HEADER = "fb-sig"
VERSION = 1
TAG_BYTES = 16
KEY_BYTES = 32
MAX_KEY_ID = (1 << 32) - 1
# A record is signed anew whenever it is sent, so its signature is as old as its way to the broker is long.
MAX_AGE_MS = 60_000

_AHEAD = struct.Struct(">BIq")  # version, key id, when it was signed
SIGNATURE_BYTES = _AHEAD.size + TAG_BYTES
_LENGTH = struct.Struct(">I")
_SEQ = struct.Struct(">q")
_NODE_KEY = b"fleetbeat node key 1\0"
_BLOCK = 64  # of SHA-256
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who says a record, and which of its boot's it is."""

    node_id: str
    boot_id: str
    seq: int


def node_key(master: bytes, node_id: str) -> bytes:
    """The key of one node: whoever has the master has them all, and one key says nothing about another."""
    return hmac.digest(master, _NODE_KEY + node_id.encode(), "sha256")


class SigningKey:
    """A node's key, ready to sign: HMAC-SHA256 (RFC 2104) with its two padded keys made once."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK, b"\0")
        self._inner, self._outer = padded.translate(_INNER), padded.translate(_OUTER)

    def tag(self, said: bytes) -> bytes:
        """The first TAG_BYTES of the HMAC of what `signed_bytes` gives."""
        inner = hashlib.sha256(self._inner + said).digest()
        return hashlib.sha256(self._outer + inner).digest()[:TAG_BYTES]


def head(key_id: int, signed_ms: int) -> bytes:
    """What the header's value begins with."""
    return _AHEAD.pack(VERSION, key_id, signed_ms)


def parse_head(signature: bytes) -> tuple[int, int] | None:
    """(key id, when it was signed) of a header's value; None for what is no signature."""
    if len(signature) != SIGNATURE_BYTES or signature[0] != VERSION:
        return None
    _, key_id, signed_ms = _AHEAD.unpack_from(signature)
    return key_id, signed_ms


def signed_bytes(ahead: bytes, topic: bytes, who: tuple[bytes, bytes, int], value: bytes) -> bytes:
    """What the tag is of: `ahead` (see `head`), topic, node id, boot id, seq and value, each text with its length.

    `who`: node id, boot id and seq as in the value. No two different records come to the same bytes.
    """
    node, boot, seq = who
    size = _LENGTH.pack
    return b"".join((
        *(ahead, size(len(topic)), topic, size(len(node)), node, size(len(boot)), boot),
        *(_SEQ.pack(seq), size(len(value)), value),
    ))  # fmt: skip


def sign(key: SigningKey, ahead: bytes, topic: str, value: bytes) -> bytes:
    """The header's value for a framed record of the topic. Raises ValueError for what is no record of it."""
    who = identity_of(topic, value)
    said = signed_bytes(ahead, topic.encode(), (who.node_id.encode(), who.boot_id.encode(), who.seq), value)
    return ahead + key.tag(said)


def identity_of(topic: str, value: bytes) -> Identity:
    """Read off a framed value without decoding what comes behind. Raises ValueError."""
    kinds = _ahead_of_seq(topic).get(value[:FRAME_BYTES])
    if kinds is None:
        raise ValueError(f"a value that begins with {value[:FRAME_BYTES].hex()}; expected a record of {topic}")
    found: dict[str, bytes | int] = {}
    at = FRAME_BYTES
    try:
        for name, is_text in kinds:
            number, at = _varint(value, at)
            if is_text:
                found[name], at = value[at : at + number], at + number
            else:
                found[name] = number
    except IndexError:
        raise ValueError(f"a value of {len(value)} bytes that ends inside a field; expected a record") from None
    node, boot = (str(found[name], "utf-8") for name in ("node_id", "boot_id"))  # type: ignore[arg-type]
    return Identity(node, boot, int(found["seq"]))


@cache
def _ahead_of_seq(topic: str) -> dict[bytes, list[tuple[str, bool]]]:
    """By frame: (name, whether a text) of the fields up to `seq`, which are all texts or whole numbers."""
    found = {}
    for version in load_topic(topic).versions:
        kinds = []
        for field in version.parsed["fields"]:
            kind = field["type"]
            kind = kind["type"] if isinstance(kind, dict) else kind
            if kind not in ("string", "long", "int"):  # it may be a list
                raise ValueError(f"{topic}: field {field['name']} is {kind}; expected texts and numbers ahead of seq")
            kinds.append((field["name"], kind == "string"))
            if field["name"] == "seq":
                break
        found[b"\0" + version.id.to_bytes(4, "big")] = kinds
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and the place behind it. Raises IndexError."""
    coded = shift = 0
    while True:
        byte = data[at]
        coded |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:  # noqa: PLR2004 - the highest bit says that more follows
            return (coded >> 1) ^ -(coded & 1), at
