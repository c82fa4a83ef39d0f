"""What a person sees while the fleet runs: a live line on a terminal, a plain one every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

PLAIN_EVERY_S = 5.0
LIVE_EVERY_S = 0.25


@dataclass(slots=True)
class Figures:
    """How far the run is; `behind_s` is wall time since the event time that was sent last."""

    heartbeats: int = 0
    results: int = 0
    counts: int = 0
    requests: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    held: int = 0
    nodes_up: int = 0
    nodes_cut_off: int = 0
    nodes: int = 0
    behind_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def events(self) -> int:
        """Events given to the producer."""
        return self.heartbeats + self.results + self.counts

    @property
    def seconds(self) -> float:
        """Wall time since the first event could be sent."""
        return max(time.monotonic() - self.started, 1e-6)

    def line(self, events_per_s: float) -> str:
        """All of it in one line."""
        return (
            f"{events_per_s:,.0f} events/s  sent {self.events:,}  in flight {self.in_flight:,}  held {self.held:,}  "
            f"nodes up {self.nodes_up:,}, cut off {self.nodes_cut_off:,}, down {self.nodes - self.nodes_up:,}  "
            f"behind {max(self.behind_s, 0):.1f} s"
        )


class Shows(Protocol):
    """Takes the figures after each chunk, as often as it likes to show them."""

    def __call__(self, figures: Figures) -> None:
        """Shows the figures, or waits for better ones."""


@contextmanager
def progress() -> Iterator[Shows]:
    """Shows figures on stderr, so that stdout has only the summary."""
    if not sys.stderr.isatty():
        yield _Rate(PLAIN_EVERY_S, lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield _Rate(LIVE_EVERY_S, lambda line: live.update(line, refresh=True))


class _Rate:
    """Calls `show` at most every `every_s`, with the rate since the last call."""

    def __init__(self, every_s: float, show: "Show") -> None:
        self._every_s = every_s
        self._show = show
        self._at = time.monotonic()
        self._events = 0

    def __call__(self, figures: Figures) -> None:
        now = time.monotonic()
        if now - self._at < self._every_s:
            return
        self._show(figures.line((figures.events - self._events) / (now - self._at)))
        self._at, self._events = now, figures.events


class Show(Protocol):
    """Puts one line before the reader."""

    def __call__(self, line: str, /) -> None:
        """Shows the line."""
