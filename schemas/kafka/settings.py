"""The keys `tls` and `sasl` of YAML files, for the agent's `kafka:` and for --kafka-config."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.kafka.brokers import Brokers, Sasl, Security, Tls

SECOND_YES = "I know that whoever can read the network can log in as this user"
_LAST_PORT = 65_535

FilePath = Annotated[str, Field(min_length=1)]


def check_addresses(text: str) -> str:
    """The text, when it is Kafka's addresses. Raises ValueError."""
    for address in text.split(","):
        host, _, port = address.strip().rpartition(":")
        bare = host.startswith("[") == host.endswith("]") == (":" in host)  # an IPv6 address, and only one, in brackets
        if not host or not bare or not port.isdecimal() or not 1 <= int(port) <= _LAST_PORT:
            raise ValueError(f"{address.strip()!r}; expected HOST:PORT, several separated by commas")
    return text


def _is_given(value: object) -> object:
    if value is None:  # a key with nothing below it: who wrote it did not mean a plain connection
        raise ValueError("nothing stands there; expected keys, or {} for TLS with the system's authorities")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class TlsFile(_Strict):
    """Encrypted, and brokers prove their names: by `ca_file`, else by the system's authorities.

    With `cert_file` and `key_file` we prove ours too. Files are in PEM.
    """

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _has_a_pair_or_none(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            there, lacking = ("cert_file", "key_file") if self.key_file is None else ("key_file", "cert_file")
            raise ValueError(f"{there} without {lacking}; expected both or none")
        return self


class SaslFile(_Strict):
    """Who logs in, with a password from a file. `without_tls` is the second yes that a connection without TLS needs."""

    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    user: Annotated[str, Field(min_length=1)]
    password_file: FilePath
    without_tls: str | None = None


class SecurityFile(_Strict):
    """What proves who is at either end; without either key everybody on the way can read and write."""

    tls: Annotated[TlsFile | None, BeforeValidator(_is_given)] = None
    sasl: SaslFile | None = None

    @model_validator(mode="after")
    def _password_is_not_shown_around(self) -> Self:
        sasl = self.sasl
        if sasl is None:
            return self
        if self.tls is not None:
            if sasl.without_tls is not None:
                raise ValueError("sasl.without_tls beside tls; expected one of them")
            return self
        if sasl.mechanism == "PLAIN":
            raise ValueError("sasl PLAIN without tls sends the password as it is; expected tls")
        if sasl.without_tls != SECOND_YES:
            raise ValueError(f'sasl without tls; expected tls, or sasl.without_tls: "{SECOND_YES}"')
        return self

    def security(self) -> Security | None:
        """None for plain connections."""
        if self.tls is None and self.sasl is None:
            return None
        tls = None if self.tls is None else Tls(*map(_path, (self.tls.ca_file, self.tls.cert_file, self.tls.key_file)))
        sasl = None if self.sasl is None else Sasl(self.sasl.mechanism, self.sasl.user, Path(self.sasl.password_file))
        return Security(tls, sasl)

    def at(self, addresses: str) -> Brokers:
        """Kafka at these addresses. Raises SecretFileError, CertificateError when a file cannot be used."""
        security = self.security()
        return addresses if security is None else security.at(addresses)


class KafkaConfigFile(SecurityFile):
    """The file of --kafka-config."""

    brokers: Annotated[str, AfterValidator(check_addresses)] | None = None

    def written(self) -> dict[str, Any]:
        """The keys `tls` and `sasl`, as far as they were given."""
        return self.model_dump(include={"tls", "sasl"}, exclude_none=True)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def described(file: SecurityFile) -> str:
    """For `fleetbeat check`."""
    security = file.security()
    return "plain connections to Kafka" if security is None else f"{security.protocol} as {security.principal}"
