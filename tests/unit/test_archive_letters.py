"""Dead letters while Kafka is away: the archive can end, and give partitions back."""

import asyncio
import time
from typing import Any

import pytest

from streams.archive import letters as letters_module
from streams.archive.consumer import GivenUpError
from streams.archive.letters import DeadLetters


class Patient:
    """A producer whose broker has gone: like aiokafka's with idempotence it waits for ever, also to be stopped."""

    def __init__(self, **_: object) -> None:
        self.sent = 0

    async def start(self) -> None:
        pass

    async def send(self, *_: object, **__: object) -> asyncio.Future[Any]:
        self.sent += 1
        return asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        await asyncio.sleep(3_600)


def test_letters_that_nobody_acknowledges_hold_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_module, "AIOKafkaProducer", Patient)
    monkeypatch.setattr(letters_module, "_RETRY_S", 0.01)
    monkeypatch.setattr(letters_module, "_CLOSE_S", 0.05)

    async def scene() -> None:
        letters, until = DeadLetters("127.0.0.1:9"), time.monotonic() + 0.1
        with pytest.raises(GivenUpError):
            await letters.send([(None, b"1"), (None, b"2")], lambda: time.monotonic() < until)
        producer = await letters._started()
        assert producer.sent == 2  # sent once: the producer itself tries again
        await letters.close()

    asyncio.run(asyncio.wait_for(scene(), 5))
