"""The agent and real Kafka: what it sends, how it ends, and that an ended one is not mistaken for a dead one."""

import re
import signal
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from aiokafka.partitioner import murmur2

from schemas.records import Heartbeat, Label, ProbeResult
from schemas.traces import HEADER as TRACE
from schemas.traces import trace_headers
from tests.conftest import MakeTopics
from tests.integration.agent_process import NODE, AgentProcess, boots, records
from tests.integration.worker_process import READY_S, eventually, read_log
from tests.programs import need, run_with_input

pytestmark = [pytest.mark.kafka]

PARTITIONS = 4


def beats_of(brokers: str) -> list[Heartbeat]:
    return records(brokers, "heartbeats", Heartbeat)


def test_heartbeats_and_results_arrive_framed_keyed_and_numbered_and_a_stop_says_goodbye(
    topics: MakeTopics, tmp_path: Path
) -> None:
    brokers = topics(PARTITIONS).bootstrap
    with AgentProcess(tmp_path, brokers) as agent:
        agent.start().await_ready()
        agent.await_metric("fleetbeat_agent_records_acknowledged_total", 8, topic="probe-results")
        agent.await_metric("fleetbeat_agent_records_acknowledged_total", 4, topic="heartbeats")
        assert agent.get("/-/healthy") == (200, "healthy\n")
        eventually(lambda: agent.metric("probe_success", probe="self") == 1, "success")
        assert agent.metric("probe_success", probe="nobody") == 0
        page = agent.get("/metrics")[1]
        assert agent.stop() == 0
    beats, results = beats_of(brokers), records(brokers, "probe-results", ProbeResult)

    assert [beat.state for beat in beats] == ["UP"] * (len(beats) - 1) + ["GOODBYE"]
    assert [beat.heartbeat_seq for beat in beats] == list(range(len(beats)))
    assert {(beat.boot_id, beat.boot_ts, beat.interval_ms) for beat in beats} == {
        (beats[0].boot_id, beats[0].boot_ts, 500)
    }
    assert (beats[0].region, beats[0].zone, beats[0].labels) == ("eu-1", "eu-1a", (Label("role", "test"),))
    assert 0 <= beats[0].ts - beats[0].boot_ts < 30_000
    assert beats[0].cpu_permille is None
    assert all(0 <= (beat.memory_permille or -1) <= 1_000 for beat in beats)
    assert 0 <= (beats[-1].cpu_permille or 0) <= 1_000
    assert beats[-1].disk_permille is not None
    assert (beats[0].health, beats[0].health_source) == (None, None), "no second has gone by"
    known = [beat for beat in beats if beat.health is not None]  # not of a second in which it did not run
    assert known
    assert all(0 <= (beat.health or 0) <= 100 for beat in known)
    assert all(re.fullmatch("snmp/(psi|meminfo)/(psi|schedstat|self)", beat.health_source or "") for beat in known)
    assert 400 < median(after.ts - before.ts for before, after in pairwise(beats[:-1])) < 900, "one may be held up"

    assert sorted([beat.seq for beat in beats] + [result.seq for result in results]) == list(
        range(len(beats) + len(results))
    )
    # A busy machine holds some up for longer than their half second.
    in_time = [result for result in results if result.error != "timeout"]
    ups = [result for result in in_time if result.probe == "self"]
    downs = [result for result in in_time if result.probe == "nobody"]
    assert {(up.kind, up.service, up.endpoint, up.region, up.impact, up.labels) for up in ups} == {
        ("tcp", "agent", "tcp", "eu-1", "P2", (Label("team", "test"),))
    }
    assert all(up.success and up.error is None and 0 < (up.connect_us or 0) <= up.latency_us for up in ups)
    assert {(down.success, down.error, down.endpoint) for down in downs} == {(False, "refused", "nobody")}

    expected = (murmur2(NODE.encode()) & 0x7FFFFFFF) % PARTITIONS
    for topic in ("heartbeats", "probe-results"):
        log = read_log(brokers, topic)
        assert {logged.partition for logged in log} == {expected}
        assert [logged.headers for logged in log] == [
            tuple(trace_headers(topic, logged.value or b"")) for logged in log
        ]
    traced = {result.trace_id for result in results if result.error is not None}
    found = {(value or b"")[3:35].decode() for logged in log for name, value in logged.headers if name == TRACE}
    assert found >= traced

    need("promtool")
    said = run_with_input(page, "promtool", "check", "metrics")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_kill_9_leaves_no_goodbye_and_the_next_start_is_a_later_boot(topics: MakeTopics, tmp_path: Path) -> None:
    brokers = topics(1).bootstrap
    with AgentProcess(tmp_path, brokers) as agent:
        agent.start().await_ready()
        agent.kill()
        agent.start().await_ready()
        assert agent.stop() == 0
    beats = beats_of(brokers)
    first, second = boots(beats)
    assert {beat.state for beat in beats if beat.boot_id == first} == {"UP"}
    assert [beat.state for beat in beats if beat.boot_id == second][-1] == "GOODBYE"
    for boot in (first, second):
        assert min(beat.seq for beat in beats if beat.boot_id == boot) == 0
        assert min(beat.heartbeat_seq or 0 for beat in beats if beat.boot_id == boot) == 0
    assert len({beat.boot_ts for beat in beats}) == 2


def test_usr1_says_at_once_that_the_node_drains_and_ctrl_c_ends_it_like_term(
    topics: MakeTopics, tmp_path: Path
) -> None:
    brokers = topics(1).bootstrap
    with AgentProcess(tmp_path, brokers, "heartbeat: {interval_s: 3600}\n") as agent:
        agent.start().await_ready()
        agent.signal(signal.SIGUSR1)
        agent.await_metric("fleetbeat_agent_records_acknowledged_total", 2, topic="heartbeats")
        agent.signal(signal.SIGINT)
        eventually(lambda: agent.child.poll() is not None, "end")
        assert agent.child.poll() == 0
    assert [beat.state for beat in beats_of(brokers)] == ["UP", "DRAINING", "GOODBYE"]


def test_once_runs_every_probe_sends_what_it_found_and_ends(topics: MakeTopics, tmp_path: Path) -> None:
    brokers = topics(1).bootstrap
    with AgentProcess(tmp_path, brokers) as agent:
        agent.start("--once").child.await_end(READY_S)
    assert [beat.state for beat in beats_of(brokers)] == ["UP", "GOODBYE"]
    assert {result.probe for result in records(brokers, "probe-results", ProbeResult)} == {"self", "nobody"}


def test_a_second_agent_on_the_same_metrics_port_is_refused_in_one_line(topics: MakeTopics, tmp_path: Path) -> None:
    brokers = topics(1).bootstrap
    with AgentProcess(tmp_path, brokers) as agent, AgentProcess(tmp_path, brokers, name="second") as second:
        agent.start().await_ready()
        second.config.write_text(agent.config.read_text(encoding="utf-8"), encoding="utf-8")
        second.start()
        assert eventually(second.child.poll, "end") == 1
        said = second.log.read_text(encoding="utf-8").splitlines()
        assert said == [f"fleetbeat: metrics.listen 127.0.0.1:{agent.port}: address already in use"]
