"""Counts the requests of a service and writes what it has counted in a second, with a histogram of the latencies.

Run it: python python_request_counts.py 127.0.0.1:19092
Needs:  pip install confluent-kafka fastavro
"""

import io
import json
import math
import struct
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_writer

TOPIC = "request-counts"
SCHEMA_ID = 11  # request-counts version 1, see schemas/topics/request-counts.yaml
AVSC = Path(__file__).parents[2] / "schemas" / "avro" / "request_count.v1.avsc"
WINDOW_MS = 1_000


def bucket_of(latency_us: int) -> int:
    """Each bucket reaches 2 % further than the one before it, so whatever is in one is known within 1 %."""
    return 0 if latency_us == 0 else 1 + math.ceil(math.log(latency_us, 1.02))


class Window:
    """What ended within one window. A service keeps one for each endpoint, and begins a new one each second."""

    def __init__(self, began_ms: int) -> None:
        self.began_ms = began_ms
        self.sum_us = 0
        self.max_us = 0
        self.total: Counter[int] = Counter()
        self.good: Counter[int] = Counter()

    def observe(self, latency_us: int, *, succeeded: bool) -> None:
        """A request has ended."""
        bucket = bucket_of(latency_us)
        self.total[bucket] += 1
        self.good[bucket] += succeeded
        self.sum_us += latency_us
        self.max_us = max(self.max_us, latency_us)

    def fields(self) -> dict[str, Any]:
        """The counts as the record has them."""
        return {
            "ts": self.began_ms,
            "window_ms": WINDOW_MS,
            "total": self.total.total(),
            "good": self.good.total(),
            "sum_us": self.sum_us,
            "max_us": self.max_us,
            "histogram": [{"bucket": b, "total": n, "good": self.good[b]} for b, n in sorted(self.total.items())],
        }


def request_count(record: dict[str, Any]) -> bytes:
    """The framed record."""
    body = io.BytesIO()
    schemaless_writer(body, parse_schema(json.loads(AVSC.read_text(encoding="utf-8"))), record)
    return struct.pack(">bI", 0, SCHEMA_ID) + body.getvalue()


def main() -> None:
    """Counts some requests, sends the record and waits until the brokers have it."""
    from confluent_kafka import Producer  # noqa: PLC0415 - only sending needs a client

    window = Window(time.time_ns() // 1_000_000 // WINDOW_MS * WINDOW_MS - WINDOW_MS)
    for number in range(100):
        window.observe(20_000 + 1_000 * number, succeeded=number % 10 > 0)
    record = {
        "node_id": "example-counts",
        "boot_id": uuid.uuid4().hex[:16],
        "seq": 0,
        "service": "checkout",
        "endpoint": "/pay",
        "region": "eu-1",
        **window.fields(),
        "labels": [],
    }
    # murmur2, as Java clients and fleetbeat's collectors: one node, one partition, whoever writes.
    producer = Producer({"bootstrap.servers": sys.argv[1], "acks": "all", "partitioner": "murmur2_random"})
    producer.produce(TOPIC, key=record["node_id"].encode(), value=request_count(record), on_delivery=report)
    if producer.flush(30):
        sys.exit("not delivered within 30 s")


def report(error: object, message: Any) -> None:  # noqa: ANN401 - confluent-kafka ships no types
    """Called once the brokers have answered."""
    if error is not None:
        sys.exit(f"not delivered: {error}")
    print(f"{message.topic()} partition {message.partition()} offset {message.offset()}")  # noqa: T201


if __name__ == "__main__":
    main()
