"""A lane takes partitions on: what it makes of their last plans, on a real engine and a log in memory."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from aiokafka.errors import KafkaTimeoutError

from schemas.codec import encode
from schemas.records import Heartbeat
from streams.archive import retention
from streams.archive.blocks import Chunk, Shaped, Shaper, routes
from streams.archive.consumer import Bounds, UnsuitableTopicError
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest
from streams.archive.lane import Lane, Limits
from streams.archive.letters import DeadLetters
from streams.archive.metrics import ArchiveMetrics
from streams.archive.plans import Plan, PlanStore
from tests.integration.stored import emptied, offsets, small_store
from tests.unit.waiting import until

DAY_MS = 86_400_000
NOW = time.time_ns() // 1_000_000
BEATS = routes()[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with small_store(tmp_path_factory.mktemp("adoption")) as opened:
        yield opened


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[Any]:
    with emptied(store, ("heartbeats", "heartbeat_1m", "archive_plans", "archive_retention")) as client:
        yield client


class Log:
    """Stands in for Kafka: by partition, the append time of each record from the offset 0 on."""

    def __init__(self, times: dict[int, list[int]]) -> None:
        self.times = times
        self.sought = dict[int, int]()
        self.topic_id = "first"

    async def bounds(self, _: str, partitions: Collection[int]) -> dict[int, Bounds]:
        return {partition: Bounds(0, len(self.times[partition])) for partition in partitions}

    async def topic_ids(self) -> dict[str, str]:
        return {"heartbeats": self.topic_id}

    def seek(self, _: str, partition: int, offset: int) -> None:
        self.sought[partition] = offset

    async def read_again(self, _: str, partition: int, first: int, last: int, _wanted: Callable[[], bool]) -> Chunk:
        return self.chunk(partition, first, last)

    def chunk(self, partition: int, first: int, last: int) -> Chunk:
        offsets, times = range(first, last + 1), self.times[partition][first : last + 1]
        values = [encode(Heartbeat("n", at, "b", at, n, 10_000, "UP", "eu", "a", "1")) for n, at in enumerate(times)]
        return Chunk(partition, offsets, times, [b"n"] * len(times), values)

    def batch(self, partition: int) -> Shaped:
        """All that the partition holds."""
        return Shaper(BEATS).shape([self.chunk(partition, 0, len(self.times[partition]) - 1)])


async def adopt(connect: Callable[[], Any], log: Log) -> Lane:
    """A lane that has taken on all partitions of the log."""
    lane = Lane(BEATS, connect, log, DeadLetters(""), ArchiveMetrics(), Limits())  # type: ignore[arg-type]
    lane.assign(set(log.times))
    running = asyncio.create_task(lane.run())
    try:
        await until(lambda: lane.well or running.done())
    finally:
        lane.end(5)
        await running
        await lane.close()
    return lane


def figure(lane: Lane, name: str, **labels: str) -> float:
    return lane._metrics.registry.get_sample_value(name, {"topic": "heartbeats", **labels}) or 0


def test_of_a_backlog_that_expires_the_rest_is_completed(store: EmbeddedStore, client: Any) -> None:  # noqa: ANN401
    """Part of its rows may be gone, so their number says nothing; what cannot be gone is completed."""
    retention.apply(client, retention.ages(["heartbeats=1d"]))
    log = Log({0: [NOW - 2 * DAY_MS] * 10 + [NOW] * 10})
    backlog = log.batch(0)
    PlanStore(client).write(backlog.plans)
    Ingest(client, BEATS)._insert(backlog.frame.filter(pl.col("kafka_offset") == 12), backlog.plans)
    lane = asyncio.run(adopt(store.client, log))
    assert offsets(client) == [(0, n) for n in range(10, 20)]
    assert figure(lane, "fleetbeat_archive_plans_verified_total", outcome="completed") == 1
    assert figure(lane, "fleetbeat_archive_lost_records_total") == 0
    assert lane.next == log.sought == {0: 20}
    client.command("ALTER TABLE telemetry.heartbeats DELETE WHERE kafka_offset = 15 SETTINGS mutations_sync = 2")
    lane = asyncio.run(adopt(store.client, log))
    assert (len(offsets(client)), lane.next) == (9, {0: 20}), "it is in doubt once only: what is deleted stays so"


class Deaf:
    """A client whose first answer to an insert of rows is lost."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401
        self._client = client
        self.lost = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._client, name)

    def raw_insert(self, table: str, *args: Any, **options: Any) -> None:  # noqa: ANN401
        self._client.raw_insert(table, *args, **options)
        if table == BEATS.table and not self.lost:
            self.lost += 1
            raise ConnectionResetError


