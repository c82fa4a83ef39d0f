"""Addresses of Kafka with or without security, and what aiokafka's clients are told about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.secret_files import read_secret


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM; without `ca_file` the system's authorities vouch for brokers. Names are always verified."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Sasl:
    """Who logs in, and the file with the password."""

    mechanism: str
    user: str
    password_file: Path


@dataclass(frozen=True, slots=True)
class Security:
    """What of the two is used. It holds names of files, never a secret, so it may stand in any log."""

    tls: Tls | None = None
    sasl: Sasl | None = None

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    @property
    def principal(self) -> str:
        """Who we are, as far as this side knows."""
        if self.sasl is not None:
            return f"User:{self.sasl.user}"
        return "our certificate's principal" if self.tls and self.tls.cert_file else "User:ANONYMOUS"

    def at(self, addresses: str) -> "SecuredBrokers":
        """Reads every file that a connection needs. Raises schemas.secret_files.SecretFileError, CertificateError."""
        if self.sasl is not None:
            read_secret(self.sasl.password_file, "sasl.password_file")
        return SecuredBrokers(addresses, self, self._client_settings())

    def _client_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls is not None:
            settings["ssl_context"] = _context(self.tls)
        if self.sasl is not None:
            settings |= {
                "sasl_mechanism": self.sasl.mechanism,
                "sasl_plain_username": self.sasl.user,
                "sasl_plain_password": _password(self.sasl),
            }
        return settings


@dataclass(frozen=True, slots=True)
class SecuredBrokers:
    """Addresses and the security that connections to them have, made by `Security.at`; its text is the addresses.

    All clients of a process share `settings`. There a password may stand, so no log shows them.
    """

    addresses: str
    security: Security
    settings: Mapping[str, Any] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.addresses


# Addresses alone are plain connections.
Brokers = str | SecuredBrokers


class PasswordFile:
    """What aiokafka takes for a password with SCRAM: it is read at each login, so that a new one needs no restart."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"PasswordFile({str(self._path)!r})"

    def encode(self, encoding: str = "utf-8") -> bytes:
        """The only thing that aiokafka's ScramAuthenticator does with it. Raises SecretFileError."""
        return read_secret(self._path, "sasl.password_file").encode(encoding)


def _password(sasl: Sasl) -> Any:  # noqa: ANN401 - a str, or what aiokafka treats like one
    """Read now for PLAIN, which joins it with other text, at each login for SCRAM. Raises SecretFileError."""
    if sasl.mechanism == "PLAIN":
        return read_secret(sasl.password_file, "sasl.password_file")
    return PasswordFile(sasl.password_file)


def client_settings(brokers: Brokers) -> dict[str, Any]:
    """What any of aiokafka's clients is told about Kafka's place."""
    if isinstance(brokers, str):
        return {"bootstrap_servers": brokers}
    return {"bootstrap_servers": brokers.addresses, **brokers.settings}


def _context(tls: Tls) -> Any:  # noqa: ANN401 - an SSLContext
    from schemas.kafka.tls import RenewingContext  # noqa: PLC0415 - an agent without TLS loads none of it

    return RenewingContext(tls.ca_file, tls.cert_file, tls.key_file)
