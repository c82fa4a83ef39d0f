"""The file of --kafka-config, as `fleetbeat check` knows it."""

from pathlib import Path

from schemas.checking import FileKind
from schemas.documents import load_document
from schemas.kafka.settings import KafkaConfigFile, described


def _security(path: Path) -> str:
    return described(load_document(path, KafkaConfigFile))


KINDS = (
    FileKind("kafka", "TLS and the user for Kafka", frozenset({"tls", "sasl"}), _security, lambda: KafkaConfigFile),
)
