"""The view of the last minute: counts of one objective, in steps down to a millisecond."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web
from multidict import MultiMapping

from streams.core.live import WIDTH_MS
from streams.core.objectives import Objective, budget
from streams.processors.live_queries import LiveAnswer, NoRingError
from streams.processors.queries import Completeness, NotHereError
from streams.views.answers import bad_request, json_response, not_found
from streams.views.merging import Json, merged_basis, readable, require_whole
from streams.views.parameters import LAST_MS, require_known, whole_number
from streams.views.peers import Peers, passed_on

STEP_MS = 1_000
PATH = "/api/v1/slos/{id}/live?width_ms=&step_ms=&to_ms="
_PARAMETERS = ("width_ms", "step_ms", "to_ms")


class Rings(Protocol):
    """What this worker has counted itself."""

    def counts(self, objective: Objective, from_ms: int, to_ms: int, step_ms: int) -> LiveAnswer:
        """Raises NoRingError and NotHereError."""


class LiveView:
    """Every worker has counted its own partitions: the answer is the sum over all of them, or there is none."""

    def __init__(self, rings: Rings, peers: Peers, completeness: Callable[[], Completeness], partitions: int) -> None:
        self._rings = rings
        self._peers = peers
        self._completeness = completeness
        self._partitions = partitions

    async def answer(self, request: web.Request, objective: Objective) -> web.Response:
        """200; 400 for parameters that mean nothing, 404 without a ring, 503 while a worker's part is missing."""
        from_ms, to_ms, step_ms = _span(request.query)
        fresh = self._completeness()  # before the rings are read: never more than they have
        own = self._own(objective, from_ms, to_ms, step_ms, fresh)
        if passed_on(request):
            return json_response(own)
        others = self._peers.members.others(objective.source)
        query = {"width_ms": str(to_ms - from_ms), "step_ms": str(step_ms), "to_ms": str(to_ms)}
        path = f"/api/v1/slos/{objective.id}/live"
        replies = await self._peers.ask_all(others, path, query)
        for address, reply in zip(others, replies, strict=True):
            if not reply.found:
                raise NotHereError(f"worker {address}: {reply.body.get('error', 'it knows no such ring')}")
        return json_response(merged(objective, [own, *(reply.body for reply in replies)], self._partitions))

    def _own(self, objective: Objective, from_ms: int, to_ms: int, step_ms: int, fresh: Completeness) -> Json:
        try:
            answer = self._rings.counts(objective, from_ms, to_ms, step_ms)
        except NoRingError:
            message = f"no ring of {objective.id!r}; expected a worker started with --live {objective.id}"
            raise not_found(message) from None
        counts = answer.counts
        return {
            "id": objective.id,
            "from_ms": from_ms,
            "to_ms": to_ms,
            "step_ms": step_ms,
            "total": int(counts.totals.sum()),
            "good": int(counts.goods.sum()),
            "totals": counts.totals.tolist(),
            "goods": counts.goods.tolist(),
            "complete_from_ms": counts.since_ms,
            "complete_to_ms": fresh.complete_to_ms,
            "staleness_ms": fresh.staleness_ms,
            "offsets": {answer.source: {str(p): offset for p, offset in sorted(answer.offsets.items())}},
        }


@readable()
def merged(objective: Objective, answers: Sequence[Json], partitions: int) -> Json:
    """The sum of all workers' parts. Raises NotHereError unless they rest on each source partition once."""
    require_whole(answers, objective.source, partitions)
    total, good = (sum(answer[name] for answer in answers) for name in ("total", "good"))
    found = budget(total, good, objective.target)
    return {
        **{name: answers[0][name] for name in ("id", "from_ms", "to_ms", "step_ms")},
        "total": total,
        "good": good,
        "attainment": found.attainment,
        "burn_rate": found.burn_rate,
        **{name: _added(answers, name) for name in ("totals", "goods")},
        "complete_from_ms": max(answer["complete_from_ms"] for answer in answers),
        **merged_basis(answers, objective.source),
    }


def _added(answers: Sequence[Json], name: str) -> list[int]:
    return [sum(parts) for parts in zip(*(answer[name] for answer in answers), strict=True)]


def _span(query: MultiMapping[str]) -> tuple[int, int, int]:
    """From, to, and step (ms) of [from, to). Raises HTTPBadRequest."""
    require_known(query, _PARAMETERS)
    width_ms = whole_number(query, "width_ms", WIDTH_MS, WIDTH_MS)
    step_ms = whole_number(query, "step_ms", min(STEP_MS, width_ms), width_ms)
    if width_ms % step_ms:
        raise bad_request(f"step_ms: value {step_ms}; expected a whole part of width_ms, which is {width_ms}")
    to_ms = whole_number(query, "to_ms", time.time_ns() // 1_000_000 + 1, LAST_MS)
    return to_ms - width_ms, to_ms, step_ms
