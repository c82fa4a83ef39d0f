"""Notices that a file is another than it was, by looking at it: when the kernel says so, or else again and again."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.file_signature import Signature, signature

if TYPE_CHECKING:
    from agents.file_events import FileEvents

LOOK_EVERY_S = 0.2
# While the kernel would tell: it does not for all that may happen, such as a mount over a folder.
LOOK_ANYWAY_S = 10.0
# A file that is being written is let alone until it has looked the same twice, or has been another for so many looks.
SAME_LOOKS, MOST_LOOKS = 2, 4
# An editor may take the file away for a moment.
MISSING_LOOKS = 5


class Watched:
    """What was seen of a file so far. Pure: looks are values."""

    def __init__(self, seen: Signature | None) -> None:
        self._told = seen
        self._latest = seen
        self._same_looks = 0
        self._looks = 0

    @property
    def at_rest(self) -> bool:
        """Whether the file is as it was when that was told."""
        return not self._looks

    def look(self, seen: Signature | None) -> bool:
        """Whether it is time to read the file: it is another than last time, and at rest, or never at rest."""
        if seen == self._told:
            self._latest, self._same_looks, self._looks = seen, 0, 0
            return False
        self._same_looks = self._same_looks + 1 if seen == self._latest else 1
        self._latest = seen
        self._looks += 1
        at_rest = self._same_looks >= (MISSING_LOOKS if seen is None else SAME_LOOKS)
        ready = at_rest or (seen is not None and self._looks >= MOST_LOOKS)
        if ready:
            self._told, self._same_looks, self._looks = seen, 0, 0
        return ready


def watch(path: Path, seen: Signature | None, changed: Callable[[], None]) -> None:
    """Begins to look, in a thread that ends with the process; the running event loop then calls `changed`.

    In a thread, because a look at a file system that is gone may take for ever.
    """
    loop = asyncio.get_running_loop()
    threading.Thread(target=_look, args=(path, Watched(seen), loop, changed), daemon=True, name="config").start()


def _look(path: Path, watched: Watched, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
    events = _events(path)
    try:
        while not loop.is_closed():
            hears = events is not None and events.listen()
            if watched.look(signature(path)):
                loop.call_soon_threadsafe(changed)
            if events is not None and not watched.at_rest:
                events.close()  # the way there may be another by now
            elif events is not None and hears:
                events.wait(LOOK_ANYWAY_S)
            time.sleep(LOOK_EVERY_S)
    except RuntimeError:  # the loop was closed this very moment
        return
    finally:
        if events is not None:
            events.close()


def _events(path: Path) -> "FileEvents | None":
    try:
        from agents.file_events import FileEvents  # noqa: PLC0415 - ctypes: not before the first heartbeat
    except ImportError:  # a Python without ctypes
        return None
    return FileEvents(path)
