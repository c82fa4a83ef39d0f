"""A real Kafka broker on this machine: jars from Maven, one KRaft node, listening on 127.0.0.1 only."""

from infra.kafka.broker import LocalKafka
from infra.kafka.listeners import SecuredListeners

__all__ = ["LocalKafka", "SecuredListeners"]