def test_rows_whose_insert_did_not_answer_are_not_reported_lost(store: EmbeddedStore, client: Any) -> None:  # noqa: ANN401
    log, deaf = Log({0: [NOW] * 10}), Deaf(store.client())
    PlanStore(client).write(log.batch(0).plans)
    lane = asyncio.run(adopt(lambda: deaf, log))
    assert (deaf.lost, len(offsets(client))) == (1, 10)
    assert figure(lane, "fleetbeat_archive_lost_records_total") == 0
    assert figure(lane, "fleetbeat_archive_plans_verified_total", outcome="completed") == 1


def test_what_kafka_no_longer_has_is_reported_lost_once(store: EmbeddedStore, client: Any) -> None:  # noqa: ANN401
    class Shortened(Log):
        async def bounds(self, topic: str, partitions: Collection[int]) -> dict[int, Bounds]:
            return {each: Bounds(4, bound.end) for each, bound in (await super().bounds(topic, partitions)).items()}

        async def read_again(self, topic: str, partition: int, first: int, *span: Any) -> Chunk:  # noqa: ANN401
            return await super().read_again(topic, partition, max(first, 4), *span)

    log = Shortened({0: [NOW] * 10})
    PlanStore(client).write(log.batch(0).plans)
    for lost in (4, 0):
        lane = asyncio.run(adopt(store.client, log))
        assert figure(lane, "fleetbeat_archive_lost_records_total") == lost
        assert offsets(client) == [(0, n) for n in range(4, 10)]


def test_a_plan_written_while_partitions_change_hands_is_no_sign_of_another_log(
    store: EmbeddedStore,
    client: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who had them before reads on, and plans until they are claimed."""
    log = Log({0: [NOW] * 10})
    Ingest(client, BEATS).store(log.batch(0))
    claimed = Ingest.last_plans

    def at_the_last_moment(ingest: Ingest, partitions: Collection[int]) -> dict[int, Plan]:
        log.times[0] = [NOW] * 20
        ingest.store(Shaper(BEATS).shape([log.chunk(0, 10, 19)]))
        return claimed(ingest, partitions)

    monkeypatch.setattr(Ingest, "last_plans", at_the_last_moment)
    assert asyncio.run(adopt(store.client, log)).next == {0: 20}
    assert offsets(client) == [(0, n) for n in range(20)]


def test_a_partition_is_completed_before_all_are_tried_again(store: EmbeddedStore, client: Any) -> None:  # noqa: ANN401
    """Kafka answers for one of two; what is still under way would find its rows there, and report them lost."""

    class Failing(Log):
        asked, under_way, overlapped = 0, False, False

        async def read_again(self, topic: str, partition: int, *span: Any) -> Chunk:  # noqa: ANN401
            if partition == 0:
                self.asked += 1
                if self.asked == 1:
                    raise KafkaTimeoutError
                return await super().read_again(topic, partition, *span)
            self.overlapped |= self.under_way
            self.under_way = True
            await asyncio.sleep(1.5)
            self.under_way = False
            return await super().read_again(topic, partition, *span)

    log = Failing({0: [NOW] * 10, 1: [NOW] * 10})
    PlanStore(client).write(log.batch(0).plans + log.batch(1).plans)
    log.asked = 0
    lane = asyncio.run(adopt(store.client, log))
    assert not log.overlapped
    assert figure(lane, "fleetbeat_archive_lost_records_total") == 0
    assert offsets(client) == [(partition, n) for partition in (0, 1) for n in range(10)]


def test_a_topic_that_was_created_anew_is_refused_also_when_its_log_has_grown_further(
    store: EmbeddedStore,
    client: Any,  # noqa: ANN401
) -> None:
    PlanStore(client).write([replace(plan, topic_id="first") for plan in Log({0: [NOW] * 10}).batch(0).plans])
    anew = Log({0: [NOW] * 30})
    anew.topic_id = "second"
    with pytest.raises(UnsuitableTopicError, match=r"its id is second; expected first, of which the store has records"):
        asyncio.run(adopt(store.client, anew))
    assert offsets(client) == []


@pytest.mark.parametrize(("planned", "now"), [("", "first"), ("first", ""), ("first", "first")])
def test_an_id_that_is_not_known_refuses_nothing(
    store: EmbeddedStore,
    client: Any,  # noqa: ANN401
    planned: str,
    now: str,
) -> None:
    log = Log({0: [NOW] * 10})
    PlanStore(client).write([replace(plan, topic_id=planned) for plan in log.batch(0).plans])
    log.topic_id = now
    lane = asyncio.run(adopt(store.client, log))
    assert (lane.next, len(offsets(client))) == ({0: 10}, 10)
    with pytest.raises(UnsuitableTopicError) if now else nullcontext():
        lane.confirm("second")
    lane.confirm(now)
    lane.confirm("")
