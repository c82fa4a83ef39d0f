"""The agent while Kafka is away, comes, goes, and forgets: it keeps probing, counts what it loses, and recovers."""

import asyncio
from pathlib import Path

import pytest

from infra.kafka import LocalKafka
from infra.topics import run_apply
from schemas.records import Heartbeat, ProbeResult
from tests.conftest import drop_topics
from tests.integration.agent_process import SELF, AgentProcess, records
from tests.integration.worker_process import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ACKNOWLEDGED = "fleetbeat_agent_records_acknowledged_total"
DROPPED = "fleetbeat_agent_records_dropped_total"
RUNS = "fleetbeat_agent_probe_runs_total"


@pytest.fixture
def broker(fresh_kafka: LocalKafka) -> LocalKafka:
    """A broker that runs, with topics of one partition, whatever the test before left behind."""
    try:
        assert fresh_kafka.pid
    except RuntimeError:
        fresh_kafka.start()
    asyncio.run(drop_topics(fresh_kafka.bootstrap))
    assert run_apply(fresh_kafka.bootstrap, 1, local=True) == 0
    return fresh_kafka


def check_complete(brokers: str, last_dropped: float) -> None:
    """What was never taken in has no number: nothing that was taken is missing, and nothing is there twice."""
    beats = records(brokers, "heartbeats", Heartbeat)
    results = records(brokers, "probe-results", ProbeResult)
    numbers = sorted([beat.seq for beat in beats] + [result.seq for result in results])
    assert numbers == list(range(len(numbers)))
    assert [beat.heartbeat_seq for beat in beats] == list(range(len(beats)))
    assert beats[0].dropped == 0
    assert beats[-1].state == "GOODBYE"
    assert beats[-1].dropped == last_dropped


def test_kafka_away_at_the_start_loses_nothing_that_fits(broker: LocalKafka, tmp_path: Path) -> None:
    broker.stop()
    with AgentProcess(tmp_path, broker.bootstrap, SELF + "kafka: {give_up_after_s: 3600}\n") as agent:
        agent.start()
        agent.await_metric(RUNS, 8)
        status, why = agent.get("/-/ready")
        assert status == 503
        assert broker.bootstrap in why
        broker.start()
        agent.await_ready()
        assert agent.stop() == 0
    check_complete(broker.bootstrap, last_dropped=0)


def test_a_broker_that_dies_under_load_costs_what_does_not_fit_and_the_next_heartbeat_tells_how_much(
    broker: LocalKafka, tmp_path: Path
) -> None:
    small = SELF.replace("0.5", "0.2") + "kafka: {buffer_records: 40, give_up_after_s: 3600}\n"
    with AgentProcess(tmp_path, broker.bootstrap, small) as agent:
        agent.start().await_ready()
        runs = agent.metric(RUNS)
        broker.kill()
        agent.await_metric(DROPPED, 20, topic="probe-results", reason="buffer-full")
        assert agent.metric(RUNS) >= runs + 40
        broker.start()
        # Everything is through again when more is acknowledged than could have waited.
        agent.await_metric(ACKNOWLEDGED, agent.metric(ACKNOWLEDGED, topic="heartbeats") + 50, topic="heartbeats")
        assert agent.get("/-/ready")[0] == 200
        dropped = agent.metric(DROPPED)
        assert agent.stop() == 0
    check_complete(broker.bootstrap, last_dropped=dropped)


def test_what_waits_for_too_long_is_dropped_and_leaves_a_gap(broker: LocalKafka, tmp_path: Path) -> None:
    broker.stop()
    with AgentProcess(tmp_path, broker.bootstrap, SELF + "kafka: {give_up_after_s: 1}\n") as agent:
        agent.start()
        expired = agent.await_metric(DROPPED, 6, reason="expired")
        broker.start()
        agent.await_ready()
        assert agent.stop() == 0
    beats = records(broker.bootstrap, "heartbeats", Heartbeat)
    assert (beats[0].heartbeat_seq or 0) > 0
    assert beats[-1].dropped >= expired


def test_topics_that_come_later_and_a_broker_that_forgot_its_producers_are_got_over(
    broker: LocalKafka, tmp_path: Path
) -> None:
    brokers = broker.bootstrap
    asyncio.run(drop_topics(brokers))
    with AgentProcess(tmp_path, brokers) as agent:
        agent.start()
        agent.await_metric(RUNS, 6)
        assert run_apply(brokers, 1, local=True) == 0
        agent.await_ready()
        # New topics know nothing of this producer's sequence numbers: its next batch is out of order for them.
        asyncio.run(drop_topics(brokers))
        assert run_apply(brokers, 1, local=True) == 0
        eventually(lambda: len(records(brokers, "heartbeats", Heartbeat)) > 3 or None, "heartbeats")
        assert agent.stop() == 0
    assert records(brokers, "heartbeats", Heartbeat)[-1].state == "GOODBYE"


def test_a_stop_while_kafka_is_away_ends_in_time_and_says_what_was_lost(broker: LocalKafka, tmp_path: Path) -> None:
    with AgentProcess(tmp_path, broker.bootstrap) as agent:
        agent.start().await_ready()
        broker.stop()
        agent.await_metric("fleetbeat_agent_records_waiting", 3, topic="heartbeats")
        assert agent.stop() == 1
        assert "Kafka did not take everything before the end" in agent.log.read_text(encoding="utf-8")
