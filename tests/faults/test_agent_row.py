"""The short form of row 1 of the agent: it dies between taking, writing and sending, judged by its ledger."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.state import LOOPBACK
from tests.conftest import MakeTopics
from tests.faults.driver.agents import NAMED, Death, LedgeredAgent
from tests.faults.driver.target import Target
from tests.faults.driver.told import told

pytestmark = [pytest.mark.kafka, pytest.mark.long]


@pytest.fixture
def target() -> Iterator[Target]:
    with Target(socket.create_server((LOOPBACK, 0))) as target:
        yield target


def test_an_agent_that_dies_between_taking_and_sending_loses_nothing_and_sends_nothing_twice(
    topics: MakeTopics, target: Target, tmp_path: Path
) -> None:
    brokers = topics(1).bootstrap
    rng = random.SystemRandom()
    agent = LedgeredAgent(tmp_path, brokers, target.url)
    for point in ("accepted", "acknowledged", rng.choice(sorted(NAMED))):
        death = Death(point, rng.randrange(1, NAMED[point]))
        agent.start(death).await_death()
    agent.start().await_runs(5)
    agent.await_idle()
    assert agent.stop() == 0
    found = told(agent.name, agent.ledger, brokers, agent.prefix)
    assert found.is_exact, found.summary
    assert len(found.sent) > 5


def test_without_what_the_journal_says_of_a_batch_on_its_way_it_is_sent_twice(
    topics: MakeTopics, target: Target, tmp_path: Path
) -> None:
    brokers = topics(1).bootstrap
    agent = LedgeredAgent(tmp_path, brokers, target.url, without="flights")
    try:
        agent.start(Death("acknowledged", 2)).await_death()
        agent.start().await_runs(5)
        agent.await_idle()
        assert agent.stop() == 0
        found = told(agent.name, agent.ledger, brokers, agent.prefix)
    finally:
        agent.end()
    assert found.doubled > 0, found.summary
