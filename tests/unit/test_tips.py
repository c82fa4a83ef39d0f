"""What workers tell each other of their logs, between machines whose clocks differ."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from streams.core.completeness import Tip
from streams.core.routing import Members
from streams.processors.queries import NotHereError
from streams.views.peers import Reply
from streams.views.tips import ask_tips, read_tips, tips_payload

NOW_MS = 1_000_000


@pytest.mark.parametrize("skew_ms", [0, 3_600_000, -3_600_000])
def test_ages_do_not_depend_on_the_others_clock(skew_ms: int) -> None:
    """A log's end is not dated later than it was, and what was published before not earlier."""
    theirs = NOW_MS + skew_ms
    said = json.loads(json.dumps(tips_payload({3: Tip(7, theirs - 40), 4: Tip(0, theirs, theirs - 900)}, theirs)))
    asked_ms, answered_ms = NOW_MS - 5, NOW_MS + 5
    assert read_tips(said, asked_ms, answered_ms) == {
        3: Tip(7, asked_ms - 40),
        4: Tip(0, asked_ms, answered_ms - 900),
    }


def test_who_does_not_answer_or_answers_nonsense_says_nothing() -> None:
    bodies: dict[str, Any] = {
        "good:1": tips_payload({1: Tip(5, NOW_MS)}, NOW_MS),
        "old:1": {"error": "not found"},
        "odd:1": {"probe-results": [1]},
        "text:1": {"probe-results": {"x": {"read_to": "a", "age_ms": 1, "earlier_age_ms": None}}},
    }

    async def ask(asked: Any) -> Reply:  # noqa: ANN401 - Asked
        if asked.address == "gone:1":
            raise NotHereError("gone")
        return Reply(found=True, body=bodies[asked.address])

    keepers = {("probe-results", n): address for n, address in enumerate([*bodies, "gone:1", "me:1"])}
    peers: Any = SimpleNamespace(members=Members("me:1", keepers), ask=ask)
    found = asyncio.run(ask_tips(peers))
    assert [(partition, tip.read_to) for partition, tip in found.items()] == [(1, 5)]
