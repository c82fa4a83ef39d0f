"""`fleetbeat sql passwd`: an entry for the file of users, its password hashed."""

import contextlib
import getpass
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from schemas.documents import read_one
from streams.archive.passwords import MAX_BYTES, PasswordHash
from streams.sql.run import OptionsError, write

LEAST_CHARACTERS = 8
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_NEW_MODE, _EVERYBODY = 0o600, 0o007


def run_passwd(name: str, file: Path | None) -> int:
    """The exit status. Raises OptionsError, and DocumentError for a file that is none."""
    if not _NAME.fullmatch(name):
        raise OptionsError(f"user {name!r}: expected 1 to 64 letters, digits and _ . @ -")
    document: Any = read_one(file) if file is not None and file.exists() else {"users": {}}
    if not isinstance(document, dict) or not isinstance(document.get("users"), dict):
        raise OptionsError(f"{file}: no mapping `users` in it; expected a file that this command made")
    hashed = str(PasswordHash.of(_read_password(name)))
    known = name in document["users"]
    document["users"].setdefault(name, {})["password"] = hashed
    text = _yaml(document)
    if file is None:
        sys.stdout.write(text)
        return 0
    _replace(file, text)
    write([f"{file}: {'another password for' if known else 'new user'} {name}"])
    return 0


def _read_password(name: str) -> str:
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("Again: ") != password:
            raise OptionsError("the two passwords differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < LEAST_CHARACTERS or len(password.encode()) > MAX_BYTES or "\0" in password:
        raise OptionsError(
            f"a password of {len(password)} characters; expected {LEAST_CHARACTERS} or more, at most {MAX_BYTES} bytes"
        )
    return password


def _yaml(document: Any) -> str:  # noqa: ANN401 - YAML is any structure
    out = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 4_096  # a hash stays on its line
    yaml.dump(document, out)
    return out.getvalue()


def _replace(file: Path, text: str) -> None:
    """Old or new, never a half; nobody else may read it. Keeps owner and group if it may."""
    before = file.stat() if file.exists() else None
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            os.fchmod(out.fileno(), _NEW_MODE if before is None else before.st_mode & 0o777 & ~_EVERYBODY)
            if before is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
