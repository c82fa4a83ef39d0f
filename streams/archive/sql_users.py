"""Who may ask over SQL: a file of names with hashed passwords, what each may see and take, and the check of a login."""

import hmac
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field

from schemas.documents import DocumentError, load_document
from streams.archive.passwords import MAX_BYTES, PasswordHash
from streams.archive.sql_limits import Limits

_log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 1.0
_EVERYBODY = 0o007

Scope = Literal["telemetry", "system"]
"""`telemetry`: the archive's tables, and what clients ask about them. `system`: all system tables too, and others' slow
queries."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class LimitsFile(_Strict):
    """What one user may take, where that is not what everybody may."""

    running: Annotated[int, Field(ge=1, le=64)] | None = None
    execution_s: Annotated[int, Field(ge=1, le=86_400)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    result_bytes: Annotated[int, Field(ge=1)] | None = None
    stream_bytes: Annotated[int, Field(ge=1)] | None = None
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    read_rows: Annotated[int, Field(ge=1)] | None = None
    read_bytes: Annotated[int, Field(ge=1)] | None = None


class UserFile(_Strict):
    """One user. `password` is checked elsewhere: a message of this model would show it."""

    password: Any
    scopes: tuple[Scope, ...] = ("telemetry",)
    limits: LimitsFile = LimitsFile()


class UsersFile(_Strict):
    """The file: users by their names."""

    users: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")], UserFile], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, and what they may take and see."""

    name: str
    limits: Limits
    scopes: frozenset[str] = frozenset({"telemetry"})
    password: PasswordHash | None = field(default=None, repr=False)

    @property
    def sees_system(self) -> bool:
        """Whether all system tables are open, and what others asked."""
        return "system" in self.scopes


@dataclass(frozen=True, slots=True)
class Login:
    """What a request says about itself."""

    name: str
    password: str = field(repr=False)


class WrongLoginError(Exception):
    """No such user, or another password; which of them is not told."""


class Users:
    """The users of a file, as it is now; a login that was right once is known again without the slow hash.

    Raises DocumentError for a file that cannot be used, or that everybody on the machine could read.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        """Reads the file; `limits` are those of who has none there."""
        self._path = path
        self._limits = limits
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)  # what is kept of a right password is of no use elsewhere
        self._known: dict[str, bytes] = {}
        self._nobody = PasswordHash.of("")
        self._stamp = _stamp(path)
        self._users: Mapping[str, User] = load_users(path, limits)
        self._looked_s = time.monotonic()

    def __len__(self) -> int:
        return len(self._users)

    def check(self, login: Login) -> User:
        """The user. Raises WrongLoginError. Takes 50 ms at the first time, and whenever it is wrong."""
        users = self._current()
        user = users.get(login.name)
        seen = hmac.digest(self._key, login.password.encode(), "sha256")
        if user is not None and (known := self._known.get(user.name)) and hmac.compare_digest(known, seen):
            return user
        stored = user.password if user is not None and user.password is not None else self._nobody
        fits = len(login.password.encode()) <= MAX_BYTES and stored.fits(login.password)
        if user is None or not fits:
            raise WrongLoginError
        with self._lock:
            if self._users is users:
                self._known[user.name] = seen
        return user

    def is_known(self, login: Login) -> bool:
        """Whether `check` will be quick."""
        known = self._known.get(login.name, b"")
        return hmac.compare_digest(known, hmac.digest(self._key, login.password.encode(), "sha256"))

    def _current(self) -> Mapping[str, User]:
        """What the file says now; what it said before while it cannot be used."""
        with self._lock:
            if (now_s := time.monotonic()) - self._looked_s < _LOOK_AGAIN_S:
                return self._users
            self._looked_s = now_s
            if (stamp := _stamp(self._path)) == self._stamp:
                return self._users
            self._stamp = stamp
            try:
                self._users = load_users(self._path, self._limits)
            except DocumentError as problem:
                _log.error("sql_users_unusable", problems=problem.problems, kept=len(self._users))
            else:
                self._known.clear()
                _log.info("sql_users_read", users=len(self._users))
            return self._users


def load_users(path: Path, limits: Limits) -> dict[str, User]:
    """The users of a file by their names. Raises DocumentError."""
    document = load_document(path, UsersFile)
    if (mode := path.stat().st_mode) & _EVERYBODY:
        raise DocumentError(
            [f"{path}: mode {mode & 0o777:04o}: everybody on this machine may use it; expected 0600 or 0640"]
        )
    users, problems = {}, []
    for name, entry in document.users.items():
        try:
            hashed = PasswordHash.parse(entry.password)
        except ValueError as cause:
            problems.append(f"{path}: users.{name}.password: {cause}")
            continue
        own = entry.limits.model_dump(exclude_none=True)
        users[name] = User(name, replace(limits, **own), frozenset(entry.scopes), hashed)
    if problems:
        raise DocumentError(problems)
    return users


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - the file that a name means now
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_mode)
