"""Secrets stand in files of their own, which others on the machine cannot read."""

import os
import stat
from pathlib import Path

_MAX_BYTES = 65_536
_ROOT = 0


class SecretFileError(OSError, ValueError):
    """A file that should hold a secret cannot be used; the message never shows what it holds.

    For a client that is a reason not to connect, for a command not to start.
    """


def read_secret(path: Path, name: str) -> str:
    """What the file holds, without the line's end. `name` is the setting, for messages. Raises SecretFileError."""
    raw = require_private(path, name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretFileError(f"{name} {path}: {len(raw)} bytes that are not UTF-8; expected text") from None
    text = text.rstrip("\r\n")
    if not text:
        raise SecretFileError(f"{name} {path}: empty; expected a secret in it")
    if "\n" in text or "\0" in text:
        raise SecretFileError(f"{name} {path}: more than one line; expected the secret alone")
    return text


def require_private(path: Path, name: str) -> bytes:
    """The bytes of a file that only its owner can read. Raises SecretFileError.

    A file of root's may be readable for its group too: so packages and Kubernetes hand secrets to a service, which then
    cannot change them. PostgreSQL has the same rule for keys. Links are followed: the mode of their target counts.
    """
    try:
        with open(path, "rb", opener=_not_waiting) as file:
            found = os.fstat(file.fileno())  # of the file that is read, whatever the name means a moment later
            _require_private_mode(found, path, name)
            raw = file.read(_MAX_BYTES + 1)
    except SecretFileError:
        raise
    except OSError as cause:
        raise SecretFileError(f"{name} {path}: cannot be read: {os.strerror(cause.errno or 0).lower()}") from None
    if len(raw) > _MAX_BYTES:
        raise SecretFileError(f"{name} {path}: more than {_MAX_BYTES} bytes; expected a secret")
    return raw


def _not_waiting(path: str, flags: int) -> int:
    """A named pipe would keep us waiting for whoever writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _require_private_mode(found: os.stat_result, path: Path, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretFileError(f"{name} {path}: expected a regular file")
    mode = stat.S_IMODE(found.st_mode)
    may = mode & ~(stat.S_IRWXU | stat.S_IRGRP) if found.st_uid == _ROOT else mode & ~stat.S_IRWXU
    if not may:
        return
    whom = "others" if mode & stat.S_IRWXO else "its group"
    target = path.resolve()
    raise SecretFileError(
        f"{name} {path}: mode {mode:04o}: {whom} can get at it; expected 0600 "
        f"(chmod 600 {target}), or 0640 when root owns it"
    )
