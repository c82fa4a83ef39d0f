"""Topics on a real broker: created, checked, repaired, refused."""

import asyncio
import time
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.topics import run_apply, run_check
from infra.topics.command import apply, check
from infra.topics.plan import Alter, ClusterProfile, Record, Refuse
from schemas.catalog import SchemaVersion, load_catalog
from tests.ports import free_port

pytestmark = pytest.mark.kafka

PARTITIONS = 3
PROFILE = ClusterProfile.local(PARTITIONS)
LOG_APPEND_TIME = 1


def test_what_was_applied_is_found_as_wanted(brokers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check(brokers, 3, local=True) == 0
    assert run_apply(brokers, 3, local=True) == 0
    assert capsys.readouterr().out.count("fine") == 2 * (1 + len(load_catalog().topics))


def test_another_partition_count_is_refused_with_its_reason(brokers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_apply(brokers, 4, local=True) == 1
    assert "probe-results: refused: has 3 partitions, asked for 4" in capsys.readouterr().out


def test_a_create_time_topic_is_reported_and_repaired(brokers: str) -> None:
    async def spoil() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        settings = {"message.timestamp.type": "CreateTime", "max.message.bytes": "2000000", "retention.ms": "604800000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "probe-results", settings)])
        await admin.close()

    asyncio.run(spoil())
    [found] = asyncio.run(check(brokers, PROFILE))
    assert isinstance(found, Alter)
    assert [(change.found, change.wanted) for change in found.changes] == [("CreateTime", "LogAppendTime")]
    assert found.own["max.message.bytes"] == "2000000"
    asyncio.run(apply(brokers, PROFILE))
    assert asyncio.run(check(brokers, PROFILE)) == []


def test_records_carry_the_brokers_time(brokers: str) -> None:
    async def send_and_read() -> tuple[int, int]:
        async with AIOKafkaProducer(bootstrap_servers=brokers) as producer:
            await producer.send_and_wait("probe-results", b"x", partition=0, timestamp_ms=1)
        async with AIOKafkaConsumer(bootstrap_servers=brokers) as consumer:
            consumer.assign([TopicPartition("probe-results", 0)])
            await consumer.seek_to_beginning()
            record = await asyncio.wait_for(consumer.getone(), 60)
            return record.timestamp, record.timestamp_type

    stamp, kind = asyncio.run(send_and_read())
    assert kind == LOG_APPEND_TIME
    assert abs(stamp / 1000 - time.time()) < 60


def test_an_incompatible_schema_is_refused_and_nothing_changes(brokers: str) -> None:
    catalog = load_catalog()
    probes = catalog.topic("probe-results")
    text = probes.latest.text.replace('"name":"latency_us","type":"long"', '"name":"latency_us","type":"string"')
    assert text != probes.latest.text
    breaking = replace(probes, versions=(probes.latest, SchemaVersion(2, 99, "probe_result.v2.avsc", text, {})))
    others = [replace(topic, name=f"new-{name}") for name, topic in catalog.topics.items() if name != "probe-results"]

    actions = asyncio.run(apply(brokers, PROFILE, [breaking, *others]))

    refused = [action.reason for action in actions if isinstance(action, Refuse) and action.topic == "probe-results"]
    assert len(refused) == 1
    assert "field `latency_us`: type changed from long to string" in refused[0]
    assert asyncio.run(check(brokers, PROFILE)) == []
    assert not [name for name in asyncio.run(list_topics(brokers)) if name.startswith("new-")]


def test_a_compatible_schema_is_recorded_for_later_ones(brokers: str) -> None:
    probes = load_catalog().topic("probe-results")
    wider = probes.latest.text.replace('"name":"latency_us","type":"long"', '"name":"latency_us","type":"double"')
    second = replace(probes, versions=(probes.latest, SchemaVersion(2, 99, "probe_result.v2.avsc", wider, {})))
    assert [type(action) for action in asyncio.run(apply(brokers, PROFILE, [second]))] == [Record]
    assert asyncio.run(check(brokers, PROFILE, [second])) == []

    refused = asyncio.run(check(brokers, PROFILE, [probes]))[0]

    assert isinstance(refused, Refuse)
    assert "field `latency_us`: type changed from double to long" in refused.reason


def test_a_cluster_that_does_not_answer_is_another_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert run_check(address, 3, local=True) == 2
    said = f"fleetbeat: cannot reach Kafka at {address}; is a broker running there? ("
    assert capsys.readouterr().err.startswith(said)


async def list_topics(brokers: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()
