"""What the worker's and the archive's file both have: Kafka, addresses, servers with passwords, the log's level."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.kafka import Brokers
from schemas.kafka.option import LOCAL_KAFKA, check_typed, reach
from schemas.kafka.settings import FilePath, SecurityFile, check_addresses
from schemas.listen import listen_address
from schemas.secret_files import read_secret

LogLevel = Literal["debug", "info", "warning", "error"]


def says(text: str) -> Any:  # noqa: ANN401 - pydantic's own word for it
    """What the reference and editors say of a key."""
    return Field(description=text)


class Strict(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _check_listen(text: str) -> str:
    listen_address(text)
    return text


Listen = Annotated[str, AfterValidator(_check_listen)]


class KafkaFile(SecurityFile):
    """Where Kafka is, and how connections to it are secured: here, or in a file that other commands use too."""

    brokers: Annotated[
        Annotated[str, AfterValidator(check_addresses)] | None,
        says(f"HOST:PORT, several separated by commas; without it those of `config`, else {LOCAL_KAFKA}."),
    ] = None
    config: Annotated[FilePath | None, says("The file of --kafka-config, instead of `tls` and `sasl` here.")] = None

    @model_validator(mode="after")
    def _says_it_once(self) -> Self:
        if self.config is not None and (self.tls is not None or self.sasl is not None):
            raise ValueError("config beside tls or sasl; expected one of them")
        return self

    def reach(self, brokers: str | None, config: Path | None) -> Brokers:
        """Kafka as the command line says, and where that says nothing as this section does.

        Raises BrokersError, DocumentError, SecretFileError, CertificateError.
        """
        check_typed(brokers)
        addresses = brokers or self.brokers
        file = config or (None if self.config is None else Path(self.config))
        return self.at(addresses or LOCAL_KAFKA) if file is None else reach(addresses, file)


def check_url(text: str) -> str:
    """The text, when it is the URL of ClickHouse without a password. Raises ValueError."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as cause:
        raise ValueError(f"{cause}; expected http://HOST:PORT") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT, perhaps with USER@")
    if parts.password is not None:
        raise ValueError("a password in it; expected it in a file of its own, which password_file names")
    return text


Url = Annotated[str, AfterValidator(check_url)]


def with_password(url: str, password_file: str | None, key: str) -> str:
    """The URL with what the file holds. Raises SecretFileError, which names the key."""
    if password_file is None:
        return url
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    password = quote(read_secret(Path(password_file), key), safe="")
    return parts._replace(netloc=f"{user}:{password}@{place}").geturl()


def check_login(url: str | None, password_file: str | None) -> None:
    """Raises ValueError when there is a password and nobody whose it is."""
    if password_file is not None and (url is None or urlsplit(url).username is None):
        raise ValueError("password_file without a user; expected url http://USER@HOST:PORT")


def given(section: BaseModel, names: Mapping[str, str]) -> dict[str, Any]:
    """What was written below a key, by the names that options have for it."""
    return {names[key]: getattr(section, key) for key in section.model_fields_set if key in names}
