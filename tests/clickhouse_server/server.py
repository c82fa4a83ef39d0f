"""ClickHouse's HTTP interface over chDB, to read and to write, as a process of its own: FOLDER PORT.

What clickhouse-connect needs: queries with parameters and settings, commands, inserts of any format with their token,
also `INSERT … SELECT … FROM input(…)`. The engine judges everything; here is only HTTP. Everybody may do everything.
"""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from streams.archive import wire
from streams.archive.embedded import EmbeddedStore, Handle, SqlError
from tests.clickhouse_server.shim import take_over

THREADS = 16
MEMORY_BYTES = 1 << 30
LARGEST_BYTES = 256 << 20
_INSERT = re.compile(rb"\s*INSERT\s+INTO\s+(?P<into>.+?)\s+FORMAT\s+(?P<format>\w+)\s", re.IGNORECASE | re.DOTALL)
_INPUT = re.compile(r"\binput\('(?P<structure>(?:[^'\\]|\\.)*)'\)")
_ASKED_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
# Of the interface, not of the engine.
_TRANSPORT = frozenset({
    "query", "database", "user", "password", "client_protocol_version", "compress", "decompress", "default_format",
    "enable_http_compression", "wait_end_of_query", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "query_id", "session_id", "session_timeout", "session_check", "quota_key",
    "cancel_http_readonly_queries_on_client_close",
})  # fmt: skip


class Server:
    """Answers on one port until SIGTERM; each request has a connection to the engine of its own."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sql")

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, dict(request.query), body)
        except SqlError as problem:
            headers = {"X-ClickHouse-Exception-Code": str(problem.code)}
            return web.Response(status=wire.http_status(problem.code), text=problem.text, headers=headers)

    def _run(self, asked: dict[str, str], body: bytes) -> web.Response:
        text = asked.get("query", "").encode()
        sql = b"\n".join(part for part in (text, body) if part)
        settings = {name: asked[name] for name in asked.keys() - _TRANSPORT if not name.startswith("param_")}
        params = {name[6:]: value for name, value in asked.items() if name.startswith("param_")}
        with self._store.handle() as handle:
            if database := asked.get("database"):
                handle.query(f"USE {database}")
            if insert := _INSERT.match(sql):
                return _insert(
                    handle, insert["into"].decode(), insert["format"].decode(), sql[insert.end() :], settings
                )
            for name, value in settings.items():
                handle.query(f"SET {name} = {_quoted(value)}")
            return _select(handle, sql.decode(), params)


def _insert(handle: Handle, into: str, data_format: str, data: bytes, settings: dict[str, str]) -> web.Response:
    said = ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items())
    clause = f" SETTINGS {said}" if said else ""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        if found := _INPUT.search(into):
            source = f"file('{file.name}', '{data_format}', '{found['structure']}')"
            handle.query(f"INSERT INTO {into[: found.start()]}{source}{into[found.end() :]}{clause}")
        else:
            handle.query(f"INSERT INTO {into} FROM INFILE '{file.name}'{clause} FORMAT {data_format}")
    return web.Response(headers={"X-ClickHouse-Summary": "{}"})


def _select(handle: Handle, sql: str, params: dict[str, str]) -> web.Response:
    asked = _ASKED_FORMAT.search(sql)
    output_format = asked[1] if asked else "TabSeparated"
    answer = handle.query(sql, output_format, params)
    data = answer.data
    if not data and output_format == "Native":
        described = handle.query(
            f"DESCRIBE TABLE ({sql[: asked.start()] if asked else sql})", "JSONCompactEachRow", params
        )
        rows = [json.loads(line) for line in described.data.splitlines()]
        data = wire.empty_block([(row[0], row[1]) for row in rows])
    headers = {"X-ClickHouse-Summary": json.dumps({"result_rows": str(answer.result_rows)})}
    if data:
        headers["X-ClickHouse-Format"] = output_format
    return web.Response(body=data, headers=headers)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


async def serve(folder: Path, port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with EmbeddedStore(folder, memory_cap_bytes=MEMORY_BYTES) as store:
        take_over()
        server = Server(store)

        async def ping(_: web.Request) -> web.Response:
            return web.Response(text="Ok.\n")

        application = web.Application(client_max_size=LARGEST_BYTES)
        application.add_routes(
            [
                web.get("/ping", ping),
                web.get("/", server.answer),
                web.post("/", server.answer),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await stop.wait()
        await runner.cleanup()
        server._threads.shutdown()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
    os._exit(0)  # chdb may hang at exit
