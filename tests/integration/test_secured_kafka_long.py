"""The other commands on a broker with ACLs, each as who it is, and a password that changes while an agent runs."""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from infra.acls.command import run_acl
from infra.kafka.listeners import ADMIN, write_private
from infra.local.children import Child, child_environment, fleetbeat, unready
from tests.integration.agent_process import SELF, AgentProcess
from tests.integration.secured_world import Secured, secured_broker
from tests.integration.worker_process import READY_S, Promise, WorkerProcess, eventually, write_objectives
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.long]

EVENTS = 2_000


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured"), ("collector", "worker", "archive", "load")) as world:
        assert run_acl(world.as_(ADMIN), ["simulate=load"], dry_run=False) == 0
        yield world


def ran(secured: Secured, user: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*arguments, "--brokers", secured.broker.bootstrap]
    command += ["--kafka-config", secured.listeners.kafka_config(user)]
    return subprocess.run(
        fleetbeat(*command),
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_S,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
    )


def test_every_command_does_its_work_as_its_own_principal(secured: Secured, tmp_path: Path) -> None:
    sql, metrics = free_port(), free_port()
    listeners, brokers = secured.listeners, secured.broker.bootstrap
    archive = Child(
        "archive",
        fleetbeat(
            *("archive", "--brokers", brokers, "--kafka-config", listeners.kafka_config("archive")),
            *("--store", tmp_path / "store", "--listen", f"127.0.0.1:{sql}", "--metrics", f"127.0.0.1:{metrics}"),
        ),
        tmp_path / "archive.log",
        grace_s=30,
    )
    objectives = write_objectives(tmp_path / "slos.yaml", [Promise("all")])
    options = ("--kafka-config", str(listeners.kafka_config("worker")))
    try:
        with WorkerProcess(brokers, tmp_path, objectives, options=options) as worker:
            worker.start().await_ready()
            archive.await_ready(lambda: unready(f"http://127.0.0.1:{metrics}/-/ready"), READY_S)
            sent = ran(secured, "load", "simulate", "--unpaced", "--events", str(EVENTS), "--nodes", "20")
            assert sent.returncode == 0, sent.stderr
            results = json.loads(sent.stdout)["results"]
            asked = urllib.request.Request(
                f"http://127.0.0.1:{sql}/", data=b"SELECT count() FROM telemetry.probe_results"
            )

            def stored() -> bool:
                with urllib.request.urlopen(asked, timeout=READY_S) as answer:  # noqa: S310 - http on loopback
                    return bool(answer.read().strip() == str(results).encode())

            eventually(stored, f"{results} rows")
            assert worker.metric("fleetbeat_rollup_events_total") >= results
            for user, command in (
                (ADMIN, ("dlq", "list")),
                (ADMIN, ("state", "show")),
                (ADMIN, ("topics", "check", "--local", "--partitions", "2")),
                ("worker", ("slo",)),
            ):
                done = ran(secured, user, *command)
                assert done.returncode == 0, (user, command, done.stderr)
            assert worker.stop() == 0
    finally:
        archive.stop()
    denied = [line for line in secured.broker.log_path.read_text().splitlines() if "is Denied" in line]
    assert denied == []
    refused = ran(secured, "collector", "state", "show")
    assert refused.returncode == 1
    assert "User:collector may not use the topic (" in refused.stderr


def test_an_agent_takes_a_new_password_without_a_restart_and_loses_nothing(secured: Secured, tmp_path: Path) -> None:
    listeners = secured.listeners
    config = SELF + secured.for_agent(listeners.kafka_config("collector"))
    with AgentProcess(tmp_path, secured.broker.bootstrap, config) as agent:
        agent.start().await_ready()
        change_password(secured, "collector", "changed")
        secured.broker.stop()
        secured.broker.start()  # only new connections log in
        refused = "the broker refuses User:collector: Authentication failed"
        eventually(lambda: refused in agent.get("/-/ready")[1], "reason")
        assert agent.log.read_text(encoding="utf-8").count(refused) <= 2, "one line for each topic"
        write_private(listeners.password_file("collector"), "changed")
        agent.await_ready()
        agent.signal(signal.SIGTERM)
        assert eventually(lambda: agent.child.poll() is not None, "end")
        assert agent.child.poll() == 0, "nothing was given up"
    assert '"event": "stopped", "dropped": 0' in agent.log.read_text(encoding="utf-8")


def change_password(secured: Secured, user: str, password: str) -> None:
    admin = AdminClient(
        {
            "bootstrap.servers": secured.broker.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": ADMIN,
            "sasl.password": secured.listeners.password_file(ADMIN).read_text(encoding="utf-8"),
            "ssl.ca.location": str(secured.listeners.authority.ca_file),
            "log_level": 0,
        }
    )
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
    for changed in admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, info, password.encode())]
    ).values():
        changed.result()
