"""Somebody who asks all the time: no answer may be older than it says, and none may count what was not yet sent."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from infra.oracle.sources import Sql

LOOK_EVERY_S = 0.5
TIMEOUT_S = 2.0
# An owner without lag says "complete up to now"; what was appended just now it may not have heard of.
UNHEARD_MS = 2_000


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of one worker on the SLO `all`: its total over an hour, complete up to a time, given by another."""

    worker: str
    total: int
    complete_to_ms: int
    answered_ms: int


class Witness:
    """Looks at every worker twice a second until its context is left; `workers` are (name, url) of those that run."""

    def __init__(self, workers: Callable[[], list[tuple[str, str]]]) -> None:
        self.looks: list[Look] = []
        self.refused = 0
        self._workers = workers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            for name, url in self._workers():
                try:
                    with urllib.request.urlopen(f"{url}/api/v1/slos/all", timeout=TIMEOUT_S) as answer:  # noqa: S310 - http, ours
                        found = json.load(answer)
                except (OSError, ValueError):  # 503 among them
                    self.refused += 1
                    continue
                total = next(window["total"] for window in found["windows"] if window["window_s"] == 3_600)
                self.looks.append(Look(name, total, found["complete_to_ms"], _now_ms()))

    def lies(self, sql: Sql) -> list[str]:
        """Answers that lacked what they said to be complete with, or that had more than was there, as sentences."""
        looks = list(self.looks)  # a look that was under way comes late
        if not looks:
            return ["no worker ever answered"]
        sure, every = (_appended(sql, where) for where in (_SURELY_INSIDE, "true"))
        low = np.searchsorted(sure, [look.complete_to_ms - UNHEARD_MS for look in looks])
        high = np.searchsorted(every, [look.answered_ms for look in looks], side="right")
        return [
            f"{look.worker} at {look.answered_ms}: {look.total} events, complete to {look.complete_to_ms}; "
            f"expected {least} to {most}"
            for look, least, most in zip(looks, low.tolist(), high.tolist(), strict=True)
            if not least <= look.total <= most
        ]


# Of an hour's window, whenever it is looked at within ten minutes.
_SURELY_INSIDE = "ts BETWEEN received_at - INTERVAL 50 MINUTE AND received_at"


def _appended(sql: Sql, where: str) -> npt.NDArray[np.int64]:
    query = f"SELECT toUnixTimestamp64Milli(received_at) AS at FROM telemetry.probe_results WHERE {where} ORDER BY at"  # noqa: S608 - our own
    return np.array([int(line) for line in sql.rows(query)], np.int64)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
