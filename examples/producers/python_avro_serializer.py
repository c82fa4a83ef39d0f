"""Writes one probe result with confluent-kafka's AvroSerializer, which asks a fleetbeat worker for the schema.

Run it: python python_avro_serializer.py 127.0.0.1:19092 http://127.0.0.1:8080
Needs:  pip install "confluent-kafka[avro,schemaregistry]"
"""

import sys
import time
import uuid
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

TOPIC = "probe-results"


def probe_result(node_id: str) -> dict[str, Any]:
    """A probe that took 48 ms and worked; fields left out take their defaults."""
    return {
        "node_id": node_id,
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


def main() -> None:
    """Sends the record and waits until the brokers have it."""
    brokers, registry_url = sys.argv[1:]
    record = probe_result(node_id="example-avro")
    # The worker's registry paths are read-only: nothing is registered, the latest schema is used.
    settings = {"auto.register.schemas": False, "use.latest.version": True}
    with SchemaRegistryClient({"url": registry_url}) as registry:
        serializer = AvroSerializer(registry, conf=settings)
        value = serializer(record, SerializationContext(TOPIC, MessageField.VALUE))

    # murmur2, as Java clients and fleetbeat's collectors: one node, one partition, whoever writes.
    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "partitioner": "murmur2_random"})
    producer.produce(TOPIC, key=record["node_id"].encode(), value=value, on_delivery=report)
    if producer.flush(30):
        sys.exit("not delivered within 30 s")


def report(error: object, message: Any) -> None:  # noqa: ANN401 - confluent-kafka ships no types
    """Called once the brokers have answered."""
    if error is not None:
        sys.exit(f"not delivered: {error}")
    print(f"{message.topic()} partition {message.partition()} offset {message.offset()}")  # noqa: T201


if __name__ == "__main__":
    main()
