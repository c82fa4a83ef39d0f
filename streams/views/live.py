"""The view of the last minute: counts of one objective, in steps down to a millisecond."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from streams.core.live import WIDTH_MS
from streams.core.objectives import Objective, budget
from streams.core.routing import not_whole
from streams.processors.live_queries import LiveAnswer, NoRingError
from streams.processors.queries import Completeness, NotHereError
from streams.views.answers import bad_request, json_response, not_found
from streams.views.peers import Asked, Peers, passed_on

STEP_MS = 1_000
PATH = "/api/v1/slos/{id}/live?width_ms=&step_ms=&to_ms="
_PARAMETERS = ("width_ms", "step_ms", "to_ms")
_DIGITS = 15  # milliseconds of 30,000 years

Json = dict[str, Any]


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
        replies = await asyncio.gather(*[self._peers.ask(Asked(address, path, query)) for address in others])
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


def merged(objective: Objective, answers: Sequence[Json], partitions: int) -> Json:
    """The sum of all workers' parts. Raises NotHereError unless they rest on each source partition once."""
    source = objective.source
    shares = [[int(partition) for partition in answer["offsets"][source]] for answer in answers]
    why = not_whole(shares, partitions)
    if why is not None:
        raise NotHereError(f"{why} of {source}; try again in a few seconds")
    total, good = (sum(answer[name] for answer in answers) for name in ("total", "good"))
    found = budget(total, good, objective.target)
    offsets = {int(p): offset for answer in answers for p, offset in answer["offsets"][source].items()}
    return {
        **{name: answers[0][name] for name in ("id", "from_ms", "to_ms", "step_ms")},
        "total": total,
        "good": good,
        "attainment": found.attainment,
        "burn_rate": found.burn_rate,
        **{name: _added(answers, name) for name in ("totals", "goods")},
        "complete_from_ms": max(answer["complete_from_ms"] for answer in answers),
        "complete_to_ms": min(answer["complete_to_ms"] for answer in answers),
        "staleness_ms": max(answer["staleness_ms"] for answer in answers),
        "offsets": {source: {str(partition): offset for partition, offset in sorted(offsets.items())}},
    }


def _added(answers: Sequence[Json], name: str) -> list[int]:
    return [sum(parts) for parts in zip(*(answer[name] for answer in answers), strict=True)]


def _span(query: Mapping[str, str]) -> tuple[int, int, int]:
    """From, to, and step (ms) of [from, to). Raises HTTPBadRequest."""
    unknown = [name for name in query if name not in _PARAMETERS]
    if unknown:
        raise bad_request(f"{unknown[0][:100]}: not a parameter; expected {', '.join(_PARAMETERS)}")
    width_ms = _number(query, "width_ms", WIDTH_MS, WIDTH_MS)
    step_ms = _number(query, "step_ms", min(STEP_MS, width_ms), width_ms)
    if width_ms % step_ms:
        raise bad_request(f"step_ms: value {step_ms}; expected a whole part of width_ms, which is {width_ms}")
    to_ms = _number(query, "to_ms", time.time_ns() // 1_000_000 + 1, 10**_DIGITS - 1)
    return to_ms - width_ms, to_ms, step_ms


def _number(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and 0 < int(text) <= most):
        raise bad_request(f"{name}: value {text[:100]!r}; expected 1 to {most}")
    return int(text)
