"""Fixtures that need a real broker: the same launcher that `fleetbeat up` uses."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from hypothesis import HealthCheck, settings

from infra.kafka import LocalKafka
from infra.topics import run_apply
from infra.topics.plan import SCHEMAS_TOPIC
from schemas.catalog import load_catalog
from tests.class_archive import make_archive, use_archive
from tests.ports import free_port, keep_apart
from tests.schedule import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler, step_back

__all__ = ["pytest_xdist_auto_num_workers", "pytest_xdist_make_scheduler"]

use_archive()
keep_apart()
step_back()
# How long an example takes says something about the machine. In CI hypothesis draws the same examples each time;
# elsewhere, and in `make long`, new ones.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

HEAP_MB = 320
START_S = 200.0
DELETION_DEADLINE_S = 90.0

MakeTopics = Callable[[int], LocalKafka]


def new_broker(factory: pytest.TempPathFactory) -> LocalKafka:
    """A broker on a folder and a port of its own, not started."""
    make_archive()
    return LocalKafka(factory.mktemp("kafka"), port=free_port(), heap_mb=HEAP_MB, start_timeout_s=START_S)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The broker that the tests of a session share; leave it running, and use `topics` for clean topics."""
    with new_broker(tmp_path_factory) as broker:
        yield broker


@pytest.fixture(scope="module")
def fresh_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker for one file of tests, which may stop it, kill it and start it again."""
    with new_broker(tmp_path_factory) as broker:
        yield broker


@pytest.fixture
def topics(kafka: LocalKafka) -> MakeTopics:
    """`topics(partitions)` makes the contract's topics anew on the shared broker, empty, and returns the broker."""

    def make(partitions: int) -> LocalKafka:
        asyncio.run(drop_topics(kafka.bootstrap))
        assert run_apply(kafka.bootstrap, partitions, local=True) == 0
        return kafka

    return make


async def drop_topics(bootstrap: str) -> None:
    """Deletes the contract's topics and returns when the broker no longer lists them."""
    names = {SCHEMAS_TOPIC, *load_catalog().topics}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        deadline = time.monotonic() + DELETION_DEADLINE_S
        while there := names & set(await admin.list_topics()):
            await admin.delete_topics(sorted(there))
            assert time.monotonic() < deadline, f"still there: {there}"
    finally:
        await admin.close()
