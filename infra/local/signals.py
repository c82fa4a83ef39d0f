"""Ctrl-C and SIGTERM alike: the first asks for an orderly stop, one more ends it at once."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopAskedError(BaseException):
    """The user wants it to stop. Not an Exception, so that nothing on the way takes it for a failure."""


class StopSwitch:
    """While entered, the first stop signal raises StopAskedError in the main thread, and later ones never raise."""

    def __init__(self) -> None:
        self._stopping = False
        self._hurry: Callable[[], None] = lambda: None
        self._before: dict[int, signal._HANDLER] = {}

    def stopping(self, hurry: Callable[[], None]) -> None:
        """From now on a signal only calls `hurry`, which must not wait for anything."""
        self._hurry = hurry
        self._stopping = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            self._hurry()
            return
        self._stopping = True
        raise StopAskedError
