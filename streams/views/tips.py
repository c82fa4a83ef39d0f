"""Which logs other workers have read to their end: what makes an answer complete up to now where nobody writes."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from streams.core.completeness import Tip
from streams.processors.queries import NotHereError
from streams.processors.rollup import SOURCE
from streams.views.peers import Asked, Peers

TIPS_PATH = "/-/tips"

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.peers")


def tips_payload(tips: Mapping[int, Tip], now_ms: int) -> dict[str, Any]:
    """As ages: clocks of two machines differ."""
    return {
        SOURCE: {
            str(partition): {
                "read_to": tip.read_to,
                "age_ms": max(0, now_ms - tip.at_ms),
                "earlier_age_ms": None if tip.earlier_by_ms is None else max(0, now_ms - tip.earlier_by_ms),
            }
            for partition, tip in tips.items()
        }
    }


def read_tips(body: Mapping[str, Any], asked_ms: int, answered_ms: int) -> dict[int, Tip]:
    """What another worker says, in times of this one: a log's end no later, what was published no earlier than true.

    Raises ValueError, KeyError or TypeError for what is no such answer.
    """
    return {
        int(partition): Tip(
            int(tip["read_to"]),
            asked_ms - int(tip["age_ms"]),
            None if tip["earlier_age_ms"] is None else answered_ms - int(tip["earlier_age_ms"]),
        )
        for partition, tip in body[SOURCE].items()
    }


async def ask_tips(peers: Peers) -> dict[int, Tip]:
    """What the other workers say now; nothing of one that does not answer, whose frontiers have to do."""
    found: dict[int, Tip] = {}
    for tips in await asyncio.gather(*[_ask(peers, address) for address in peers.members.others(SOURCE)]):
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
