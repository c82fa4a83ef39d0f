"""The agent's spool and real Kafka: away while the agent runs and is killed, then back; each record is there once."""

from pathlib import Path

import pytest

from infra.kafka import LocalKafka
from infra.topics import run_apply
from schemas.codec import decode
from schemas.records import Heartbeat, ProbeResult
from tests.integration.agent_process import SELF, AgentProcess, boots, records
from tests.integration.worker_process import read_log

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RUNS = "fleetbeat_agent_probe_runs_total"
WAITING = "fleetbeat_agent_records_waiting"
KILLS = 3


def test_what_was_taken_while_kafka_was_away_arrives_once_and_in_order_after_kill_9(
    fresh_kafka: LocalKafka, tmp_path: Path
) -> None:
    brokers = fresh_kafka.bootstrap
    assert run_apply(brokers, 1, local=True) == 0
    config = SELF.replace("0.5", "0.1") + f"spool: {{dir: {tmp_path / 'spool'}}}\n"
    with AgentProcess(tmp_path, brokers, config) as agent:
        agent.start().await_ready()
        fresh_kafka.kill()  # a batch is on its way, or was written and not answered
        for _ in range(KILLS):
            agent.await_metric(RUNS, 8)
            agent.kill()
            agent.start()
        agent.await_metric(WAITING, 20, topic="probe-results")
        fresh_kafka.start()
        agent.await_ready()
        agent.kill()  # with records on their way
        agent.start().await_ready()
        assert agent.stop() == 0
    beats, results = records(brokers, "heartbeats", Heartbeat), records(brokers, "probe-results", ProbeResult)
    order = boots(beats)
    assert len(order) == KILLS + 2
    everything: list[Heartbeat | ProbeResult] = [*beats, *results]
    for boot in order:
        numbers = sorted(record.seq for record in everything if record.boot_id == boot)
        assert numbers == list(range(len(numbers))), f"boot {order.index(boot)}: something is missing or twice"
    assert {beat.dropped for beat in beats} == {0}
    for topic in ("heartbeats", "probe-results"):
        sent = [decode(logged.value) for logged in read_log(brokers, topic)]
        places = [(order.index(one.boot_id), one.seq) for one in sent if isinstance(one, Heartbeat | ProbeResult)]
        assert places == sorted(places), f"{topic}: out of order"
