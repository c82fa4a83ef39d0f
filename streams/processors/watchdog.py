"""Ends a worker whose consumer stands still although there is something to read: its service manager starts another."""

import time
from collections.abc import Callable

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from streams import metrics
from streams.core.stall import Reading, StallWatch
from streams.engine.app import App
from streams.engine.fetched import ask_ends
from streams.processors.lags import TOPICS, Lags
from streams.processors.node_parts import DEAF_AFTER_MS

LOOK_EVERY_S = 1.0
# Who was not looked at for longer, was stopped or slept.
LONGEST_LOOK_S = 3 * LOOK_EVERY_S
ASK_TIMEOUT_S = 2.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.watchdog")


class StalledError(RuntimeError):
    """A partition has records, and none of them was worked off for long."""


class Watchdog:
    """Watches while the worker should be getting on: it has its tables, and the group hears it.

    A broker that does not answer is not the consumer's fault, and a restart would not help: then nothing is concluded.
    Where only fetches get no answer, the broker is asked for the end of the log in another way.
    """

    def __init__(self, app: App, lags: Lags, limit_s: float, works: Callable[[], bool]) -> None:
        """`works`: whether tables are there, no rebalance is on, and the group hears of the worker."""
        self._app = app
        self._lags = lags
        self.limit_s = limit_s
        self._works = works
        self._watch: StallWatch[TP] = StallWatch(LONGEST_LOOK_S)

    async def look(self) -> None:
        """Raises StalledError."""
        readings = await self._readings() if self._works() else None
        if readings is None or not self._works():
            self._watch.forget()
        else:
            self._watch.look(readings, time.monotonic())
        worst = self._watch.worst()
        for topic in TOPICS:
            stalled = [seconds for tp, seconds in self._watch.stalled_s.items() if tp.topic == topic]
            metrics.STALLED.labels(topic).set(max(stalled, default=0.0))
        if readings is not None and worst is not None and worst[1] >= self.limit_s:
            self._give_up(worst[0], worst[1], readings[worst[0]])

    async def _readings(self) -> dict[TP, Reading] | None:
        """None when the broker does not say how far the log goes."""
        deaf_ms = time.time_ns() // 1_000_000 - DEAF_AFTER_MS
        readings: dict[TP, Reading] = {}
        unheard: list[TP] = []
        for tp, reading in self._lags.readings().items():
            heard = self._lags.heard(tp)
            if reading is None or heard is None or heard.at_ms < deaf_ms:
                unheard.append(tp)
            else:
                readings[tp] = reading
        if unheard:
            try:
                ends = await ask_ends(self._app, unheard, ASK_TIMEOUT_S)
            except (KafkaError, TimeoutError):
                return None
            readings |= {tp: Reading(self._lags.read_to(tp), end) for tp, end in ends.items()}
        return readings

    def _give_up(self, tp: TP, seconds: float, reading: Reading) -> None:
        message = (
            f"{tp.topic} partition {tp.partition}: no progress for {seconds:.0f} s at offset {reading.read_to}, "
            f"{reading.end - reading.read_to} records behind; expected some within {self.limit_s:g} s"
        )
        log.error(
            "the consumer stands still: ending, so that a restart reads on", topic=tp.topic, partition=tp.partition
        )
        raise StalledError(message)
