"""Who may connect to the local broker, and how: anyone on this machine, or users and certificates under ACLs."""

import secrets
import ssl
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Protocol

from infra.kafka.certificates import Authority
from infra.state import LOOPBACK, pick_port

ADMIN = "admin"
_BROKER = "broker"
MECHANISM = "SCRAM-SHA-512"


class Listeners(Protocol):
    """What of the broker's config and start depends on who may connect."""

    def prepare(self, folder: Path) -> None:
        """Called before each start with the broker's folder; makes what the config refers to and is not there yet."""

    def properties(self, port: int, controller_port: int) -> str:
        """The lines that go below server.properties."""

    def format_arguments(self) -> Sequence[str]:
        """What the storage tool is told besides the usual."""

    def ready_at(self, port: int) -> tuple[int, ssl.SSLContext | None]:
        """Where and how the launcher itself asks whether the broker serves."""


class PlainListeners:
    """One listener on loopback, without any security: as `fleetbeat up` has it."""

    def prepare(self, folder: Path) -> None:
        """Nothing is needed."""

    def properties(self, port: int, controller_port: int) -> str:
        """One listener, and the controller's."""
        return _filled("plain.properties", port=port, controller_port=controller_port)

    def format_arguments(self) -> Sequence[str]:
        """None."""
        return ()

    def ready_at(self, port: int) -> tuple[int, ssl.SSLContext | None]:
        """Where clients connect."""
        return port, None


class SecuredListeners:
    """SASL_SSL for users with passwords, SSL for clients with certificates, and ACLs, under which admin may all.

    Users are created when the data folder is formatted. Certificates and passwords stand in the broker's folder.
    """

    def __init__(self, users: Iterable[str] = ()) -> None:
        """`users`: besides admin."""
        self.users = (ADMIN, *users)
        self._folder: Path | None = None
        self._certificates_port: int | None = None

    @property
    def folder(self) -> Path:
        """Of certificates and passwords. Raises RuntimeError before the first start."""
        if self._folder is None:
            raise RuntimeError("this broker was never started")
        return self._folder

    @property
    def certificates(self) -> str:
        """Where clients with certificates connect, host:port."""
        return f"{LOOPBACK}:{self._certificates_port}"

    @property
    def authority(self) -> Authority:
        """Whose certificates the broker trusts."""
        return Authority(self.folder)

    def prepare(self, folder: Path) -> None:
        """An authority, the broker's certificate, and a password for each user."""
        self._folder = folder
        if self._certificates_port is None:
            self._certificates_port = pick_port(None, None, "Kafka's listener for certificates")
        keystore = folder / "broker.keystore.pem"
        if not keystore.exists():
            own = self.authority.issue(_BROKER, [f"IP:{LOOPBACK}", "DNS:localhost"])
            keystore.touch(0o600)
            keystore.write_text(own.key_file.read_text() + own.cert_file.read_text(), encoding="utf-8")
        for user in self.users:
            if not self.password_file(user).exists():
                write_private(self.password_file(user), secrets.token_urlsafe(24))

    def password_file(self, user: str) -> Path:
        """Where the user's password stands."""
        return self.folder / f"{user}.password"

    def kafka_config(self, user: str, password_file: Path | None = None, brokers: str | None = None) -> Path:
        """A file for --kafka-config with which a command logs in as this user."""
        path = self.folder / f"{user}.kafka.yaml"
        password = password_file or self.password_file(user)
        sasl = f"sasl: {{mechanism: {MECHANISM}, user: {user}, password_file: {password}}}"
        where = "" if brokers is None else f"brokers: {brokers}\n"
        path.write_text(f"{where}tls: {{ca_file: {self.authority.ca_file}}}\n{sasl}\n", encoding="utf-8")
        return path

    def certificate_config(self, name: str) -> Path:
        """A file for --kafka-config with which a command proves by a certificate that it is User:name."""
        own = self.authority.issue(name)
        path = self.folder / f"{name}.certificate.yaml"
        tls = f"ca_file: {self.authority.ca_file}, cert_file: {own.cert_file}, key_file: {own.key_file}"
        path.write_text(f"brokers: {self.certificates}\ntls: {{{tls}}}\n", encoding="utf-8")
        return path

    def properties(self, port: int, controller_port: int) -> str:
        """Two listeners, the controller's, TLS, users and the authorizer."""
        return _filled(
            "secured.properties", port=port, controller_port=controller_port, certificates_port=self._certificates_port
        )

    def format_arguments(self) -> Sequence[str]:
        """The users."""
        arguments: list[str] = []
        for user in self.users:
            password = self.password_file(user).read_text(encoding="utf-8")
            arguments += ["--add-scram", f"{MECHANISM}=[name={user},password={password}]"]
        return arguments

    def ready_at(self, port: int) -> tuple[int, ssl.SSLContext | None]:  # noqa: ARG002 - users have passwords there
        """The listener for certificates, as the broker itself."""
        assert self._certificates_port is not None  # noqa: S101 - for mypy: `prepare` came first
        context = ssl.create_default_context(cafile=self.authority.ca_file)
        context.load_cert_chain(self.folder / f"{_BROKER}.pem", self.folder / f"{_BROKER}.key")
        return self._certificates_port, context


def write_private(path: Path, text: str) -> None:
    """Nobody else can read it at any moment."""
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")


def _filled(template: str, **values: object) -> str:
    return Template((files("infra.kafka") / template).read_text(encoding="utf-8")).substitute(**values)
