"""The consumer around Faust's: where it seeks to, what polls say, and when the group has last heard of us."""

import asyncio
import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams import metrics
from streams.engine import identities, transport
from streams.engine.commit_notes import Note
from streams.engine.fetched import Heard, last_heard
from streams.engine.identities import Identities
from streams.engine.transport import LOG_APPEND_TIME, Consumer, ConsumerThread, Passed, ResumePoint
from streams.topic_ids import TopicRecreatedError

COMMITS = {
    TopicPartition("b", 0): OffsetAndMetadata(0, "17"),
    TopicPartition("b", 1): OffsetAndMetadata(9, "no number"),
}


class Kafka:
    """As much of aiokafka's consumer as a seek touches; `ids` are those of its topics."""

    def __init__(self, commits: dict[TopicPartition, OffsetAndMetadata] = COMMITS, **ids: str) -> None:
        self.commits = commits
        self.ids = ids
        self.sought: dict[TopicPartition, int] = {}
        self.answer = 0
        self._coordinator = self._client = self

    def assignment(self) -> set[TopicPartition]:
        return {*self.commits, TopicPartition("b", 2), TopicPartition("other", 0)}

    async def fetch_committed_offsets(self, asked: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        assert set(asked) == self.assignment()
        return self.commits

    def get_random_node(self) -> int:
        return 1

    async def send(self, _node: int, request: Any) -> Any:  # noqa: ANN401 - aiokafka's request, and its answer
        if not self.ids:
            raise NotImplementedError  # aiokafka's answer for brokers before Kafka 2.8
        names = [topic for topic in request._topics if topic in self.ids]
        return SimpleNamespace(topics=[(0, name, self.ids[name], False, [], 0, {}) for name in names])

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought[tp] = offset

    async def _send_req(self, _: object) -> Any:  # noqa: ANN401 - any answer
        return SimpleNamespace(error_code=self.answer)


def thread_of(kafka: Kafka) -> ConsumerThread:
    thread: Any = object.__new__(ConsumerThread)
    thread._consumer = kafka
    thread.app = SimpleNamespace(raw_topics=frozenset())
    thread.committed, thread.heard_s, thread._handed, thread.passed = {}, float("-inf"), {}, {}
    thread.consumer = object.__new__(Consumer)
    thread.consumer._thread = thread
    thread.consumer.app = SimpleNamespace(
        batch_topics={"b"},
        outputs={"b": "out"},
        conf=SimpleNamespace(broker_session_timeout=6, topic_partitions=3),
        producer=SimpleNamespace(_ensure_producer=lambda: SimpleNamespace(client=kafka)),
    )
    thread.consumer.identities = Identities(thread.consumer.app)
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


def test_a_commit_that_the_broker_goes_on_refusing_holds_up_neither_a_rebalance_nor_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a topic that is deleted, say: aiokafka tries for ever, and meanwhile a worker neither folds nor ends."""
    asked: list[dict[TopicPartition, OffsetAndMetadata]] = []

    async def commit(offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        asked.append(offsets)
        await asyncio.Event().wait()

    monkeypatch.setattr(transport, "COMMIT_S", 0.01)
    kafka: Any = Kafka()
    kafka.commit = commit
    thread: Any = thread_of(kafka)
    thread.log = SimpleNamespace(warning=lambda *_: None)
    thread.consumer.resume_points = {TP("b", 1): ResumePoint(11, 17)}

    async def run() -> None:
        async with asyncio.timeout(50):
            assert not await thread._commit({TP("b", 1): 11})

    asyncio.run(run())
    assert [offsets[TopicPartition("b", 1)].offset for offsets in asked] == [11]


NOTED = OffsetAndMetadata(9, "17 topic=b1 into=out1 partitions=3")


@pytest.mark.parametrize(
    ("ids", "sought"),
    [
        pytest.param({"b": "b1", "out": "out1"}, 9, id="the topics are those of the commit"),
        pytest.param({"b": "b2", "out": "out1"}, 0, id="the topic was created anew"),
        pytest.param({"b": "b1", "out": "out2"}, 0, id="what was read went into a topic that was deleted"),
        pytest.param({}, 9, id="a broker without ids"),
    ],
)
def test_a_commit_of_another_topic_is_void(ids: dict[str, str], sought: int) -> None:
    kafka = Kafka({TopicPartition("b", 0): NOTED, TopicPartition("b", 1): OffsetAndMetadata(8, "17")}, **ids)
    thread = thread_of(kafka)
    before = metrics.RECREATED.labels("b")._value.get()
    asyncio.run(thread._seek_to_committed())
    assert kafka.sought == {TopicPartition("b", 0): sought, TopicPartition("b", 1): 8, TopicPartition("b", 2): 0}
    assert thread.committed.get(TP("b", 0)) == (ResumePoint(9, 17) if sought else None)
    assert metrics.RECREATED.labels("b")._value.get() - before == (sought == 0)


def test_commits_name_the_topics_that_were_sought_and_are_read_back() -> None:
    thread = thread_of(Kafka(b="b1", out="out1"))
    own: Any = thread.consumer
    asyncio.run(thread._seek_to_committed())
    assert transport._with_note(own.identities, TP("b", 0), ResumePoint(9, 17), 5) == NOTED
    assert transport._with_note(own.identities, TP("b", 0), transport.TextPoint(9, "17"), 5) == NOTED
    assert transport._with_note(own.identities, TP("other", 0), None, 5) == OffsetAndMetadata(5, "")
    assert Note.read(NOTED.metadata) == Note("17", "b1", "out1", 3)


@pytest.mark.parametrize(
    ("metadata", "note"),
    [
        ("", Note()),
        ("1764", Note("1764")),
        ("7 1 -1 0 0 3 0", Note("7 1 -1 0 0 3 0")),
        ("7 1 topic=x later=word", Note("7 1", "x")),
        ("5 partitions=many topic=a=b", Note("5", "a=b")),
    ],
)
def test_notes_of_other_versions_are_read_as_far_as_they_are_known(metadata: str, note: Note) -> None:
    assert Note.read(metadata) == note


@pytest.mark.parametrize(("now", "said"), [("b1", ""), ("b2", "another topic has its name (id b2)"), ("", "is none")])
def test_what_was_polled_counts_only_while_the_topic_is_the_one_that_was_sought(
    monkeypatch: pytest.MonkeyPatch, now: str, said: str
) -> None:
    monkeypatch.setattr(identities, "GONE_S", 0.0)
    kafka = Kafka(b="b1")
    thread = thread_of(kafka)
    own: Any = thread.consumer
    asyncio.run(thread._seek_to_committed())
    kafka.ids = {"b": now} if now else {"other": "o"}
    if not said:
        asyncio.run(own.confirm("b"))
        return
    with pytest.raises(TopicRecreatedError, match=re.escape(said)):
        asyncio.run(own.confirm("b"))


def test_a_topic_that_is_away_for_a_moment_is_waited_for() -> None:
    """As from a broker that has just started and does not know of all yet."""
    kafka = Kafka(b="b1")
    thread = thread_of(kafka)
    own: Any = thread.consumer

    async def run() -> None:
        await thread._seek_to_committed()
        kafka.ids = {"other": "o"}
        confirming = asyncio.create_task(own.confirm("b"))
        await asyncio.sleep(0.05)
        assert not confirming.done()
        kafka.ids = {"b": "b1"}
        await confirming

    asyncio.run(run())


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


@pytest.mark.parametrize("assignment", [None, SimpleNamespace(state_value=lambda _: None)], ids=["all", "this one"])
def test_a_partition_that_the_clients_thread_loses_while_it_is_looked_at_has_not_been_heard_of(
    assignment: object,
) -> None:
    lost = SimpleNamespace(is_assigned=lambda _: True, subscription=SimpleNamespace(assignment=assignment))
    client: Any = SimpleNamespace(_subscription=lost)
    looks = {name: partial(getattr(AIOKafkaConsumer, name), client) for name in ("last_poll_timestamp", "highwater")}
    thread = SimpleNamespace(_consumer=SimpleNamespace(**looks), passed={})
    app: Any = SimpleNamespace(consumer=SimpleNamespace(_thread=thread))
    assert last_heard(app, TP("b", 1)) is None


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
    own: Any = thread.consumer

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
