"""Looking at the fleet while it runs: which nodes the views show as gone, twice a second, from a thread of its own."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from infra.oracle.ledger import Beats
from infra.oracle.sources import UnavailableError, Views

LOOK_EVERY_S = 0.5
LOOK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """What the views showed at some moment between `begun_ms` and `ended_ms` (UTC).

    They say that it holds all that had come to Kafka by `complete_to_ms`.
    """

    begun_ms: int
    ended_ms: int
    complete_to_ms: int
    down: frozenset[str]
    gone: frozenset[str]
    outages: frozenset[tuple[str, str]]

    def shows(self, node_id: str, *, gone: bool) -> bool:
        """Whether the node is shown as GONE, or as DOWN."""
        return node_id in (self.gone if gone else self.down)


@dataclass(frozen=True, slots=True)
class Watched:
    """A fleet that has ended: its heartbeats and the looks at it; `guest` is a node that is no part of it."""

    beats: Beats
    looks: Sequence[Look]
    guest: str | None


class Watch:
    """Looks until its context is left; `looks` are in the order of time."""

    def __init__(self, base_url: str) -> None:
        """`base_url` is that of the worker's views."""
        self._views = Views(base_url, timeout_s=LOOK_TIMEOUT_S)
        self._looks: list[Look] = []
        self._failed = 0
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "watch")
        self._watching: Future[None] | None = None

    @property
    def looks(self) -> Sequence[Look]:
        """Those that got an answer."""
        return tuple(self._looks)

    @property
    def failed(self) -> int:
        """How many got none."""
        return self._failed

    def __enter__(self) -> Self:
        self._watching = self._thread.submit(self._run)
        return self

    def __exit__(
        self, problem: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Raises what ended the watching early, such as an answer that cannot be read."""
        self._stop.set()
        self._thread.shutdown()
        if problem is None and self._watching is not None:
            self._watching.result()

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + LOOK_EVERY_S, time.monotonic())
            try:
                self._looks.append(look(self._views))
            except UnavailableError:
                self._failed += 1


def look(views: Views) -> Look:
    """One look. Raises UnavailableError."""
    begun_ms = _now_ms()
    (down, down_to_ms), (gone, gone_to_ms) = (views.nodes_in(state) for state in ("DOWN", "GONE"))
    outages = views.outages()
    return Look(begun_ms, _now_ms(), min(down_to_ms, gone_to_ms), down, gone, outages)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
