"""A broker with TLS, users and ACLs, and what a test needs to come near it."""

import asyncio
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.acls.command import run_acl
from infra.kafka import LocalKafka, SecuredListeners
from infra.topics import run_apply
from schemas.codec import decode
from schemas.kafka import Brokers, client_settings
from schemas.kafka.option import reach
from schemas.records import ProbeResult
from tests.conftest import HEAP_MB, START_S
from tests.integration.worker_process import POLL_S
from tests.ports import free_port

PARTITIONS = 2
USERS = ("collector", "worker", "archive", "stranger")


@dataclass(frozen=True, slots=True)
class Secured:
    """The broker, and who may come."""

    broker: LocalKafka
    listeners: SecuredListeners

    def as_(self, user: str, password_file: Path | None = None) -> Brokers:
        """The broker, for this user."""
        return reach(self.broker.bootstrap, self.listeners.kafka_config(user, password_file))

    def for_agent(self, config: Path) -> str:
        """The same keys as in a file for --kafka-config, below `kafka:`."""
        return "kafka:\n" + textwrap.indent(config.read_text(encoding="utf-8"), "  ")


@contextmanager
def secured_broker(folder: Path, users: tuple[str, ...] = USERS) -> Iterator[Secured]:
    """With the contract's topics, and the ACLs that `fleetbeat topics acl` creates."""
    listeners = SecuredListeners(users)
    broker = LocalKafka(folder, port=free_port(), heap_mb=HEAP_MB, listeners=listeners, start_timeout_s=START_S)
    with broker:
        world = Secured(broker, listeners)
        assert run_apply(world.as_("admin"), PARTITIONS, local=True) == 0
        assert run_acl(world.as_("admin"), (), dry_run=False) == 0
        yield world


async def read_results(brokers: Brokers) -> list[ProbeResult]:
    """All that is in probe-results."""
    consumer = AIOKafkaConsumer(**client_settings(brokers), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found = []
    try:
        places = [TopicPartition("probe-results", partition) for partition in range(PARTITIONS)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [decode(record.value) for record in records]
            await asyncio.sleep(POLL_S)
    finally:
        await consumer.stop()
    return [record for record in found if isinstance(record, ProbeResult)]
