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


class BrokersError(ValueError):
    """--brokers cannot be meant."""


def check_typed(brokers: str | None) -> None:
    """Nothing that was typed counts as not typed: a variable of a script may be empty. Raises BrokersError."""
    from schemas.kafka.settings import check_addresses  # noqa: PLC0415 - not for --help

    try:
        if brokers is not None:
            check_addresses(brokers)
    except ValueError:
        raise BrokersError(f"--brokers {brokers!r}: expected HOST:PORT, or several with commas between") from None


def reach(brokers: str | None, config: Path | None) -> Brokers:
    """Where and how.

    Raises BrokersError, DocumentError, and SecretFileError or CertificateError for files named in the file.
    """
    check_typed(brokers)
    if config is None:
        return brokers or LOCAL_KAFKA
    from schemas.documents import load_document  # noqa: PLC0415 - only with a file
    from schemas.kafka.settings import KafkaConfigFile  # noqa: PLC0415 - as above

    file = load_document(config, KafkaConfigFile)
    return file.at(brokers or file.brokers or LOCAL_KAFKA)
