"""--brokers and --kafka-config, which every command that talks to Kafka has. Light: every --help comes by here."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schemas.kafka.brokers import Brokers

LOCAL_KAFKA = "127.0.0.1:19092"
VARIABLE = "FLEETBEAT_KAFKA_CONFIG"

BrokersOption = Annotated[
    str | None,
    Parameter(
        help="Kafka's addresses, HOST:PORT, separated by commas; without it those of --kafka-config, else "
        f"{LOCAL_KAFKA}.",
        show_default=False,
    ),
]
KafkaConfigOption = Annotated[
    Path | None, Parameter(help="A YAML file with TLS and the user for Kafka.", env_var=VARIABLE)
]


def reach(brokers: str | None, config: Path | None) -> Brokers:
    """Where and how. Raises DocumentError, and SecretFileError or CertificateError for files named in the file."""
    if config is None:
        return brokers or LOCAL_KAFKA
    from schemas.documents import load_document  # noqa: PLC0415 - only with a file
    from schemas.kafka.settings import KafkaConfigFile  # noqa: PLC0415 - as above

    file = load_document(config, KafkaConfigFile)
    return file.at(brokers or file.brokers or LOCAL_KAFKA)
