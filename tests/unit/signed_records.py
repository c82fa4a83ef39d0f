"""Signed records, and those that pretend to be: a fleet's master, keys of its nodes, records as Kafka has them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from aiokafka.structs import ConsumerRecord

from schemas.codec import encode
from schemas.records import Heartbeat, ProbeResult
from schemas.signatures import HEADER, SigningKey, head, node_key, signed_bytes
from streams.core.signing import Keyring, Master
from streams.engine.transport import LOG_APPEND_TIME

START_MS = 1_767_225_600_000
MASTER = b"a master secret of more than 32 bytes"
KEYRING = Keyring({1: Master(MASTER)})
PROBE = ProbeResult("n", START_MS, "boot", 0, "p", "http", "s", "/", "eu", success=True, latency_us=9)
BEAT = Heartbeat("n", START_MS, "b", START_MS - 9, 0, 5_000, "UP", "eu-1", "eu-1a", "1", labels=(), heartbeat_seq=3)
TOPICS = {ProbeResult: "probe-results", Heartbeat: "heartbeats"}
Record: TypeAlias = ConsumerRecord[bytes, bytes]


def signature(
    said: ProbeResult | Heartbeat,
    signed_ms: int,
    *,
    by: str | None = None,
    master: bytes = MASTER,
    key_id: int = 1,
    topic: str | None = None,
) -> bytes:
    """Of a record by its own node, or `by` another one."""
    key, ahead = SigningKey(node_key(master, by or said.node_id)), head(key_id, signed_ms)
    who = (said.node_id.encode(), said.boot_id.encode(), said.seq)
    return ahead + key.tag(signed_bytes(ahead, (topic or TOPICS[type(said)]).encode(), who, encode(said)))


def logged(offset: int, said: ProbeResult | Heartbeat, at_ms: int, signed: bytes | None) -> Record:
    """As the broker has it, appended `at_ms` after START_MS."""
    value, headers = encode(said), () if signed is None else ((HEADER, signed),)
    key = said.node_id.encode()
    return ConsumerRecord(
        TOPICS[type(said)],
        0,
        offset,
        START_MS + at_ms,
        LOG_APPEND_TIME,
        key,
        value,
        None,
        len(key),
        len(value),
        headers,
    )


def genuine(offset: int, said: ProbeResult | Heartbeat, at_ms: int) -> Record:
    """Signed by its node a moment before it was appended."""
    return logged(offset, said, at_ms, signature(said, START_MS + at_ms - 20))


def again(offset: int, record: Record, at_ms: int) -> Record:
    """The same bytes, appended once more."""
    return replace(record, offset=offset, timestamp=START_MS + at_ms)


def results(count: int, *, node: str = "n", first: int = 0) -> Sequence[ProbeResult]:
    """Of one boot, in order."""
    return [replace(PROBE, node_id=node, seq=seq) for seq in range(first, first + count)]
