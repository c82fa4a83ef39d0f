"""Connections to the engine that are restricted before somebody needs them: those who ask often ask alike."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.archive.embedded import EmbeddedStore, Handle, SqlError

_KEPT = 4
_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Ready:
    """A connection for one query, and the `log_comment` by which that query can be ended."""

    handle: Handle
    comment: str = field(default_factory=lambda: f"sql-{uuid.uuid4()}")


class Handles:
    """Keeps one for each of the last few kinds of asking: a database and settings. Each serves one query only."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._kept: OrderedDict[_Key, Ready] = OrderedDict()
        self._lock = threading.Lock()
        self._most = _KEPT

    def take(self, database: str, settings: Mapping[str, str]) -> Ready:
        """One that may read, and nothing else. Raises SqlError: unknown database or setting."""
        with self._lock:
            ready = self._kept.pop(_key(database, settings), None)
        return ready or self._make(database, settings)

    def prepare(self, database: str, settings: Mapping[str, str]) -> None:
        """Has one at hand for the next who asks like that; about two milliseconds that nobody waits for."""
        key = _key(database, settings)
        with self._lock:
            if not self._most or key in self._kept:
                return
        try:
            ready = self._make(database, settings)
        except SqlError:  # who asks will be told
            return
        with self._lock:
            surplus = [self._kept.pop(key)] if key in self._kept else []
            self._kept[key] = ready
            while len(self._kept) > self._most:
                surplus.append(self._kept.popitem(last=False)[1])
        for each in surplus:
            each.handle.close()

    def close(self) -> None:
        """Ends those that nobody took; none is kept from now on."""
        with self._lock:
            self._most = 0
            kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            each.handle.close()

    def _make(self, database: str, settings: Mapping[str, str]) -> Ready:
        ready = Ready(self._store.handle())
        try:
            ready.handle.restrict(database, dict(settings) | {"log_comment": ready.comment})
        except BaseException:
            ready.handle.close()
            raise
        return ready


def _key(database: str, settings: Mapping[str, str]) -> _Key:
    return database, tuple(sorted(settings.items()))
