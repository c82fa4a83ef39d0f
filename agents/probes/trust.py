"""How servers prove who they are, and how secrets are read from files."""

import ssl
from functools import lru_cache
from pathlib import Path

from agents.probes.base import Settings
from agents.probes.settings import Host
from agents.probes.watch import ProbeFailedError
from schemas.secret_files import SecretFileError
from schemas.secret_files import read_secret as private_line

MAX_SECRET_BYTES = 16 << 10


class TlsSettings(Settings):
    """Authorities of the system, or those of `ca_file`, have to know the server as `server_name`, or as its host.

    Without `verify` anyone is accepted.
    """

    verify: bool = True
    ca_file: Path | None = None
    server_name: Host | None = None


def context_of(settings: TlsSettings, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """The context of these settings, shared by all probes that have them. Raises ProbeFailedError."""
    try:
        changed_ns = 0 if settings.ca_file is None else settings.ca_file.stat().st_mtime_ns
        return _context(settings.ca_file, settings.verify, alpn, changed_ns)
    except (OSError, ssl.SSLError) as cause:
        raise ProbeFailedError("ca-file", f"{settings.ca_file}: {cause.strerror or cause}") from cause


@lru_cache(maxsize=16)  # a context holds all authorities: a megabyte, and 20 ms to load
def _context(ca_file: Path | None, verify: bool, alpn: tuple[str, ...], _changed_ns: int) -> ssl.SSLContext:  # noqa: FBT001
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def read_secret(path: Path, setting: str) -> str:
    """The one line of a file that others cannot read. Raises ProbeFailedError, whose detail has no secret in it.

    `setting` names it in the detail. It is read for each run, so that a rotated secret is used at once.
    """
    try:
        secret = private_line(path, setting).strip()
    except SecretFileError as cause:
        raise ProbeFailedError("credentials", str(cause)) from None
    if not secret or not secret.isascii() or not secret.isprintable() or len(secret) > MAX_SECRET_BYTES:
        detail = f"{setting} {path}: expected one line of at most {MAX_SECRET_BYTES} printable ASCII characters"
        raise ProbeFailedError("credentials", detail)
    return secret
