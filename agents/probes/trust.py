"""How servers prove who they are, and how secrets are read from files."""

import os
import ssl
import stat
from functools import lru_cache
from pathlib import Path

from agents.probes.base import Settings
from agents.probes.settings import Host
from agents.probes.watch import ProbeFailedError

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


def read_secret(path: Path) -> str:
    """The one line of a file that not everyone may read. Raises ProbeFailedError, whose detail has no secret in it.

    It is read for each run, so that a rotated secret is used at once.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & stat.S_IROTH:
                raise ProbeFailedError("credentials", f"{path}: mode {mode:04o}, everyone can read it; expected 0600")
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as cause:
        raise ProbeFailedError("credentials", f"{path}: {cause.strerror}") from cause
    try:
        secret = content.strip().decode("ascii")
    except UnicodeDecodeError:
        secret = ""
    if not secret.isprintable() or not secret or len(content) > MAX_SECRET_BYTES:
        raise ProbeFailedError(
            "credentials", f"{path}: expected one line of at most {MAX_SECRET_BYTES} ASCII characters"
        )
    return secret
