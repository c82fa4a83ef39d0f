"""What `fleetbeat state` asks of Kafka and tells it: logs, commits, the group, and the deletion of commits."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from schemas.kafka import Brokers, client_settings
from schemas.kafka.reasons import FORBIDDEN, why_not
from streams.engine.app import APP_ID, MAX_MESSAGE_BYTES
from streams.engine.brokers import fetch_commits
from streams.engine.commit_notes import Note
from streams.topic_ids import fetch_topic_ids

_TIMEOUT_MS = 15_000
_NO_MEMBERS = {"Empty", "Dead"}


class StateError(RuntimeError):
    """The state cannot be read or changed now; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a partition holds: offsets from `begin` up to, not including, `end`; `first_ms`: of its first record."""

    begin: int
    end: int
    first_ms: int | None


@dataclass(frozen=True, slots=True)
class Commit:
    """Where the group reads on, and what it noted there."""

    offset: int
    note: Note


class _Deleted(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 47
    API_VERSION = 0
    SCHEMA = Schema(
        ("error_code", Int16),
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    )


class _Delete(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 47
    API_VERSION = 0
    RESPONSE_TYPE = _Deleted
    SCHEMA = Schema(
        ("group_id", String("utf-8")),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
    )


class _DeleteOffsets(Request[_Delete]):  # type: ignore[misc]  # as above
    API_KEY = 47

    def __init__(self, group: str, places: Collection[TopicPartition]) -> None:
        self._group = group
        self._places = places

    def build(self, request_struct_class: type[_Delete]) -> _Delete:
        topics = sorted({place.topic for place in self._places})
        wanted = [(topic, sorted(p.partition for p in self._places if p.topic == topic)) for topic in topics]
        return request_struct_class(self._group, wanted)


class Cluster:
    """A connected cluster; made by `connected`."""

    def __init__(self, brokers: Brokers, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self.brokers = brokers
        self._admin = admin
        self._consumer = consumer

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """Partition counts of those topics that exist. Raises TopicAuthorizationFailedError for hidden ones."""
        described = await self._admin.describe_topics(list(topics))
        denied = TopicAuthorizationFailedError.errno
        if hidden := [entry["topic"] for entry in described if entry["error_code"] == denied]:
            raise TopicAuthorizationFailedError(", ".join(hidden))
        return {entry["topic"]: len(entry["partitions"]) for entry in described if entry["partitions"]}

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """The ids of those topics that exist."""
        return await fetch_topic_ids(self._admin._client, topics)  # noqa: SLF001 - no public way to new requests

    async def logs(self, topic: str, partitions: Collection[int]) -> dict[int, Log]:
        """What the partitions hold."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        begins = await self._consumer.beginning_offsets(places)
        ends = await self._consumer.end_offsets(places)
        firsts = await self._consumer.offsets_for_times(dict.fromkeys(places, 0))
        return {
            p.partition: Log(begins[p], ends[p], firsts[p].timestamp if firsts.get(p) and begins[p] < ends[p] else None)
            for p in places
        }

    async def offsets_at(self, topic: str, times: Mapping[int, int]) -> dict[int, int]:
        """For each partition the offset of the first record appended at a time (ms) or later, or of the log's end."""
        places = {TopicPartition(topic, partition): at for partition, at in times.items()}
        found = await self._consumer.offsets_for_times(places)
        ends = await self._consumer.end_offsets(list(places))
        return {p.partition: known.offset if (known := found.get(p)) else ends[p] for p in places}

    async def commits(self, group: str = APP_ID) -> dict[tuple[str, int], Commit]:
        """Of every partition that has one."""
        found = await fetch_commits(self._admin, group)
        return {
            (tp.topic, tp.partition): Commit(meta.offset, Note.read(meta.metadata or ""))
            for tp, meta in found.items()
            if meta.offset >= 0
        }

    async def members(self, group: str = APP_ID) -> list[str]:
        """Who is in the group, as `client at host`; empty when nobody is."""
        (answer,) = await self._admin.describe_consumer_groups([group])
        code, _, state, _, _, members, *_ = answer.groups[0]
        if code:
            raise for_code(code)(f"group {group}")
        return [f"{member[1]} at {member[2]}" for member in members] or ([] if state in _NO_MEMBERS else [state])

    async def require_no_worker(self, group: str = APP_ID) -> None:
        """Raises StateError."""
        if members := await self.members(group):
            raise StateError(
                f"group {group} has {len(members)} members: {', '.join(members[:5])}; expected none: stop every worker "
                "first (one that was killed leaves the group after 6 s)"
            )

    async def delete_commits(self, places: Collection[TopicPartition], group: str = APP_ID) -> None:
        """Raises StateError when the broker does not."""
        if not places:
            return
        node = await self._admin.find_coordinator(group)
        answer = await self._admin._send_request(_DeleteOffsets(group, places), node)  # noqa: SLF001 - as above
        codes = [answer.error_code, *(code for _, parts in answer.topics for _, code in parts)]
        if wrong := next((code for code in codes if code), 0):
            raise StateError(f"commits of group {group} cannot be deleted: {for_code(wrong).__name__}")

    async def commit(self, commits: Mapping[TopicPartition, Commit], group: str = APP_ID) -> None:
        """Sets commits of a group without members."""
        consumer = AIOKafkaConsumer(**client_settings(self.brokers), group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(list(commits))
            await consumer.commit({tp: OffsetAndMetadata(c.offset, c.note.write()) for tp, c in commits.items()})
        finally:
            await consumer.stop()

    async def write(self, topic: str, records: Collection[tuple[int, bytes, bytes | None]]) -> None:
        """(partition, key, value) each; returns when all are acknowledged."""
        producer = AIOKafkaProducer(
            **client_settings(self.brokers), acks="all", linger_ms=20, max_request_size=MAX_MESSAGE_BYTES
        )
        await producer.start()
        try:
            acks = [await producer.send(topic, value, key, partition) for partition, key, value in records]
            await asyncio.gather(*acks)
        finally:
            await producer.stop()


@asynccontextmanager
async def connected(brokers: Brokers) -> AsyncIterator[Cluster]:
    """A cluster for as long as the context lasts. Raises StateError."""
    admin = AIOKafkaAdminClient(**client_settings(brokers), request_timeout_ms=_TIMEOUT_MS)
    consumer = AIOKafkaConsumer(**client_settings(brokers), enable_auto_commit=False, request_timeout_ms=_TIMEOUT_MS)
    try:
        await admin.start()
        await consumer.start()
        yield Cluster(brokers, admin, consumer)
    except (KafkaError, OSError) as cause:
        expected = "" if isinstance(cause, FORBIDDEN) else "; expected a reachable Kafka"
        raise StateError(f"brokers {brokers}: {await why_not(brokers, cause)}{expected}") from cause
    finally:
        await consumer.stop()
        await admin.close()
