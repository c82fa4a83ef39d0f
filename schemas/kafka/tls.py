"""The TLS of clients: version 1.2 or newer, brokers prove their names, and new certificates need no restart."""

import logging
import os
import ssl
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from schemas.file_signature import Signature, signature
from schemas.secret_files import SecretFileError, require_private

log = logging.getLogger(__name__)


class CertificateError(OSError, ValueError):
    """A file of certificates or a key cannot be used."""


class RenewingContext(ssl.SSLContext):
    """A client's context that looks at its files before each handshake, and takes them anew when they have changed.

    Certificates and host names are always verified. Files that do not fit together, as in the middle of a renewal, are
    passed over: the ones before go on being used.
    """

    _files: tuple[Path | None, Path | None, Path | None]
    _seen: tuple[Signature | None, ...]
    _now: ssl.SSLContext

    def __new__(cls, *_: object) -> Self:
        """An SSLContext is made here."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> None:
        """Reads the files. Raises CertificateError, SecretFileError."""
        self._files = (ca_file, cert_file, key_file)
        self._seen = _look(self._files)
        self._now = _load(*self._files)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401 - as ssl has it
        """What asyncio begins each handshake with."""
        self._renew()
        return self._now.wrap_bio(*args, **kwargs)

    def _renew(self) -> None:
        seen = _look(self._files)
        if seen == self._seen:
            return
        try:
            self._now = _load(*self._files)
        except (CertificateError, SecretFileError) as cause:
            log.warning("new TLS files are not used, the ones before are", extra={"why": str(cause)})
        else:
            self._seen = seen
            log.info("TLS files were read anew", extra={"files": [str(path) for path in self._files if path]})


class _Session(ssl.SSLObject):
    def unwrap(self) -> None:
        """Says goodbye, and does not wait for the broker's, as TLS allows (RFC 8446, 6.1).

        asyncio would hold the socket until that comes, up to 30 s. aiokafka does not wait for all connections that it
        closes, so an event loop could end before some of their sockets were closed.
        """
        with suppress(ssl.SSLWantReadError):
            super().unwrap()


def _load(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and names unless told otherwise
    context.sslobject_class = _Session
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(ca_file)
        except OSError as cause:  # SSLError is one
            raise CertificateError(f"tls.ca_file {ca_file}: {_why(cause)}; expected certificates in PEM") from None
    if cert_file is not None and key_file is not None:
        require_private(key_file, "tls.key_file")
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except (OSError, ValueError) as cause:
            raise CertificateError(
                f"tls.cert_file {cert_file} with tls.key_file {key_file}: {_why(cause)}; "
                "expected a certificate in PEM and its own key, not encrypted"
            ) from None
    return context


def _no_password() -> str:
    """Without it OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


def _why(cause: Exception) -> str:
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "no certificates in it").replace("_", " ").lower()
    if isinstance(cause, OSError):
        return os.strerror(cause.errno or 0).lower()
    return str(cause)


def _look(files: Iterable[Path | None]) -> tuple[Signature | None, ...]:
    return tuple(None if path is None else signature(path) for path in files)
