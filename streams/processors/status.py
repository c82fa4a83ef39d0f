"""Publishes what objectives look like to `slo-status`: a snapshot of each, and the minutes that have changed."""

import asyncio
from typing import Any

from schemas.codec import encode
from schemas.records import SloStatus, SloWindow
from streams.core.objectives import Objective
from streams.core.slices import MINUTES
from streams.core.versions import in_force
from streams.core.windows import Summary, Window
from streams.engine.app import App
from streams.processors.queries import NotHereError, Standing, TableQueries

TOPIC = "slo-status"
# How far back minutes are compared with what was published; late events change older minutes only in the tables.
LOOK_BACK_S = MINUTES.keep_s


class StatusPublisher:
    """One record an objective and tick (key: its id), and one for each changed minute (key: id@minute in ms)."""

    def __init__(self, app: App, queries: TableQueries) -> None:
        self._app = app
        self._queries = queries
        # Of each objective the minutes that are still compared, by their start in s: total, good, and whether final.
        self._published: dict[str, dict[int, tuple[int, int, bool]]] = {}

    def lose_all(self) -> None:
        """Another owner may have published since: publish every minute anew."""
        self._published.clear()

    async def publish(self, now_ms: int) -> None:
        """One tick; objectives that cannot be answered now are left out."""
        acks = []
        for objective in self._queries.owned():
            await asyncio.sleep(0)  # views and polls come in between
            try:
                acks += await self._publish_one(objective, now_ms)
            except NotHereError:
                continue
        await asyncio.gather(*acks)

    async def _publish_one(self, objective: Objective, now_ms: int) -> list[Any]:
        standing = await self._queries.standing(objective.id)
        shown = standing.figures.windows
        windows = [_window(*each) for each in shown if each[0].window_s >= MINUTES.step_s or each is shown[-1]]
        partition = self._queries.partition(objective)
        acks = [await self._send(objective.id, self._status(standing, objective.version, now_ms, windows), partition)]
        for version, minute in await self._changed_minutes(objective, now_ms):
            key = f"{objective.id}@{minute.start}"
            acks.append(await self._send(key, self._status(standing, version, now_ms, [minute]), partition))
        return acks

    async def _changed_minutes(self, objective: Objective, now_ms: int) -> list[tuple[str, SloWindow]]:
        """Each with the version of its first judged second: a later one does not publish it once more as its own."""
        minute_ms = MINUTES.step_s * 1000
        start = (now_ms // minute_ms) * minute_ms - LOOK_BACK_S * 1000
        slices = await self._queries.slices(objective.id, start, now_ms + minute_ms, MINUTES)
        before, now = self._published.get(objective.id, {}), dict[int, tuple[int, int, bool]]()
        changed = []
        for step in slices.steps:
            window = Window(MINUTES.step_s, MINUTES, step.start_s, step.start_s + MINUTES.step_s)
            final = window.end_s * 1000 <= slices.sealed_to_ms
            now[window.start_s] = (step.total, step.good, final)
            if before.get(window.start_s) != now[window.start_s]:
                version = in_force(slices.versions, window.start_s, window.end_s)[0].version
                changed.append((version, _window(window, step, final=final)))
        self._published[objective.id] = now  # older minutes are not asked for again, and would be kept for ever
        return changed

    def _status(self, standing: Standing, version: str, now_ms: int, windows: list[SloWindow]) -> SloStatus:
        objective = standing.objective
        return SloStatus(
            slo=objective.id,
            service=objective.service,
            objective_version=version,
            target=objective.target,
            ts=now_ms,
            complete_to=standing.judged_to_ms,
            applied_offset=standing.applied_offset,
            windows=tuple(windows),
        )

    async def _send(self, key: str, status: SloStatus, partition: int) -> Any:  # noqa: ANN401 - Faust's future
        return await self._app.producer.send(TOPIC, key.encode(), encode(status), partition, None, None)


def _window(window: Window, summary: Summary, *, final: bool = False) -> SloWindow:
    return SloWindow(
        window_s=window.window_s,
        start=window.start_s * 1000,
        end=window.end_s * 1000,
        final=final,
        total=summary.total,
        good=summary.good,
        late=summary.late,
        sum_us=summary.sum_us,
        max_us=summary.max_us,
        p50_us=round(summary.p50_us or 0),
        p90_us=round(summary.p90_us or 0),
        p99_us=round(summary.p99_us or 0),
    )
