"""What a process asks of the brokers before it starts."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from streams.engine.app import APP_ID
from streams.engine.commit_notes import Note

_NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
_PATIENCE_S = 15.0
_POLL_S = 0.1


class NotPreparedError(RuntimeError):
    """The brokers cannot be reached, or the topics are not as they must be; says what to do."""


async def find_partitions(brokers: str, topics: Sequence[str], group: str = APP_ID) -> int:
    """The partition count that all `topics` have, and had when `group` last committed. Raises NotPreparedError."""
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    try:
        await client.start()
        described = await client.describe_topics(list(topics))
        commits = await fetch_commits(client, group)
    except KafkaError as error:
        message = f"brokers {brokers}: {error}; expected a reachable Kafka"
        raise NotPreparedError(message) from error
    finally:
        await client.close()
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


def _require_unchanged(brokers: str, commits: Mapping[Any, Any], count: int) -> None:
    """With another count keys have other partitions: state would be answered and counted in the wrong places."""
    for place, commit in commits.items():
        before = Note.read(commit.metadata or "").partitions
        if before not in (0, count):
            raise NotPreparedError(
                f"brokers {brokers}: topics have {count} partitions, but the commit of {place.topic} partition "
                f"{place.partition} was made with {before}; expected {before}, or no state "
                f"(`fleetbeat state rebuild --brokers {brokers}` begins anew from what the topics hold)"
            )
