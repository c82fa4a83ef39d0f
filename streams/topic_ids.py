"""Which topic a name stands for now: one that is deleted and created again has another id.

The id is in Kafka's metadata from version 10 of the request on (Kafka 2.8), which aiokafka does not speak. A broker
that is older gives no ids; then topics are told apart by their names alone, as without this module.
"""

import asyncio
import base64
import time
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

UNKNOWN = ""  # the id of a topic on a broker that has no ids
_RETRY_S = 0.2
_PATIENCE_S = 15.0  # as long as the producer's
_NO_ERROR = 0


class TopicIdentity(NamedTuple):
    """What a topic is apart from its name."""

    topic_id: str
    partitions: int


class TopicRecreatedError(RuntimeError):
    """Records were polled of a topic that may not be the one which offsets and state refer to: a restart reads anew."""

    def __init__(self, topic: str, expected: str | None, found: str | None) -> None:
        what = f"another topic has its name (id {found})" if found else "there is none of that name"
        super().__init__(
            f"topic {topic} of id {expected or 'none'} was deleted and {what}; expected it to stay while a worker "
            "reads it: nothing of what was read last was published; a restart goes on with what there is"
        )


class _Uuid(CompactString):  # type: ignore[misc]  # aiokafka has no types
    """16 bytes, shown as Kafka's tools show them."""

    def encode(self, value: str | None) -> bytes:
        return base64.urlsafe_b64decode((value or "A" * 22) + "==")

    def decode(self, data: BytesIO) -> str:
        raw = data.read(16)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else UNKNOWN


_TAGS = ("tags", TaggedFields)


class _Answer(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), _TAGS
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("topic_authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_authorized_operations", Int32),
        _TAGS,
    )


class _Question(RequestStruct):  # type: ignore[misc]  # as above
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid()), ("name", CompactString()), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _TopicIds(Request[_Question]):  # type: ignore[misc]  # as above
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_Question]) -> _Question:
        asked: list[tuple[str, str, dict[int, bytes]]] = [(UNKNOWN, topic, {}) for topic in self._topics]
        return request_struct_class(asked, False, False, False, {})  # noqa: FBT003 - aiokafka's signature


async def fetch_topic_ids(client: Any, topics: Iterable[str]) -> dict[str, str]:  # noqa: ANN401 - an AIOKafkaClient
    """The ids of those topics that exist; UNKNOWN for all of them on a broker that has no ids.

    A broker that does not answer is asked again for as long as a producer would try. Raises KafkaError.
    """
    topics, until_s = list(topics), time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await _ask(client, topics)
        except NotImplementedError:  # aiokafka's answer when the broker does not speak version 10
            return dict.fromkeys(topics, UNKNOWN)
        except KafkaError:
            if time.monotonic() > until_s:
                raise
        await asyncio.sleep(_RETRY_S)


async def _ask(client: Any, topics: list[str]) -> dict[str, str]:  # noqa: ANN401 - as above
    node = client.get_random_node()
    if node is None:
        await client.force_metadata_update()
        raise KafkaConnectionError("no broker is known")
    answer = await client.send(node, _TopicIds(topics))
    return {topic[1]: topic[2] for topic in answer.topics if topic[0] == _NO_ERROR}
