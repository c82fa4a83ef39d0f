"""What a process asks of the brokers before it starts."""

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError


class NotPreparedError(RuntimeError):
    """The brokers cannot be reached, or the topics are not as they must be; says what to do."""


async def find_partitions(brokers: str, topics: Sequence[str]) -> int:
    """The partition count that all `topics` have. Raises NotPreparedError."""
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    try:
        await client.start()
        described = await client.describe_topics(list(topics))
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
    return counts[topics[0]]
