"""Agent and worker on a broker with TLS, users and ACLs: the SLO is exact, and who lacks a right is told which."""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from infra.acls.command import run_acl
from infra.acls.plan import Grant, Operation, Resource, kafka_acls
from infra.kafka.listeners import write_private
from infra.topics import run_check
from schemas.kafka.option import reach
from schemas.kafka.reasons import refusal
from schemas.records import ProbeResult
from streams.engine.brokers import NotPreparedError, find_partitions
from tests.integration.agent_process import SELF, AgentProcess
from tests.integration.secured_world import PARTITIONS, Secured, read_results, secured_broker
from tests.integration.worker_process import Promise, WorkerProcess, eventually, write_objectives

pytestmark = [pytest.mark.kafka]

ALL = Promise("all")
EVENTS = 8
INVALID = "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as world:
        yield world


def test_agent_and_worker_as_their_own_principals_keep_an_exact_slo(secured: Secured, tmp_path: Path) -> None:
    brokers = secured.broker.bootstrap
    objectives = write_objectives(tmp_path / "slos.yaml", [ALL])
    config = SELF + secured.for_agent(secured.listeners.kafka_config("collector"))
    certified = SELF + secured.for_agent(secured.listeners.certificate_config("collector"))
    options = ("--kafka-config", str(secured.listeners.kafka_config("worker")))
    with (
        AgentProcess(tmp_path, brokers, config) as agent,
        AgentProcess(tmp_path, secured.listeners.certificates, certified, "by-certificate") as other,
        WorkerProcess(brokers, tmp_path, objectives, options=options) as worker,
    ):
        worker.start()
        agent.start()
        other.start("--once")
        agent.await_ready()
        agent.await_metric("fleetbeat_agent_records_acknowledged_total", EVENTS, topic="probe-results")
        assert agent.stop() == 0
        other.child.await_end(60)
        worker.await_ready()
        sent = asyncio.run(read_results(secured.as_("admin")))
        assert len(sent) >= EVENTS + 2
        wanted = {"total": len(sent), "good": sum(event.success for event in sent)}
        assert 0 < wanted["good"] < wanted["total"]
        eventually(lambda: counted(worker, sent) == wanted, f"{wanted}")
        assert worker.metric("fleetbeat_rollup_late_events_total") == 0
        assert worker.stop() == 0


def counted(worker: WorkerProcess, sent: list[ProbeResult]) -> dict[str, int]:
    first = min(event.ts for event in sent) // 10_000 * 10_000
    slices = worker.slices(ALL, first, first + 3_600_000)
    if isinstance(slices, str):
        return {}
    return {name: sum(row[name] for row in slices.values()) for name in ("total", "good")}


def test_an_agent_without_a_right_says_so_when_it_is_asked_whether_it_is_ready(
    secured: Secured, tmp_path: Path
) -> None:
    brokers = secured.broker.bootstrap
    config = SELF + secured.for_agent(secured.listeners.kafka_config("stranger"))
    with AgentProcess(tmp_path, brokers, config) as agent:
        agent.start()
        said = eventually(lambda: text if "User:" in (text := agent.get("/-/ready")[1]) else None, "reason")
        assert agent.get("/-/ready")[0] == 503
    assert f"{brokers}: User:stranger may not write to any topic, or change the cluster" in said
    assert "`fleetbeat topics acl` grants what each command needs" in said


def test_a_worker_without_a_right_does_not_start_and_says_which(secured: Secured) -> None:
    with pytest.raises(
        NotPreparedError, match=r"User:archive may not use the group \(.*fleetbeat-worker\); `fleetbeat t"
    ):
        asyncio.run(find_partitions(secured.as_("archive"), ["heartbeats"]))
    with pytest.raises(
        NotPreparedError, match=r"User:worker may not use the topic \(dead-letter-replays\); `fleetbeat t"
    ):
        asyncio.run(find_partitions(secured.as_("worker"), ["heartbeats", "dead-letter-replays"]))


def test_whoever_is_not_let_in_is_told_why(secured: Secured, tmp_path: Path) -> None:
    write_private(tmp_path / "wrong", "not the password")
    at = secured.broker.bootstrap
    wrong = secured.as_("worker", tmp_path / "wrong")
    assert asyncio.run(refusal(wrong)) == f"{at}: the broker refuses User:worker: {INVALID}"
    no_tls = "the broker ended the connection before it said anything; does it expect TLS (tls)?"
    assert asyncio.run(refusal(at)) == f"{at}: {no_tls}"
    no_user = "the broker ended the connection when it was asked for topics; does it expect a user (sasl)?"
    certified = reach(at, secured.listeners.certificate_config("worker"))
    assert asyncio.run(refusal(certified)) == f"{at}: {no_user}"
    admin = secured.listeners.kafka_config("admin")
    without = asyncio.run(refusal(reach(secured.listeners.certificates, admin))) or ""
    assert "the broker wants a certificate of ours: " in without
    assert asyncio.run(refusal(secured.as_("worker"))) is None


def test_acls_are_created_once_and_told_before(secured: Secured) -> None:
    assert run_check(secured.as_("admin"), PARTITIONS, local=True) == 0
    again = printed(lambda: run_acl(secured.as_("admin"), (), dry_run=True))
    assert again[0] == 0
    assert {line.split(": ")[1] for line in again[1]} == {"fine"}
    status, lines = printed(lambda: run_acl(secured.as_("admin"), ["service=checkout"], dry_run=True))
    assert status == 1
    assert [line for line in lines if "checkout" in line] == [
        "User:checkout: missing: write topic request-counts",
        kafka_acls(Grant("User:checkout", Resource.TOPIC, "request-counts", Operation.WRITE), secured.broker.bootstrap),
    ]
    assert printed(lambda: run_acl(secured.as_("admin"), ["service=checkout"], dry_run=False))[0] == 0
    assert printed(lambda: run_acl(secured.as_("admin"), ["service=checkout"], dry_run=True))[0] == 0
    assert run_acl(secured.as_("worker"), (), dry_run=True) == 1


def printed(run: Callable[[], int]) -> tuple[int, list[str]]:
    with redirect_stdout(io.StringIO()) as out:
        status = run()
    return status, out.getvalue().splitlines()
