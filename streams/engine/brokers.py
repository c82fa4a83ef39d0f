"""What a process asks of the brokers before it starts."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    TopicAuthorizationFailedError,
)
from faust.types import TP

from schemas.kafka import Brokers, client_settings
from schemas.kafka.reasons import FORBIDDEN, forbidden_topics, why_not
from streams.engine.app import APP_ID
from streams.engine.commit_notes import Note

_NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
_PATIENCE_S = 15.0
_POLL_S = 0.1


class NotPreparedError(RuntimeError):
    """The brokers cannot be reached, or the topics are not as they must be; says what to do."""


class PartitionsAddedError(RuntimeError):
    """A topic was given more partitions while a worker runs: keys are elsewhere now than where it looks for them."""

    def __init__(self, topic: str, partition: int, expected: int) -> None:
        super().__init__(
            f"topic {topic} has a partition {partition} now; expected {expected} partitions, as all topics had when "
            "this worker started (one that starts says what can be done)"
        )


def require_no_others(assigned: Iterable[TP], partitions: int) -> None:
    """Raises PartitionsAddedError unless all assigned partitions were there when the worker started."""
    for tp in sorted(assigned):
        if tp.partition >= partitions:
            raise PartitionsAddedError(tp.topic, tp.partition, partitions)


async def find_partitions(brokers: Brokers, topics: Sequence[str], group: str = APP_ID) -> int:
    """The partition count that all `topics` have, and had when `group` last committed. Raises NotPreparedError."""
    client = AIOKafkaAdminClient(**client_settings(brokers))
    try:
        await client.start()
        described = await client.describe_topics(list(topics))
        commits = await fetch_commits(client, group)
    except KafkaError as error:
        expected = "" if isinstance(error, FORBIDDEN) else "; expected a reachable Kafka"
        message = f"brokers {brokers}: {await why_not(brokers, error)}{expected}"
        raise NotPreparedError(message) from error
    finally:
        await client.close()
    require_allowed(brokers, described)
    counts = {entry["topic"]: len(entry["partitions"]) for entry in described}
    missing = [topic for topic in topics if not counts.get(topic)]
    if missing:
        message = (
            f"brokers {brokers}: no topic {', '.join(missing)}; run `fleetbeat topics apply --brokers {brokers}` first"
        )
        raise NotPreparedError(message)
    if len(set(counts.values())) > 1:
        message = (
            f"brokers {brokers}: partition counts differ: {counts}; expected one count for all topics of the worker"
        )
        raise NotPreparedError(message)
    count = counts[topics[0]]
    _require_unchanged(brokers, commits, count)
    return count


def require_allowed(brokers: Brokers, described: Iterable[Mapping[str, Any]]) -> None:
    """A topic that we may not see looks like one that is not there. Raises NotPreparedError."""
    hidden = [entry["topic"] for entry in described if entry["error_code"] == TopicAuthorizationFailedError.errno]
    if hidden:
        raise NotPreparedError(f"brokers {brokers}: {forbidden_topics(brokers, hidden)}")


async def fetch_commits(client: AIOKafkaAdminClient, group: str) -> Mapping[Any, Any]:
    """(offset, metadata) by topic and partition; the first question ever waits for a coordinator. Raises KafkaError."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await client.list_consumer_group_offsets(group)  # type: ignore[no-any-return]
        except _NOT_YET:
            if time.monotonic() > until_s:
                raise
        await asyncio.sleep(_POLL_S)


def _require_unchanged(brokers: Brokers, commits: Mapping[Any, Any], count: int) -> None:
    """With another count keys have other partitions: state would be answered and counted in the wrong places."""
    for place, commit in commits.items():
        before = Note.read(commit.metadata or "").partitions
        if before not in (0, count):
            raise NotPreparedError(
                f"brokers {brokers}: topics have {count} partitions, but the commit of {place.topic} partition "
                f"{place.partition} was made with {before}; expected {before}, or no state "
                f"(`fleetbeat state rebuild --brokers {brokers}` begins anew from what the topics hold)"
            )
