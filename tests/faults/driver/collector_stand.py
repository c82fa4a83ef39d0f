"""Everything of one run about the collector: a Stand whose fleet is joined by agents that run as they do on a host."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.oracle.ledger import Beats
from infra.oracle.sources import UnavailableError
from infra.state import LOOPBACK
from schemas.records import Heartbeat, ProbeResult
from tests.faults.driver.agents import LedgeredAgent
from tests.faults.driver.guests import TOPICS, join
from tests.faults.driver.namespaces import NEAR_IP, Namespaces
from tests.faults.driver.processes import DoomedWorker
from tests.faults.driver.proxy import Proxy
from tests.faults.driver.stand import PARTITIONS, PROMISES, READY_S, Form, Judgement, Stand
from tests.faults.driver.target import Target
from tests.faults.driver.told import Told, served_or_said, told
from tests.faults.driver.verdict import Evidence
from tests.integration.worker_process import Promise, eventually

AGENTS = "agents"
CONTROL = "control."
T = TypeVar("T")
# Far above what one holds, far below what a leak of a row's records would come to.
AGENT_MB = 120


class CollectorStand(Stand):
    """Agents reach the broker through a proxy. Controls write to topics of their own, so that only they are wrong."""

    unanswered_s = 0.0
    """How long after it healed an agent may wait for answers to what was lost before."""
    promises = (*PROMISES, Promise(AGENTS, {"service": "agents"}))

    def __init__(self, folder: Path, seed: int, form: Form, say: Callable[[str], None]) -> None:
        super().__init__(folder, seed, form, say)
        self.agents: list[LedgeredAgent] = []
        self.controls: list[LedgeredAgent] = []
        self.given_up = 0
        """Records that agents took, lost and counted."""
        self._told: list[Told] = []

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            asyncio.run(make_control_topics(self.brokers))
            self.network = self._make_network()
            self.target = self._cleanup.enter_context(Target(self._listener(0)))
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def _make_network(self) -> Proxy:
        """How agents reach the broker."""
        return self.proxy()

    def _listener(self, port: int) -> socket.socket:
        """Where agents reach this process."""
        return socket.create_server((LOOPBACK, port))

    def agent(self, name: str, **options: object) -> LedgeredAgent:
        """One that is not started yet; with `without`, a control, which must come out wrong."""
        prefix = CONTROL if "without" in options else ""
        where = (self.folder, self.network.address, self.target.url)
        found = LedgeredAgent(*where, name, prefix=prefix, **options)  # type: ignore[arg-type]
        (self.controls if found.is_control else self.agents).append(found)
        self._cleanup.callback(found.end)
        return found

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """It ends after the agents, with the stand."""
        return self._cleanup.enter_context(context)

    def start_work(self) -> DoomedWorker:
        """The worker, which its unit would start again, and the fleet."""
        worker = self.worker().start().await_ready()
        self.keep(worker)
        self.start_fleet()
        return worker

    def kill_agent(self, agent: LedgeredAgent) -> None:
        agent.kill()
        self.kills += 1

    def await_fresh(self) -> float:
        """Also until a result that an agent takes from now on is in the views, behind all that it took before."""
        begun = time.monotonic()
        self._expect_agents()
        for agent in self.agents:
            agent.await_idle()
        taken = sum(self._results_of(agent) for agent in self.agents) - self.given_up
        eventually(lambda: self._counted() > taken, "a fresh result of an agent", READY_S)
        seconds = time.monotonic() - begun
        most_s = self._form.visible_s + self.unanswered_s
        if seconds > most_s:
            self.faults.append(f"a fresh result was visible after {seconds:.1f} s; expected {most_s:.0f}")
        return max(seconds, super().await_fresh())

    @staticmethod
    def _results_of(agent: LedgeredAgent) -> int:
        """Roughly: of those that nothing is said of each may be there."""
        lines = agent.ledger.read_text(encoding="ascii").splitlines()
        offers = sum(line.startswith("offer probe-results ") for line in lines)
        return offers - sum(line.startswith("refused ") for line in lines)

    def _counted(self) -> int:
        try:
            return self._views().sums(AGENTS)[-1].total
        except UnavailableError:
            return -1

    def _expect_agents(self) -> None:
        for agent in (*self.agents, *self.controls):
            if agent.wanted and not agent.runs:
                raise agent.child.ended()

    def _expect_alive(self) -> None:
        super()._expect_alive()
        self._expect_agents()

    def judge(self) -> Judgement:
        """Stops the agents, compares what they took with Kafka, and then everything as any stand does."""
        for agent in self.agents:
            agent.await_idle()
            status = agent.stop()
            if status != 0:
                self.faults.append(f"{agent.name} ended with status {status}; expected 0: Kafka has everything")
        self._told = [told(agent.name, agent.ledger, self.brokers, agent.prefix) for agent in self.agents]
        lost = sum(each.lost for each in self._told)
        if lost != self.given_up:
            self.faults.append(f"{lost} records that agents took are not in Kafka; {self.given_up} were counted")
        for each in self._told:
            self.faults += each.faults()
            self.say(f"  {each.summary}")
        self._hold_against_target()
        self.faults += [fault for control in self.controls if (fault := self._judge_control(control))]
        eventually(lambda: all(self._is_ready(worker) for worker in self.workers.values()), "the worker", READY_S)
        judgement = super().judge()
        balance = replace(
            judgement.balance,
            lost=judgement.balance.lost + max(0, lost - self.given_up),
            doubled=judgement.balance.doubled + sum(each.doubled for each in self._told),
        )
        return replace(judgement, balance=balance)

    def _judge_control(self, control: LedgeredAgent) -> str | None:
        """What speaks against a control: that it was exact."""
        with contextlib.suppress(Exception):  # it may be past all help
            control.await_idle()
        control.stop()
        found = told(control.name, control.ledger, self.brokers, control.prefix)
        self.say(f"  control {found.summary}")
        return f"the control {control.name} was exact: this run shows nothing" if found.is_exact else None

    def _hold_against_target(self) -> None:
        """Each answer is in a result that was taken or refused, but for runs that a death cut off or that gave up."""
        good = served_or_said(self._told)
        for agent, each in zip(self.agents, self._told, strict=True):
            for probe in agent.probes:
                served = self.target.served[probe]
                excused = agent.ends + each.ledger.failed[probe] + each.ledger.refused_results
                if not good[probe] <= served <= good[probe] + excused:
                    self.faults.append(
                        f"{probe} was answered {served} times; its agent tells of {good[probe]}, {excused} are excused"
                    )

    def _look_at_processes(self) -> None:
        super()._look_at_processes()
        for agent in self.agents:
            self.say(f"  {agent.name} held {agent.peak_mb()} MB at most")
            if agent.peak_mb() > AGENT_MB:
                self.faults.append(f"{agent.name} held {agent.peak_mb()} MB; expected at most {AGENT_MB}")

    def _evidence(self) -> Evidence:
        found = super()._evidence()
        sent = [one for each in self._told for one in each.sent]
        return replace(found, ledger=join(found.ledger, sent), beats=_with_agents(found.beats, self._told))


class SplitStand(CollectorStand):
    """Its agents live in a network namespace of their own, and packets to the broker are lost as it is told."""

    unanswered_s = 30.0

    def __init__(self, folder: Path, seed: int, form: Form, say: Callable[[str], None]) -> None:
        super().__init__(folder, seed, form, say)
        self.broker.far_host = NEAR_IP

    def _make_network(self) -> Proxy:
        self.namespaces = self._cleanup.enter_context(Namespaces(self.broker.proxy_port))
        port = self.broker.proxy_port
        return self._cleanup.enter_context(Proxy(port, self.broker.far_port, self._listener(port)))

    def _listener(self, port: int) -> socket.socket:
        return self.namespaces.in_near(lambda: socket.create_server((NEAR_IP, port)))

    def agent(self, name: str, **options: object) -> LedgeredAgent:
        return super().agent(name, inside=self.namespaces.inside, within=self.namespaces.in_far, **options)


def _with_agents(beats: Beats, agents: list[Told]) -> Beats:
    """The fleet's heartbeats and those of agents, whose boots follow each other as they were taken."""
    node, boot, number = [], [], []
    boots: dict[tuple[str, str], int] = {}
    first_node, first_boot = len(beats.node_ids), int(beats.boot.max(initial=-1)) + 1
    for place, each in enumerate(agents):
        order = {boot_id: None for boot_id, _ in (each.ledger.accepted | each.ledger.unsure)}
        for boot_id in order:
            boots[each.name, boot_id] = first_boot + len(boots)
        for one in each.sent:
            if isinstance(one.record, Heartbeat) and one.record.heartbeat_seq is not None:
                node.append(first_node + place)
                boot.append(boots[each.name, one.record.boot_id])
                number.append(one.record.heartbeat_seq)
    return replace(
        beats,
        node=np.append(beats.node, np.array(node, np.int64)),
        boot=np.append(beats.boot, np.array(boot, np.int64)),
        number=np.append(beats.number, np.array(number, np.int64)),
        node_ids=(*beats.node_ids, *(each.name for each in agents)),
    )


async def make_control_topics(brokers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(f"{CONTROL}{topic}", PARTITIONS, 1) for topic in (TOPICS[ProbeResult], TOPICS[Heartbeat])]
        )
    finally:
        await admin.close()
