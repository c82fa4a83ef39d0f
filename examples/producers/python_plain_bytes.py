"""Writes one probe result without an Avro library or a registry: the bytes are put together here, field by field.

Run it: python python_plain_bytes.py 127.0.0.1:19092
Needs:  pip install confluent-kafka   (any Kafka client does: key and value are plain bytes)
"""

import struct
import sys
import time
import uuid
from typing import Any

TOPIC = "probe-results"
SCHEMA_ID = 2  # probe-results version 1, see schemas/topics/probe-results.yaml


def long(number: int) -> bytes:
    """An int or a long: zigzag (0, -1, 1, -2 … become 0, 1, 2, 3 …), then seven bits a byte, the lowest first."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def text(string: str) -> bytes:
    """Length in bytes, then UTF-8."""
    encoded = string.encode()
    return long(len(encoded)) + encoded


def optional(field: bytes | None) -> bytes:
    """Null is branch 0 and nothing more; a value is branch 1 and then itself."""
    return long(0) if field is None else long(1) + field


def labels(pairs: dict[str, str]) -> bytes:
    """One block with its count and its items, then the count 0, which ends every array."""
    items = b"".join(text(key) + text(value) for key, value in pairs.items())
    return (long(len(pairs)) + items if pairs else b"") + long(0)


def probe_result(record: dict[str, Any]) -> bytes:
    """The framed record; fields stand in the order of the schema and carry no names."""
    body = b"".join(
        [
            text(record["node_id"]),
            long(record["ts"]),
            text(record["boot_id"]),
            long(record["seq"]),
            text(record["probe"]),
            text(record["kind"]),
            text(record["service"]),
            text(record["endpoint"]),
            text(record["region"]),
            b"\x01" if record["success"] else b"\x00",
            long(record["latency_us"]),
            *(optional_long(record.get(name)) for name in ("resolve_us", "connect_us", "tls_us")),
            *(optional_long(record.get(name)) for name in ("first_byte_us", "transfer_us", "status_code")),
            *(optional_text(record.get(name)) for name in ("error", "impact", "trace_id")),
            labels(record.get("labels", {})),
        ]
    )
    return struct.pack(">bI", 0, SCHEMA_ID) + body


def optional_long(number: int | None) -> bytes:
    """A union of null and long (or int, which looks the same)."""
    return optional(None if number is None else long(number))


def optional_text(string: str | None) -> bytes:
    """A union of null and string."""
    return optional(None if string is None else text(string))


def main() -> None:
    """Sends the record and waits until the brokers have it."""
    from confluent_kafka import Producer  # noqa: PLC0415 - only sending needs a client

    record: dict[str, Any] = {
        "node_id": "example-plain",
        "ts": time.time_ns() // 1_000_000,
        "boot_id": uuid.uuid4().hex[:16],
        "seq": 0,
        "probe": "checkout-http",
        "kind": "http",
        "service": "checkout",
        "endpoint": "/pay",
        "region": "eu-1",
        "success": True,
        "latency_us": 48_211,
        "status_code": 200,
    }
    # murmur2, as Java clients and fleetbeat's collectors: one node, one partition, whoever writes.
    producer = Producer({"bootstrap.servers": sys.argv[1], "acks": "all", "partitioner": "murmur2_random"})
    producer.produce(TOPIC, key=record["node_id"].encode(), value=probe_result(record), on_delivery=report)
    if producer.flush(30):
        sys.exit("not delivered within 30 s")


def report(error: object, message: Any) -> None:  # noqa: ANN401 - confluent-kafka ships no types
    """Called once the brokers have answered."""
    if error is not None:
        sys.exit(f"not delivered: {error}")
    print(f"{message.topic()} partition {message.partition()} offset {message.offset()}")  # noqa: T201


if __name__ == "__main__":
    main()
