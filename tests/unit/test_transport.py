"""The consumer around Faust's: where it seeks to, what polls say, and when the group has last heard of us."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.engine import transport
from streams.engine.fetched import Heard, last_heard
from streams.engine.transport import LOG_APPEND_TIME, Consumer, ConsumerThread, Passed, ResumePoint

COMMITS = {
    TopicPartition("b", 0): OffsetAndMetadata(0, "17"),
    TopicPartition("b", 1): OffsetAndMetadata(9, "no number"),
}


class Kafka:
    """As much of aiokafka's consumer as a seek touches."""

    def __init__(self) -> None:
        self.sought: dict[TopicPartition, int] = {}
        self.answer = 0
        self._coordinator = self

    def assignment(self) -> set[TopicPartition]:
        return {*COMMITS, TopicPartition("b", 2), TopicPartition("other", 0)}

    async def fetch_committed_offsets(self, asked: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        assert set(asked) == self.assignment()
        return COMMITS

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought[tp] = offset

    async def _send_req(self, _: object) -> Any:  # noqa: ANN401 - any answer
        return SimpleNamespace(error_code=self.answer)


def thread_of(kafka: Kafka) -> ConsumerThread:
    thread: Any = object.__new__(ConsumerThread)
    thread._consumer = kafka
    thread.app = SimpleNamespace(raw_topics=frozenset())
    thread.consumer = SimpleNamespace(batched=lambda tp: tp.topic == "b")
    thread.committed, thread.heard_s, thread._handed, thread.passed = {}, float("-inf"), {}, {}
    return thread  # type: ignore[no-any-return]


def records(*offsets: int) -> list[ConsumerRecord[bytes, bytes]]:
    return [ConsumerRecord("b", 1, at, 0, LOG_APPEND_TIME, b"", b"", None, 0, 0, ()) for at in offsets]


def test_a_seek_goes_to_commits_of_offset_zero_too_and_without_a_commit_to_the_beginning() -> None:
    """Faust leaves both where they are, which is behind what was polled meanwhile."""
    kafka = Kafka()
    thread = thread_of(kafka)
    offsets = asyncio.run(thread._seek_to_committed())
    assert kafka.sought == {TopicPartition("b", 0): 0, TopicPartition("b", 1): 9, TopicPartition("b", 2): 0}
    assert offsets == {TP("b", 0): 0, TP("b", 1): 9, TP("b", 2): 0}
    assert thread.committed == {TP("b", 0): ResumePoint(0, 17), TP("b", 1): ResumePoint(9, 0)}


def test_polls_say_what_they_go_on_from() -> None:
    thread = thread_of(Kafka())
    begins = [thread._batch(TP("b", 1), records(4, 5)).value.begin]
    asyncio.run(thread._seek_to_committed())
    begins += [thread._batch(TP("b", 1), records(*offsets)).value.begin for offsets in ((9, 10), (12, 13), (14,))]
    thread.forget_position()
    assert [*begins, thread._batch(TP("b", 1), records(15)).value.begin] == [None, 9, 11, 14, None]


def test_offsets_without_records_are_passed_when_the_fetcher_is_behind_them() -> None:
    """Marks of transactions are fetched and never polled."""
    kafka: Any = Kafka()
    thread = thread_of(kafka)
    asyncio.run(thread._seek_to_committed())
    positions = {("b", 0): 0, ("b", 1): 11, ("b", 2): None}
    states = {
        TopicPartition(*tp): SimpleNamespace(has_valid_position=at is not None, position=at)
        for tp, at in positions.items()
    }
    assignment = SimpleNamespace(state_value=states.get)
    kafka._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    thread._note_passed()
    assert thread.passed == {TP("b", 0): Passed(0, 0), TP("b", 1): Passed(9, 11)}
    thread._batch(TP("b", 1), records(11, 12))
    states[TopicPartition("b", 1)].position = 14
    thread._note_passed()
    assert thread.passed[TP("b", 1)] == Passed(13, 14)
    asyncio.run(thread._seek_to_committed())
    assert thread.passed == {}


@pytest.mark.parametrize(
    ("passed", "end"),
    [
        (None, 14),
        pytest.param(Passed(13, 14), 13, id="the last offset is a mark"),
        pytest.param(Passed(13, 13), 14, id="what is there has not been fetched: it may be a record"),
        pytest.param(Passed(14, 14), 14, id="the last offset is a record"),
    ],
)
def test_a_log_ends_after_its_last_record(passed: Passed | None, end: int) -> None:
    kafka = SimpleNamespace(last_poll_timestamp=lambda _: 77, highwater=lambda _: 14)
    thread = SimpleNamespace(_consumer=kafka, passed={} if passed is None else {TP("b", 1): passed})
    app: Any = SimpleNamespace(consumer=SimpleNamespace(_thread=thread))
    assert last_heard(app, TP("b", 1)) == Heard(end, 77)


@pytest.mark.parametrize(("answer", "heard"), [(0, True), (27, True), (25, False)], ids=["ok", "rebalance", "unknown"])
def test_the_group_has_heard_of_us_when_a_heartbeat_was_sent_that_it_has_answered(
    monkeypatch: pytest.MonkeyPatch,
    answer: int,
    heard: bool,  # noqa: FBT001 - a parameter
) -> None:
    async def started(_: object) -> None:
        pass

    now = 100.0
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_start", started)
    monkeypatch.setattr(transport, "clock_s", lambda: now)
    kafka = Kafka()
    kafka.answer = answer
    thread = thread_of(kafka)
    own: Any = object.__new__(Consumer)
    own._thread, own.app = thread, SimpleNamespace(conf=SimpleNamespace(broker_session_timeout=6))

    async def send(request: object) -> None:
        await kafka._send_req(request)

    asyncio.run(thread.on_start())
    assert not own.holds_assignment()
    asyncio.run(send(object.__new__(JoinGroupRequest)))
    assert not own.holds_assignment()
    asyncio.run(send(object.__new__(HeartbeatRequest)))
    assert own.holds_assignment() is heard
    now = 106.0
    assert not own.holds_assignment()
