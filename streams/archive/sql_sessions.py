"""Sessions of the SQL endpoint: what SET and USE said, for the requests with the same `session_id` that follow.

Nothing of a session lives in the engine. Each query has a handle of its own that is told what the session knows, so an
idle session costs a few hundred bytes, and no temporary table can outlive its query.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from streams.archive.gate import ErrorCode, RefusedError

DEFAULT_TIMEOUT_S = 60
MAX_TIMEOUT_S = 3_600
MAX_SETTINGS = 64
_MAX_ID_CHARACTERS = 128
_LOCKED_WAIT_S = 0.5  # a client that left a result in the middle comes back before its query has ended
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a request says about its session."""

    id: str
    timeout_s: int = DEFAULT_TIMEOUT_S
    must_exist: bool = False
    closes: bool = False


@dataclass(slots=True)
class Session:
    """What one session was told."""

    settings: dict[str, str] = field(default_factory=dict)
    database: str | None = None
    locked: bool = False
    expires_s: float = 0.0

    def change(self, settings: dict[str, str], database: str | None) -> None:
        """Remembers. Raises RefusedError when it would be too much."""
        both = self.settings | settings
        if len(both) > MAX_SETTINGS:
            raise RefusedError(ErrorCode.BAD_ARGUMENTS, f"{len(both)} settings; a session keeps at most {MAX_SETTINGS}")
        self.settings = both
        self.database = database or self.database


class Sessions:
    """All sessions, each of one user; belongs to one event loop. `now_s` is the loop's clock."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    async def take(self, user: str, asked: SessionRequest, limit: int) -> Session:
        """The session, locked until `give_back`; a new one when there is none. Raises RefusedError: 372, 373, 202."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _LOCKED_WAIT_S
        while (session := self._find(user, asked.id, loop.time())) is not None and session.locked:
            if loop.time() >= until_s:
                raise RefusedError(ErrorCode.SESSION_IS_LOCKED, f"Session {asked.id} is locked by a concurrent client")
            await asyncio.sleep(_LOOK_S)
        if session is None:
            if asked.must_exist:
                raise RefusedError(ErrorCode.SESSION_NOT_FOUND, f"Session {asked.id} not found")
            self._make_room(user, limit, loop.time())
            session = self._sessions[user, asked.id] = Session()
        session.locked = True
        return session

    def give_back(self, user: str, asked: SessionRequest) -> None:
        """Unlocks it for the next request, which has to come within its time; or ends it."""
        session = self._sessions[user, asked.id]
        if asked.closes:
            del self._sessions[user, asked.id]
        session.locked = False
        session.expires_s = asyncio.get_running_loop().time() + asked.timeout_s

    def _find(self, user: str, name: str, now_s: float) -> Session | None:
        session = self._sessions.get((user, name))
        if session is not None and not session.locked and session.expires_s <= now_s:
            del self._sessions[user, name]
            return None
        return session

    def _make_room(self, user: str, limit: int, now_s: float) -> None:
        """Forgets what is over, then idle sessions of this user that were told nothing, the first to end first."""
        own = [key for key in self._sessions if key[0] == user]
        if len(own) < limit:
            return
        for key in own:
            self._find(user, key[1], now_s)
        idle = [
            (session.expires_s, key) for key, session in self._own(user) if not (session.locked or session.settings)
        ]
        for _, key in sorted(idle)[: max(sum(1 for _ in self._own(user)) - limit + 1, 0)]:
            del self._sessions[key]
        if sum(1 for _ in self._own(user)) >= limit:
            raise RefusedError(
                ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many sessions: {limit} of {user} are kept"
            )

    def _own(self, user: str) -> Iterator[tuple[tuple[str, str], Session]]:
        return ((key, session) for key, session in self._sessions.items() if key[0] == user)


def read_session(asked: dict[str, str]) -> SessionRequest | None:
    """What the parameters of a request say; None without a session. Raises RefusedError."""
    name = asked.get("session_id", "")
    if not name:
        return None
    if len(name) > _MAX_ID_CHARACTERS or not name.isprintable():
        raise RefusedError(
            ErrorCode.BAD_ARGUMENTS,
            f"session_id: {len(name)} characters; expected up to {_MAX_ID_CHARACTERS} printable",
        )
    text = asked.get("session_timeout", "") or str(DEFAULT_TIMEOUT_S)
    if not text.isdecimal() or not 0 < int(text[:9]) <= MAX_TIMEOUT_S:
        raise RefusedError(
            ErrorCode.INVALID_SESSION_TIMEOUT, f"Invalid session timeout: {text!r}; expected 1 to {MAX_TIMEOUT_S} s"
        )
    return SessionRequest(name, int(text), asked.get("session_check") == "1", asked.get("close_session") == "1")
