"""Reading the state of a cluster and carrying out a plan, over aiokafka's admin client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, for_code

from infra import InfraError
from infra.topics.plan import SCHEMAS_TOPIC, Action, Alter, AppliedSchema, ClusterState, Create, FoundTopic, Record
from schemas.kafka import Brokers, client_settings
from schemas.kafka.reasons import why_not
from schemas.kafka.settings import check_addresses

_TIMEOUT_MS = 15_000
_SET_ON_TOPIC = 1  # config source DYNAMIC_TOPIC_CONFIG of DescribeConfigs
_POLL_S = 0.05


class Unreachable(InfraError):  # noqa: N818 - it is a finding, not a failure
    """No broker answers at the address."""


class Cluster:
    """A connected cluster; made by `connected`."""

    def __init__(self, bootstrap: Brokers, admin: AIOKafkaAdminClient) -> None:
        self._bootstrap = bootstrap
        self.admin = admin

    async def state(self, names: Sequence[str]) -> ClusterState:
        """The named topics as they are, and the schemas that were applied."""
        brokers = (await self.admin.describe_cluster())["brokers"]
        described = {topic["topic"]: topic for topic in await self.admin.describe_topics()}
        there = [name for name in names if name in described]
        configs = await self._configs(there)
        topics = {name: _found(described[name]["partitions"], configs[name]) for name in there}
        schemas = await self._applied_schemas() if SCHEMAS_TOPIC in described else {}
        return ClusterState(len(brokers), topics, schemas)

    async def carry_out(self, actions: Sequence[Action], replication: int) -> None:
        """Does what the plan says, first topics, then schemas. Raises InfraError with the broker's words."""
        creates = [action for action in actions if isinstance(action, Create)]
        if creates:
            await self._create(creates, replication)
        for action in actions:
            if isinstance(action, Alter):
                await self._alter(action)
        records = [action for action in actions if isinstance(action, Record)]
        if records:
            await self._record(records)

    async def _configs(self, names: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
        if not names:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs = {}
        for response in await self.admin.describe_configs(asked):
            for code, message, _, name, entries in response.resources:
                _raise_for(code, message, f"reading the settings of {name}")
                configs[name] = entries
        return configs

    async def _create(self, creates: Sequence[Create], replication: int) -> None:
        topics = [
            NewTopic(action.topic, action.wanted.partitions, replication, topic_configs=dict(action.wanted.config))
            for action in creates
        ]
        response = await self.admin.create_topics(topics, timeout_ms=_TIMEOUT_MS)
        for name, code, message in response.topic_errors:
            _raise_for(code, message, f"creating {name}")
        await self._await_leaders({action.topic: action.wanted.partitions for action in creates})

    async def _await_leaders(self, partitions: Mapping[str, int]) -> None:
        deadline = time.monotonic() + _TIMEOUT_MS / 1000
        while True:
            described = await self.admin.describe_topics(list(partitions))
            led = {
                topic["topic"]: sum(partition["leader"] >= 0 for partition in topic["partitions"])
                for topic in described
            }
            waiting = [name for name, count in partitions.items() if led.get(name, 0) < count]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise InfraError(f"no leader for every partition of {', '.join(waiting)} after {_TIMEOUT_MS // 1000} s")
            await asyncio.sleep(_POLL_S)

    async def _alter(self, action: Alter) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, action.topic, dict(action.own))
        for response in await self.admin.alter_configs([resource]):
            for code, message, *_ in response.resources:
                _raise_for(code, message, f"changing the settings of {action.topic}")

    async def _applied_schemas(self) -> dict[str, tuple[AppliedSchema, ...]]:
        """The newest note of every subject, read from the whole compacted topic."""
        consumer = AIOKafkaConsumer(**client_settings(self._bootstrap), request_timeout_ms=_TIMEOUT_MS)
        partition = TopicPartition(SCHEMAS_TOPIC, 0)
        notes: dict[str, tuple[AppliedSchema, ...]] = {}
        await consumer.start()
        try:
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = await _end(consumer, partition)
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, []):
                    notes[record.key.decode()] = _versions(record.value, record.offset)
        finally:
            await consumer.stop()
        return notes

    async def _record(self, records: Sequence[Record]) -> None:
        producer = AIOKafkaProducer(**client_settings(self._bootstrap), acks="all", request_timeout_ms=_TIMEOUT_MS)
        await producer.start()
        try:
            for record in records:
                note = [{"version": v.version, "id": v.id, "schema": v.text} for v in record.versions]
                value = json.dumps(note, separators=(",", ":")).encode()
                await producer.send_and_wait(SCHEMAS_TOPIC, value, key=record.subject.encode(), partition=0)
        finally:
            await producer.stop()


async def _end(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """The end of a partition's log; a broker under load may not yet know itself as leader of a topic just created."""
    deadline = time.monotonic() + _TIMEOUT_MS / 1000
    while True:
        try:
            return int((await consumer.end_offsets([partition]))[partition])
        except KafkaError as cause:
            if not cause.retriable or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def connected(bootstrap: Brokers) -> AsyncIterator[Cluster]:
    """A cluster for as long as the context lasts. Raises Unreachable, and InfraError for what a broker refuses."""
    try:
        check_addresses(str(bootstrap))
    except ValueError:
        raise InfraError(f"brokers {bootstrap!r}: expected HOST:PORT, or several with commas between") from None
    admin = AIOKafkaAdminClient(**client_settings(bootstrap), request_timeout_ms=_TIMEOUT_MS)
    try:
        await admin.start()
        yield Cluster(bootstrap, admin)
    except (KafkaConnectionError, KafkaTimeoutError, TimeoutError, OSError) as cause:
        why = await why_not(bootstrap, cause)
        raise Unreachable(f"cannot reach Kafka at {bootstrap}; is a broker running there? ({why})") from cause
    except KafkaError as cause:
        raise InfraError(f"Kafka at {bootstrap} refused: {await why_not(bootstrap, cause)}") from cause
    finally:
        await admin.close()


def _found(partitions: Sequence[Mapping[str, Any]], entries: Sequence[tuple[Any, ...]]) -> FoundTopic:
    config = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    own = {entry[0]: entry[1] for entry in entries if entry[1] is not None and entry[3] == _SET_ON_TOPIC}
    replication = min(len(partition["replicas"]) for partition in partitions)
    return FoundTopic(len(partitions), replication, config, own)


def _versions(value: bytes | None, offset: int) -> tuple[AppliedSchema, ...]:
    if value is None:
        return ()
    try:
        return tuple(AppliedSchema(int(v["version"]), int(v["id"]), str(v["schema"])) for v in json.loads(value))
    except (ValueError, KeyError, TypeError) as cause:
        raise InfraError(
            f"{SCHEMAS_TOPIC}, offset {offset}: expected a JSON list of {{version, id, schema}}, found {value[:80]!r}"
        ) from cause


def _raise_for(code: int, message: str | None, doing: str) -> None:
    if code:
        raise InfraError(f"{doing}: {message or for_code(code).description} ({for_code(code).__name__})")
