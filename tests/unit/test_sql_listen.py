"""The SQL address without an engine: how many connections it takes."""

import asyncio

from aiohttp import web

from schemas.listen import parse_listen
from streams.archive.sql_listen import SqlListener


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _asked(port: int) -> tuple[bytes, asyncio.StreamWriter]:
    """What comes first on a new connection, and the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    try:
        return (await reader.read(12)), writer
    except ConnectionError:
        return b"", writer


def test_a_connection_too_many_is_closed_and_makes_no_room_scarce_for_good() -> None:
    async def run() -> None:
        application = web.Application()
        application.router.add_get("/", _ok)
        runner = web.AppRunner(application, shutdown_timeout=1.0)
        await runner.setup()
        listener = await SqlListener.open(runner, parse_listen("127.0.0.1:0"), most=2)
        kept = [await _asked(listener.port) for _ in range(2)]
        assert [answer for answer, _ in kept] == [b"HTTP/1.1 200"] * 2
        answer, surplus = await _asked(listener.port)
        assert answer == b""
        kept[0][1].close()
        async with asyncio.timeout(30):
            while not answer:
                surplus.close()
                answer, surplus = await _asked(listener.port)
        for writer in (kept[1][1], surplus):
            writer.close()
        listener.close()
        await runner.cleanup()

    asyncio.run(run())
