"""How every command reaches Kafka: addresses, and what proves who is at either end."""

from schemas.kafka.brokers import Brokers, Sasl, SecuredBrokers, Security, Tls, client_settings

__all__ = ["Brokers", "Sasl", "SecuredBrokers", "Security", "Tls", "client_settings"]
