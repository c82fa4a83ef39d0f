"""One producer of aiokafka, from its start to its end."""

import asyncio
from typing import Any

from aiokafka.errors import KafkaError

CLOSE_S = 5.0


class Connection:
    """A producer, and a future that is done once nothing given to it can be acknowledged any more."""

    def __init__(self, producer: Any) -> None:  # noqa: ANN401 - aiokafka ships no types
        self.producer = producer
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()


async def end(connection: Connection) -> None:
    """Ends its producer, and says so."""
    await stop(connection.producer, CLOSE_S)
    connection.gone.set_result(None)


async def stop(producer: Any, patience_s: float) -> None:  # noqa: ANN401 - aiokafka ships no types
    """Ends a producer; without a broker its own `stop` waits for ever for what it still has."""
    try:
        async with asyncio.timeout(patience_s):
            await producer.stop()
    except (KafkaError, OSError):
        sender = producer._sender.sender_task  # noqa: SLF001 - there is no other way to end it (aiokafka 0.14)
        if sender is not None:
            sender.cancel()
        await producer.client.close()
