"""Records that nobody can use, with the reason that their dead letters must give."""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.codec import encode, frame
from schemas.records import Heartbeat, ProbeResult
from tests.integration.worker_process import now_ms, probe_result

MANY = 1 << 62
BOOT_MS = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class Poison:
    """`name` says what it is; the other fields are the record."""

    name: str
    topic: str
    key: bytes | None
    value: bytes | None
    why: str


def heartbeat(**fields: int | str) -> Heartbeat:
    """One heartbeat of a guest, changed by `fields`."""
    now = now_ms()
    usual: dict[str, int | str] = {
        "node_id": "guest-0",
        "ts": now,
        "boot_id": "boot",
        "boot_ts": BOOT_MS,
        "seq": 0,
        "interval_ms": 1_000,
        "state": "UP",
        "region": "eu-1",
        "zone": "guests",
        "agent_version": "1",
    }
    return Heartbeat(**{**usual, **fields})  # type: ignore[arg-type]


def poisons() -> Iterator[Poison]:
    """Every kind for both topics; nodes `guest-N` are victims and culprits."""
    result, beat = probe_result(node_id="guest-1"), heartbeat(node_id="guest-1")
    yield from _frames("probe-results", result, encode(beat))
    yield from _frames("heartbeats", beat, encode(result))
    for name, fields in (
        ("a negative latency", {"latency_us": -1}),
        ("a latency without end", {"latency_us": (1 << 63) - 1}),
        ("no service", {"service": ""}),
        ("a long name", {"region": "r" * 300}),
        ("a negative number", {"seq": -1}),
    ):
        value = encode(probe_result(node_id="guest-1", **fields))
        yield Poison(name, "probe-results", b"guest-1", value, "invalid-value")
    yield Poison(
        "no interval", "heartbeats", b"guest-1", encode(heartbeat(node_id="guest-1", interval_ms=0)), "invalid-value"
    )


def _frames(topic: str, record: ProbeResult | Heartbeat, foreign: bytes) -> Iterator[Poison]:
    key, value = record.node_id.encode(), encode(record)
    schema_id, body = int.from_bytes(value[1:5], "big"), value[5:]
    for name, bad_key, bad_value, why in (
        ("truncated", key, value[:-4], "truncated"),
        ("an unknown schema", key, frame(999, body), "unknown-schema"),
        ("another topic's schema", key, foreign, "unknown-schema"),
        ("trailing bytes", key, value + b"\0", "trailing-bytes"),
        # The next message has the key that the second record claims; or no body, so that the count fits again.
        ("a second record in one body", key, value + body, "trailing-bytes"),
        ("another second record", key, value + body, "trailing-bytes"),
        ("no body", key, value[:5], "truncated"),
        ("somebody else's key", b"guest-2", value, "key-mismatch"),
        ("no key", None, value, "key-mismatch"),
        ("nothing", key, None, "empty"),
        ("no frame", key, b'{"node_id": "guest-1"}', "bad-frame"),
        ("an array that says it is endless", key, frame(schema_id, _endless(topic, body)), "truncated"),
        ("deep nesting", key, frame(schema_id, b"\x02" * 200_000), "truncated"),
        ("24 MiB of zeros", key, bytes(24 << 20), "too-large"),
        ("64 MiB of zeros", key, bytes(64 << 20), "unreadable-batch"),
    ):
        yield Poison(name, topic, bad_key, bad_value, why)


def _endless(topic: str, body: bytes) -> bytes:
    """With a count of 2**62 labels, and none."""
    tail = 1 if topic == "probe-results" else 5  # in heartbeats four nulls follow: number, spool, config, source
    return body[:-tail] + _long(MANY)


def _long(number: int) -> bytes:
    """As Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
