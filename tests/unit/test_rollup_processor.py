"""The rollup's processor without Faust: what it publishes to whom, and when the commit may move."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from schemas.codec import decode, encode
from schemas.records import ProbeResult, SloPartial
from streams.core.series import Judge, SeriesIndex, series_name
from streams.core.sources import PROBES as SOURCE
from streams.engine.partitioning import partition_of
from streams.engine.transport import LOG_APPEND_TIME, Poll
from streams.processors import rollup as processor
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_recovery import PARTIALS
from streams.topic_ids import TopicIdentity, TopicRecreatedError
from tests.unit.exactness import START_MS

PARTITIONS = 2
# One service for each owner.
SERVICES = {
    partition_of(series_name(name, "/", "eu", "http").encode(), PARTITIONS): name for name in map(str, range(9))
}
QUIET, LOUD = SERVICES[0], SERVICES[1]


class Fake:
    """As much of Faust's app as a processor touches."""

    def __init__(self) -> None:
        self.rebalancing = False
        self.recreated = False
        self.consumer = SimpleNamespace(
            committed={}, resume_points={}, identity=lambda _: TopicIdentity("first", 4), confirm=self.confirm
        )
        self.producer = self
        self.sent: list[tuple[int | None, SloPartial]] = []

    async def confirm(self, topic: str) -> None:
        if self.recreated:
            raise TopicRecreatedError(topic, "first", "second")

    async def send(self, topic: str, _key: object, value: bytes, partition: int | None, *_: object) -> Any:  # noqa: ANN401 - Faust's future
        assert topic == PARTIALS
        record = decode(value)
        assert isinstance(record, SloPartial)
        self.sent.append((partition, record))
        acked = asyncio.get_running_loop().create_future()
        acked.set_result(None)
        return acked


def record(offset: int, append_s: float, ts_s: float, service: str) -> ConsumerRecord[bytes, bytes]:
    probe = ProbeResult(
        "n", START_MS + int(ts_s * 1_000), "b", offset, "p", "http", service, "/", "eu", success=True, latency_us=9
    )
    append_ms = START_MS + int(append_s * 1_000)
    return ConsumerRecord(SOURCE, 0, offset, append_ms, LOG_APPEND_TIME, b"n", encode(probe), None, 1, 1, ())


@pytest.fixture
def fake() -> Fake:
    return Fake()


def steps(fake: Fake, *polls: list[ConsumerRecord[bytes, bytes]]) -> RollupProcessor:
    """The processor after a step for each poll."""
    index = SeriesIndex()
    judge = Judge((), index)
    own = RollupProcessor(fake, judge, index, PARTITIONS, lambda: judge.timeline)  # type: ignore[arg-type]

    async def run() -> None:
        for poll in polls:
            own._pending.append(Poll(poll, 0))
            await own.step()

    asyncio.run(run())
    return own


OPEN = [record(0, 0, 0, QUIET), record(1, 1, 1, LOUD), record(2, 2, 0.5, QUIET)]
SEALING = [record(3, 11.5, 11.5, LOUD)]


def test_the_commit_waits_for_an_owner_that_has_not_heard_of_the_frontier(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart at offset 1 would send the quiet owner one event of a second in which it has counted two."""
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 3_600)
    steps(fake, OPEN, SEALING)
    assert [target for target, _ in fake.sent] == [0, 1, 1]
    assert fake.consumer.resume_points[TP(SOURCE, 0)].offset == 0


def test_the_commit_moves_when_all_have_heard(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 0)
    own = steps(fake, OPEN, SEALING)
    assert [(target, told.sources[0].frontier) for target, told in fake.sent[2:]] == [
        (0, START_MS + 11_500),
        (1, START_MS + 11_500),
    ]
    assert fake.consumer.resume_points[TP(SOURCE, 0)] == (1, START_MS)
    assert own.read_to(0) == 4


def test_every_owner_hears_of_the_last_frontier_although_nothing_comes_any_more(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 3_600.0)
    own = steps(fake, OPEN)
    own._told_all_s = time.monotonic()
    own._pending.append(Poll(SEALING, 0))
    asyncio.run(own.step())
    told = len(fake.sent)
    asyncio.run(own.step())
    assert len(fake.sent) == told  # not yet: it is not an hour ago
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 0.0)
    asyncio.run(own.step())
    asyncio.run(own.step())
    heard = {owner: sent.sources[0].frontier for owner, sent in fake.sent[told:]}
    assert heard == dict.fromkeys(range(PARTITIONS), START_MS + 11_500)
    assert len(fake.sent) == told + PARTITIONS  # once


def test_partials_name_the_topic_that_they_are_of(fake: Fake) -> None:
    steps(fake, OPEN)
    assert {sent.topic_id for _, sent in fake.sent} == {"first"}


def test_what_was_polled_of_a_topic_that_is_another_one_now_is_neither_published_nor_committed(fake: Fake) -> None:
    """It may be of either: counted for the one, it would count again when the other is read from its beginning."""
    fake.recreated = True
    with pytest.raises(TopicRecreatedError, match=r"topic probe-results of id first .* another topic has its name"):
        steps(fake, OPEN)
    assert (fake.sent, fake.consumer.resume_points) == ([], {})
    fake.recreated = False
    steps(fake, OPEN)
    assert fake.sent  # as it would have been


def test_nothing_is_counted_while_nobody_knows_what_judges_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "TELL_ALL_EVERY_S", 0)
    own = steps(fake)
    known, own._known = own._known, lambda: None
    own._pending.append(Poll(OPEN, 0))
    asyncio.run(own.step())
    assert fake.sent == []
    assert own._pending == [Poll(OPEN, 0)]
    own._known = known
    asyncio.run(own.step())
    assert len(fake.sent) == PARTITIONS
    assert own._pending == []
