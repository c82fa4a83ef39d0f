"""What a user sees while processes start and run: live lines on a terminal, plain lines anywhere else."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MARKS = {
    "starting": "yellow",
    "ready": "green",
    "done": "green",
    "failed": "red",
    "stopping": "yellow",
    "stopped": "dim",
}
# Elsewhere than on a terminal a status is written this often, so that a log stays readable.
PLAIN_STATUS_EVERY_S = 30.0


class Board:
    """One line a process, and one line of status below; every change is shown at once.

    On a terminal the lines are drawn in place until `settle`, and what follows starts a new block of lines. When its
    window is closed nothing is shown any more, and whoever shows something goes on: there is a stack to be stopped.
    """

    def __init__(self, out: TextIO) -> None:
        self.console = Console(file=out, highlight=False)
        self._lines: dict[str, tuple[str, str]] = {}
        self._status = ""
        self._last_plain_status = 0.0
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def mark(self, name: str, state: str, detail: str = "") -> None:
        """Sets the line of one process; `state` is a word of `_MARKS`."""
        if self._lines.get(name) == (state, detail):
            return
        self._lines[name] = (state, detail)
        if self.console.is_terminal:
            self._draw()
        else:
            self.say(f"{name}: {state}{f', {detail}' if detail else ''}")

    def status(self, line: str) -> None:
        """Replaces the status below the processes' lines."""
        self._status = line
        if self.console.is_terminal:
            self._draw()
        elif time.monotonic() - self._last_plain_status >= PLAIN_STATUS_EVERY_S:
            self._last_plain_status = time.monotonic()
            self.say(line)

    def say(self, line: str = "") -> None:
        """Prints a line of its own, above what is live."""
        with _seen_or_not():
            self.console.print(line, markup=False, soft_wrap=True)

    def settle(self) -> None:
        """Leaves the lines as they are and forgets them."""
        if self._live is not None:
            with _seen_or_not():
                self._live.stop()
            self._live = None
        self._lines.clear()
        self._status = ""

    def _draw(self) -> None:
        table = Table.grid(padding=(0, 2))
        for name, (state, detail) in self._lines.items():
            busy = self._spinner if state in {"starting", "stopping"} else Text(" ")
            word = Text(state, style=_MARKS[state], no_wrap=True)
            table.add_row(busy, name, word, Text(detail, overflow="ellipsis", no_wrap=True))
        status = Text(self._status, style="dim", overflow="ellipsis", no_wrap=True)
        shown = Group(*([table] if self._lines else []), *([status] if self._status else []))
        with _seen_or_not():
            if self._live is None:
                self._live = Live(shown, console=self.console, refresh_per_second=8)
                self._live.start()
            else:
                self._live.update(shown)


@contextmanager
def _seen_or_not() -> Iterator[None]:
    """Of a terminal that is gone the kernel says an error of input and output; `| head` is for whoever runs us."""
    try:
        yield
    except OSError as cause:
        if cause.errno != errno.EIO:
            raise
