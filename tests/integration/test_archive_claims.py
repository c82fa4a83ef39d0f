"""Archives that share a ClickHouse server: one that was stopped, or a request that comes late, changes nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from schemas.codec import encode
from schemas.records import Heartbeat
from streams.archive import ddl
from streams.archive.app import server
from streams.archive.blocks import Chunk, Shaped, Shaper, routes
from streams.archive.claims import ClaimLostError, Claims
from streams.archive.ingest import Ingest, UnsettledError
from streams.archive.plans import Complete, Incomplete, PlanStore
from tests.clickhouse_server.process import ClickHouseProcess
from tests.clickhouse_server.proxy import Fault, FaultProxy

pytestmark = pytest.mark.slow

NOW = time.time_ns() // 1_000_000
BEATS = routes()[1]


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture
def connect(clickhouse: ClickHouseProcess) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def connect(url: str = clickhouse.url) -> Any:  # noqa: ANN401 - clickhouse-connect is not typed
        opened.append(server(f"{url}/telemetry")())
        return opened[-1]

    client = connect()
    ddl.apply(client)
    for table in ("heartbeats", "archive_plans"):
        client.command(f"TRUNCATE TABLE telemetry.{table}")
    yield connect
    for each in opened:
        each.close()


def batch(first: int, count: int = 10) -> Shaped:
    values = [encode(Heartbeat("n", NOW, "b", NOW, first + n, 10_000, "UP", "eu", "a", "1")) for n in range(count)]
    return Shaper(BEATS).shape([Chunk(0, range(first, first + count), [NOW] * count, [b"n"] * count, values)])


def offsets(client: Any) -> list[int]:  # noqa: ANN401
    return [row[0] for row in client.query("SELECT kafka_offset FROM telemetry.heartbeats ORDER BY 1").result_rows]


def claiming(client: Any) -> Ingest:  # noqa: ANN401
    return Ingest(client, BEATS, Claims(BEATS.topic))


def test_what_was_stopped_between_plan_and_insert_comes_to_nothing(connect: Callable[..., Any]) -> None:
    stopped, successor = claiming(connect()), claiming(connect())
    stopped.last_plans([0])
    stopped.store(batch(0))
    planned = batch(10)
    stopped._plans.write(planned.plans)
    last = successor.last_plans([0])
    assert successor.verify(list(last.values())) == {0: Incomplete(10)}
    assert successor.settle(planned).inserted == 10
    successor.store(batch(20))
    stopped._insert(planned.frame, planned.plans)
    with pytest.raises(ClaimLostError):
        stopped._check(planned.plans)
    with pytest.raises(ClaimLostError):
        stopped.store(batch(20, 15))
    assert successor.last_plans([0])[0].last == 29, "a plan came through"
    assert offsets(connect()) == list(range(30))


def test_without_claims_it_doubles_rows(connect: Callable[..., Any]) -> None:
    """The control."""
    stopped, successor = (Ingest(connect(), BEATS) for _ in range(2))
    planned = batch(0)
    stopped._plans.write(planned.plans)
    assert successor.settle(planned).inserted == 10
    stopped._insert(planned.frame, planned.plans)
    assert offsets(connect()) == sorted([*range(10), *range(10)])


def test_an_insert_that_the_network_held_back_comes_to_nothing(
    clickhouse: ClickHouseProcess, connect: Callable[..., Any]
) -> None:
    with FaultProxy(clickhouse.port) as proxy:
        archive = claiming(connect(proxy.url))
        archive.last_plans([0])
        # the client repeats what was reset, once
        proxy.break_with(Fault("late", b"INSERT INTO telemetry.heartbeats", times=2, seconds=3.0))
        with pytest.raises(Exception, match=r"RemoteDisconnected|reset|aborted|Connection"):
            archive.store(batch(0))
        assert archive.verify(list(archive.last_plans([0]).values())) == {0: Incomplete(10)}
        assert archive.settle(batch(0)).inserted == 10
        proxy.await_faults("late", 2, 30)
        deadline = time.monotonic() + 30
        while proxy.done["late-arrived"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert offsets(connect()) == list(range(10))


def test_a_successor_waits_for_what_runs(connect: Callable[..., Any]) -> None:
    client = connect()
    slow = (
        "INSERT INTO telemetry.archive_plans (topic, partition) SELECT 'other', sleepEachRow(0.5) FROM numbers(6) "
        "SETTINGS insert_deduplication_token = 'heartbeats 0:0-9#0', max_block_size = 1"
    )
    running = threading.Thread(target=client.command, args=(slow,))
    running.start()
    successor = claiming(connect())
    try:
        time.sleep(1)
        with pytest.raises(UnsettledError, match="still running"):
            successor.last_plans([0])
    finally:
        running.join()
    assert successor.last_plans([1]) == {}
    PlanStore(client).write(batch(0).plans)
    assert successor.verify(list(successor.last_plans([0]).values())) == {0: Incomplete(10)}
    assert successor.settle(batch(0)).inserted == 10
    assert successor.verify(list(successor.last_plans([0]).values())) == {0: Complete()}
