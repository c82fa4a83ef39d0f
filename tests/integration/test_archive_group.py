"""Archives that share one store and the partitions of a group, as with a ClickHouse server, while they come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from infra.kafka import LocalKafka
from schemas.codec import encode
from schemas.records import ProbeResult
from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore
from streams.archive.lane import Limits
from streams.archive.metrics import ArchiveMetrics
from streams.archive.service import Archive

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
DEADLINE_S = 100.0
RESULT = ProbeResult("n", 1_767_225_600_000, "b", 0, "p", "http", "s", "/e", "r", success=True, latency_us=1_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "store", memory_cap_bytes=1 << 30) as opened:
        client = opened.client()
        ddl.apply(client)
        client.close()
        yield opened


async def produce(brokers: str, ending: asyncio.Event) -> int:
    """Twenty records a partition and 50 ms; returns how many were acknowledged."""
    sent = 0
    async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
        while not ending.is_set():
            acks = [
                await producer.send("probe-results", encode(RESULT), b"n", partition=number % PARTITIONS)
                for number in range(20 * PARTITIONS)
            ]
            await asyncio.gather(*acks)
            sent += len(acks)
            await asyncio.sleep(0.05)
    return sent


@asynccontextmanager
async def archive(brokers: str, connect: Callable[[], Any]) -> AsyncIterator[ArchiveMetrics]:
    metrics, stop = ArchiveMetrics(), asyncio.Event()
    limits = Limits(enough_records=300, wait_s=0.1, records=1_000)
    member = Archive(brokers, "shared", connect, metrics, shared=True, limits=limits)
    running = asyncio.create_task(member.run(stop))
    try:
        yield metrics
    finally:
        stop.set()
        await running
        await member.close()


async def wait_for(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not what():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.05)


def stored(metrics: ArchiveMetrics) -> float:
    return float(metrics.registry.get_sample_value("fleetbeat_archive_rows_total", {"topic": "probe-results"}) or 0)


class Refusing:
    """A client whose store refuses every third insert, after having done it or before."""

    inserts = 0

    def __init__(self, client: Any) -> None:  # noqa: ANN401
        self._client = client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._client, name)

    def raw_insert(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        Refusing.inserts += 1
        if Refusing.inserts % 6 == 0:
            raise OSError("refused before")
        done = self._client.raw_insert(*arguments, **named)
        if Refusing.inserts % 6 == 3:
            raise OSError("refused after")
        return done


async def come_and_go(brokers: str, connect: Callable[[], Any]) -> int:
    ending = asyncio.Event()
    producing = asyncio.create_task(produce(brokers, ending))
    try:
        async with archive(brokers, connect) as first:
            await wait_for(lambda: stored(first) > 0)
            async with archive(brokers, connect) as second:
                await wait_for(lambda: stored(second) > 500)
            alone = stored(first)
            await wait_for(lambda: stored(first) > alone + 500)
        async with archive(brokers, connect) as third:
            await wait_for(lambda: stored(third) > 0)
            ending.set()
            sent = await producing
            client = connect()
            with suppress(TimeoutError):
                await wait_for(lambda: int(client.command("SELECT count() FROM telemetry.probe_results")) >= sent)
            client.close()
            return sent
    finally:
        ending.set()
        await producing


@pytest.mark.parametrize("wrap", [lambda client: client, Refusing], ids=["a sound store", "a store that refuses"])
def test_archives_of_one_group_store_each_record_once(
    topics: Callable[[int], LocalKafka], store: EmbeddedStore, wrap: Callable[[Any], Any]
) -> None:
    brokers = topics(PARTITIONS).bootstrap
    sent = asyncio.run(come_and_go(brokers, lambda: wrap(store.client())))
    client = store.client()
    found = client.query("SELECT count(), uniqExact(kafka_partition, kafka_offset) FROM telemetry.probe_results")
    client.close()
    assert [tuple(row) for row in found.result_rows] == [(sent, sent)]
