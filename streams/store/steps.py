"""How far a command is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_EVERY_S = 10.0


class Steps:
    """To be told about `done` of `total`, and what comes next; writes to stderr."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(what, total=None) if self._bar else None
        self._what = what
        self._said_s = time.monotonic()

    def at(self, done: int, total: int, now: str = "") -> None:
        """Shows it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{self._what} {now}".strip())
        elif time.monotonic() - self._said_s >= _EVERY_S:
            self._said_s = time.monotonic()
            print(f"{self._what}: {done} of {total} {now}".rstrip(), file=sys.stderr)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
