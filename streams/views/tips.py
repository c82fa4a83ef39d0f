"""Which logs other workers have read to their end: what makes an answer complete up to now where nobody writes."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from streams.core.completeness import Tip
from streams.core.sources import PROBES, SOURCES, lane, place_of
from streams.processors.queries import NotHereError
from streams.views.peers import Asked, Peers

TIPS_PATH = "/-/tips"

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.peers")


def tips_payload(tips: Mapping[int, Tip], now_ms: int) -> dict[str, Any]:
    """By topic and partition. As ages: clocks of two machines differ."""
    found: dict[str, dict[str, Any]] = {source: {} for source in SOURCES}
    for own, tip in tips.items():
        source, partition = place_of(own)
        found[source][str(partition)] = {
            "read_to": tip.read_to,
            "age_ms": max(0, now_ms - tip.at_ms),
            "earlier_age_ms": None if tip.earlier_by_ms is None else max(0, now_ms - tip.earlier_by_ms),
        }
    return found


def read_tips(body: Mapping[str, Any], asked_ms: int, answered_ms: int) -> dict[int, Tip]:
    """What another worker says, in times of this one: a log's end no later, what was published no earlier than true.

    An older fleetbeat reads probe-results only. Raises ValueError, KeyError or TypeError for what is no such answer.
    """
    return {
        lane(source, int(partition)): Tip(
            int(tip["read_to"]),
            asked_ms - int(tip["age_ms"]),
            None if tip["earlier_age_ms"] is None else answered_ms - int(tip["earlier_age_ms"]),
        )
        for source in SOURCES
        for partition, tip in (body[source] if source == PROBES else body.get(source, {})).items()
    }


async def ask_tips(peers: Peers) -> dict[int, Tip]:
    """What the other workers say now; nothing of one that does not answer, whose frontiers have to do."""
    found: dict[int, Tip] = {}
    others = {address for source in SOURCES for address in peers.members.others(source)}
    for tips in await asyncio.gather(*[_ask(peers, address) for address in sorted(others)]):
        found |= tips
    return found


async def _ask(peers: Peers, address: str) -> dict[int, Tip]:
    asked_ms = _now_ms()
    try:
        reply = await peers.ask(Asked(address, TIPS_PATH))
        return read_tips(reply.body, asked_ms, _now_ms()) if reply.found else {}
    except (NotHereError, ValueError, KeyError, TypeError, AttributeError) as cause:
        log.debug("another worker does not say what it has read", address=address, why=str(cause))
        return {}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
