"""An exporter that answers as it is told, and what a scraper makes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agents.clock import SystemClock
from agents.node import Node
from agents.publish import Outbox
from agents.scrape.pipeline import Scraper
from agents.scrape.settings import ScrapeFile
from schemas.records import ProbeResult, RequestCount
from tests.unit.agent_fakes import ListPublisher

NODE = Node("web-17", "eu-1", "eu-1a", (), "boot", 0, 10_000, "0.1.0")


@dataclass
class Shop:
    """An exporter on a port of its own. What it answers may be changed; each answer has served a request more."""

    hits: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    answer: Callable[["Shop"], bytes] = lambda shop: page(f"hits_total {shop.hits}\n")
    port: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                self.hits += 1
                answer = self.answer(self)
                writer.write(answer)
                await writer.drain()
                if answer.startswith(b"HTTP/1.0"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def page(text: str, *headers: str, status: str = "200 OK", body: bytes | None = None) -> bytes:
    content = text.encode() if body is None else body
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain; version=0.0.4", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


@asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[Shop]:
    server = await asyncio.start_server(shop.talk, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    try:
        yield shop
    finally:
        server.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits for what others bring about; pytest's own limit ends it when they do not."""
    while not condition():  # noqa: ASYNC110 - it looks from outside
        await asyncio.sleep(0.01)


def scrape_file(*ports: int, **settings: object) -> ScrapeFile:
    base = {"name": "shop", "service": "shop", "requests": [{"counter": "hits_total"}]}
    return ScrapeFile.model_validate({**base, "targets": [f"127.0.0.1:{port}" for port in ports], **settings})


def scraper(file: ScrapeFile, publisher: ListPublisher) -> Scraper:
    return Scraper([file], NODE, Outbox(publisher), SystemClock())


def with_shop(case: Callable[[Shop], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(Shop()) as shop:
            await case(shop)

    asyncio.run(main())


def results(publisher: ListPublisher) -> list[ProbeResult]:
    return [record for record in publisher.taken if isinstance(record, ProbeResult)]


def counts(publisher: ListPublisher) -> list[RequestCount]:
    return [record for record in publisher.taken if isinstance(record, RequestCount)]
