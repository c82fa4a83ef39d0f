"""What a replay sends: the record as it was, where it came from, and the trace that it had."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra.dlq.corrections import Corrections
from infra.dlq.log import LetterAt, Notes
from infra.dlq.replay import Replayer, Sent
from infra.dlq.wire import REPLAY_OF, Outgoing, Place
from schemas.codec import encode
from schemas.dead_letters import Origin, dead_letter
from schemas.traces import HEADER
from tests.unit.signed_records import PROBE

TOPIC = "probe-results"
TRACE = (HEADER, b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01")


class OnPaper:
    """A Wire that keeps what is put, all to partition 0."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    async def partition_of(self, topic: str, key: bytes | None) -> int:  # noqa: ARG002 - as Wire has it
        return 0

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, 0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def put(self, records: Sequence[Outgoing]) -> list[int]:
        self.sent += records
        return list(range(len(records)))


def letter(offset: int, *headers: tuple[str, bytes]) -> LetterAt:
    origin = Origin(TOPIC, 0, offset, 7, b"n", encode(PROBE))
    return LetterAt(dead_letter(origin, "stale-signature", "why", "worker"), 0, offset, 9, headers)


def test_a_record_goes_back_with_the_trace_that_its_letter_has_and_says_where_it_was() -> None:
    wire = OnPaper()
    on_paper: Any = wire  # as much of it as is used
    replayer = Replayer(on_paper, Notes(), Corrections())
    outcomes = asyncio.run(replayer.replay([letter(3, TRACE), letter(4)]))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    back = [record for record in wire.sent if record.topic == TOPIC]
    assert {(record.key, record.value) for record in back} == {(b"n", encode(PROBE))}
    assert [record.headers for record in back] == [
        ((REPLAY_OF, b"probe-results/0/3"), TRACE),
        ((REPLAY_OF, b"probe-results/0/4"),),
    ]
