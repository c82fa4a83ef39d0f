"""What a replay sends: the record as it was, where it came from, and the trace that it had."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra.dlq.corrections import Corrections, Left
from infra.dlq.log import LetterAt, Notes
from infra.dlq.replay import Replayer, Sent
from infra.dlq.wire import REPLAY_OF, Outgoing, Place
from schemas.codec import encode
from schemas.dead_letters import Origin, dead_letter
from schemas.records import DeadLetterReplay
from schemas.traces import HEADER
from tests.unit.signed_records import PROBE

TOPIC = "probe-results"
TRACE = (HEADER, b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01")


class OnPaper:
    """A Wire that keeps what is put, all to partition 0. `held`: first offsets of the partitions there are."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.held: dict[Place, int] = {(TOPIC, 0): 0}
        self.found: list[tuple[str, int, int]] = []
        self.searched: list[Place] = []

    async def partition_of(self, topic: str, key: bytes | None) -> int:  # noqa: ARG002 - as Wire has it
        return 0

    async def begins(self, places: Iterable[Place]) -> dict[Place, int]:
        return {place: begin for place, begin in self.held.items() if place in places}

    async def replays_since(self, starts: Mapping[Place, int]) -> AsyncIterator[tuple[str, int, int]]:
        self.searched += starts
        for replay in self.found:
            yield replay

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


def test_what_was_begun_in_a_partition_that_is_gone_does_not_keep_the_others() -> None:
    """A topic that was made anew with fewer partitions: nobody can say any more what was sent to the others."""
    wire, notes = OnPaper(), Notes()
    on_paper: Any = wire
    for offset, target in ((3, 99), (4, 0)):
        notes.add(DeadLetterReplay(TOPIC, 0, offset, 7, "INTENT", target, 5))
    wire.found = [(f"{TOPIC}/0/4", 0, 6)]
    replayer = Replayer(on_paper, notes, Corrections())

    async def run() -> tuple[int, list[Any]]:
        return await replayer.settle(), list(await replayer.replay([letter(3), letter(5)]))

    settled, (gone, back) = asyncio.run(run())
    assert settled == 1
    assert wire.searched == [(TOPIC, 0)]
    assert isinstance(gone, Left)
    assert (gone.reason, gone.detail) == (
        "maybe-sent",
        "a replay was begun at offset 5 of partition 99, which is deleted",
    )
    assert isinstance(back, Sent)
