"""The time before a new objective, asked of ClickHouse in the background, and held beside the tables.

Nothing else of the worker waits for it, or fails with it. It is in no page: whoever takes a partition over asks anew.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfoNotFoundError

import structlog

from streams import metrics
from streams.core.objectives import Objective
from streams.core.past import Past, Question, questions
from streams.core.rows import Steps
from streams.core.slices import COUNTS, LATENESS_MS, SLICE_MS, Tier
from streams.core.standing import reach_of
from streams.core.versions import Stretch
from streams.engine.threads import in_a_thread

LOOK_EVERY_S = 1.0
# From an objective's start on: by then what was on time has come, and the archive has written it.
SETTLED_MS = LATENESS_MS + 10_000
AGAIN_MS = 300_000
# Then it stays as it is: later events are few, raw rows begin to be forgotten, and asking costs.
UNTIL_MS = 3_600_000
# At most this part of the time ClickHouse is busy with an objective that it was asked for already.
SPARE = 20
MOST_BACK_OFF_MS = 300_000

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.past")


class Rows(Protocol):
    """Raw rows, as `streams.history.past.RawPast` asks for them; called on another thread."""

    def parts(self, source: str, question: Question) -> tuple[Question, ...]:
        """The newest first."""

    def steps(self, objective: Objective, question: Question) -> Steps:
        """Under series 0."""


class Key(NamedTuple):
    """Whose past: an objective may be deleted and come again."""

    objective: str
    version: str
    since_s: int

    @classmethod
    def of(cls, objective_id: str, first: Stretch) -> "Key":
        """`first`: the earliest stretch of the objective."""
        return cls(objective_id, first.version, first.since_s)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the counts of an objective begin; `judge` is what it was then, `promise` what it is now."""

    key: Key
    judge: Objective
    promise: Objective


@dataclass(slots=True)
class _Held:
    """What is known of one objective. `reach`: what was asked for; `due_ms`: when it is asked again."""

    past: Past | None = None
    reach: dict[Tier, int] | None = None
    due_ms: int | None = 0
    failures: int = 0


class Pasts:
    """Asks one question at a time. One event loop only; `of` may be called from any thread."""

    def __init__(self, rows: Rows | None, now_ms: Callable[[], int]) -> None:
        """Without `rows` nothing is asked, or known."""
        self._rows = rows
        self._now_ms = now_ms
        self._held: dict[Key, _Held] = {}
        self._failing = False

    def of(self, objective_id: str, first: Stretch) -> Past | None:
        """What is known of the time before its first stretch."""
        held = self._held.get(Key.of(objective_id, first))
        return None if held is None else held.past

    async def follow(self, beginnings: Callable[[], Iterable[Beginning]]) -> None:
        """Ask and ask again, for ever. `beginnings`: of the objectives that are kept here, as they are at each time."""
        while self._rows is not None:
            asked = False
            try:
                asked = await self.look(beginnings())
            except Exception:
                log.exception("the past of objectives is not looked after")
            await asyncio.sleep(0 if asked else LOOK_EVERY_S)

    async def look(self, beginnings: Iterable[Beginning]) -> bool:
        """Forget what is of no use any more, and ask for the past of one objective if one is due."""
        now_ms = self._now_ms()
        wanted: dict[Key, tuple[Beginning, dict[Tier, int]]] = {}
        for beginning in beginnings:
            reach = _reach(beginning, now_ms)
            if reach:
                wanted[beginning.key] = beginning, reach
        self._held = {key: self._held.get(key) or _Held() for key in wanted}
        for key, held in self._held.items():
            reach = wanted[key][1]
            if held.past is not None:
                held.past = held.past.without(held.past.rows.keys() - reach.keys())
            if held.reach is not None and any(held.reach.get(t, key.since_s) > start for t, start in reach.items()):
                held.due_ms, held.reach = 0, None  # its windows became longer
        metrics.PAST_WAITING.set(sum(held.reach is None for held in self._held.values()))
        due = [key for key, held in self._held.items() if held.due_ms is not None and held.due_ms <= now_ms]
        if not due:
            return False
        first = min(due, key=lambda key: self._held[key].due_ms or 0)
        return self._rows is not None and await self._ask(self._rows, *wanted[first], self._held[first])

    async def _ask(self, rows: Rows, beginning: Beginning, reach: dict[Tier, int], held: _Held) -> bool:
        asked_ms, began_s = self._now_ms(), time.monotonic()
        try:
            past = await _gather(rows, beginning, questions(reach, beginning.key.since_s), held, asked_ms)
        except Exception as error:  # noqa: BLE001 - whatever stands there, the worker goes on
            held.failures += 1
            held.due_ms = asked_ms + min(MOST_BACK_OFF_MS, 1_000 << min(held.failures, 10))
            metrics.PAST_QUESTIONS.labels("failed").inc()
            if not self._failing:
                log.warning("the past cannot be asked for", objective=beginning.key.objective, error=str(error))
            self._failing = True
            return False
        took_ms = round((time.monotonic() - began_s) * 1_000)
        held.past, held.reach, held.failures, self._failing = past, reach, 0, False
        held.due_ms = next_ms(beginning.key.since_s * SLICE_MS, asked_ms, took_ms)
        metrics.PAST_QUESTIONS.labels("answered").inc()
        log.info("past of an objective", objective=beginning.key.objective, from_s=past.from_s, took_ms=took_ms)
        return True


async def _gather(rows: Rows, beginning: Beginning, asked: Iterable[Question], held: _Held, asked_ms: int) -> Past:
    """All of it. What is there is shown while older parts are still asked for, unless more was known before."""
    judge, past = beginning.judge, Past.empty(beginning.key.since_s, asked_ms)
    for question in asked:
        for part in await in_a_thread(partial(rows.parts, judge.source, question)):
            past = await in_a_thread(partial(_with, past, part, rows, judge))
            if part.tier is not COUNTS and (held.past is None or past.from_s < held.past.from_s):
                held.past = past
    return past


def _with(past: Past, part: Question, rows: Rows, judge: Objective) -> Past:
    return past.plus(part, rows.steps(judge, part))


def next_ms(since_ms: int, asked_ms: int, took_ms: int) -> int | None:
    """When to ask again after an answer; None when that is what stays."""
    if asked_ms < since_ms + SETTLED_MS:
        return max(since_ms + SETTLED_MS, asked_ms + SPARE * took_ms)
    if asked_ms < since_ms + UNTIL_MS:
        return asked_ms + max(AGAIN_MS, SPARE * took_ms)
    return None


def _reach(beginning: Beginning, now_ms: int) -> dict[Tier, int]:
    try:
        return reach_of(beginning.promise, beginning.key.since_s, now_ms)
    except ZoneInfoNotFoundError:  # said by whoever is asked for its windows
        return {}
