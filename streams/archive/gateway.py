"""SQL over HTTP: the embedded store answers ClickHouse's protocol, to read, on loopback."""

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from schemas.listen import ListenAddress, parse_listen
from streams.archive import wire
from streams.archive.embedded import Answer, EmbeddedStore, Handle, SqlError
from streams.archive.gate import ErrorCode, Gate, RefusedError
from streams.archive.sql_http import Limits, Query, read_query, write_answer

_log = structlog.get_logger(__name__)

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_QUERY_ID = re.compile(r"[!-~]{1,128}")
# What clickhouse-connect asks first. It must see settings as changeable, or it refuses `settings=` on its own side.
_SETTINGS_HANDSHAKE = "SELECT name, value, readonly FROM system.settings LIMIT 10000"
# What clickhouse-go asks first, with its protocol version.
_HELLO = "SELECT displayName(), version(), revision(), timezone()"


class Gateway:
    """Answers queries on one loopback address until it is closed; belongs to one event loop."""

    def __init__(
        self,
        store: EmbeddedStore,
        *,
        listen: str = "127.0.0.1:8123",
        limits: Limits | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`listen` is HOST:PORT, port 0 for any. Raises ListenError for a host that is not loopback."""
        self._store = store
        self._address = parse_listen(listen)
        self._limits = limits or Limits()
        self._queries = Counter(
            "fleetbeat_sql_queries", "Queries by outcome: ok, refused, failed, busy.", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "fleetbeat_sql_query_seconds", "Queries that gave a result.", buckets=_SECONDS, registry=registry
        )
        with store.handle() as handle:
            self._gate = Gate(handle)
            found = handle.query("SELECT version(), timezone()").data.decode().strip()
        self._version, self._timezone = found.split("\t")
        self._threads = ThreadPoolExecutor(self._limits.running, thread_name_prefix="sql")
        self._free = asyncio.Semaphore(self._limits.running)
        self._waiting = self._running = 0
        self._closing = False
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """The routes, to be served by somebody else; `start` serves them here."""
        application = web.Application(
            client_max_size=self._limits.query_bytes, middlewares=[_only_for(_LOCAL_NAMES | {self._address.host})]
        )
        application.router.add_get("/ping", _ok)
        application.router.add_get("/replicas_status", _ok)
        application.router.add_get("/", self._answer)
        application.router.add_post("/", self._answer)
        return application

    async def start(self) -> str:
        """Listens; returns HOST:PORT. Raises OSError when the port is taken."""
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=5.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address.host, self._address.port).start()
        self._address = ListenAddress(self._address.host, self._runner.addresses[0][1])
        return str(self._address)

    async def close(self) -> None:
        """Stops listening and ends running queries; call it before the store is closed."""
        self._closing = True
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
        while self._running:
            await asyncio.to_thread(self._store.stop_queries)
            await asyncio.sleep(0.05)
        if self._runner is not None:
            await self._runner.cleanup()
        self._threads.shutdown()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        given = request.query.get("query_id", "")
        headers = {
            "X-ClickHouse-Server-Display-Name": "fleetbeat",
            "X-ClickHouse-Timezone": self._timezone,
            "X-ClickHouse-Query-Id": given if _QUERY_ID.fullmatch(given) else str(uuid.uuid4()),
        }
        started_s = time.perf_counter()
        try:
            query = await read_query(request, self._limits, self._store.memory_cap_bytes)
            if not query.sql:
                return web.Response(text="Ok.\n", headers=headers)
            async with self._slot():
                answer, output_format = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._run, query
                )
        except SqlError as problem:
            return self._error(problem, headers)
        self._queries.labels("ok").inc()
        self._seconds.observe(time.perf_counter() - started_s)
        return write_answer(query, answer, output_format, headers)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the few places to run. Raises RefusedError when too many wait, or one waited too long."""
        if self._free.locked() and self._waiting >= self._limits.waiting:
            raise self._busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1
        try:
            if self._closing:
                raise self._busy()
            self._running += 1
            try:
                yield
            finally:
                self._running -= 1
        finally:
            self._free.release()

    def _busy(self) -> RefusedError:
        limits = self._limits
        return RefusedError(
            ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES,
            f"Too many simultaneous queries: {limits.running} may run, {limits.waiting} wait up to {limits.wait_s:g} s",
        )

    def _run(self, query: Query) -> tuple[Answer, str]:
        """On a thread: a session of its own for this query. Raises SqlError."""
        if query.protocol and query.sql == _HELLO:
            return Answer(wire.hello_block(self._version, self._timezone), result_rows=1), "Native"
        with self._store.handle() as handle:
            statement = self._gate.admit(handle, query.sql, query.params)
            output_format = statement.output_format or query.output_format
            self._gate.check_format(output_format)
            handle.restrict(query.database, query.settings, readonly=2 if statement.sql == _SETTINGS_HANDSHAKE else 1)
            answer = handle.query(statement.sql, output_format, query.params)
            if not answer.data and output_format.lower() == "native":
                answer = Answer(_header(handle, statement.sql, query.params), elapsed_ns=answer.elapsed_ns)
        return answer, output_format

    def _error(self, problem: SqlError, headers: dict[str, str]) -> web.Response:
        busy = problem.code == ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES
        outcome = "busy" if busy else "refused" if isinstance(problem, RefusedError) else "failed"
        self._queries.labels(outcome).inc()
        _log.info("sql_query_" + outcome, code=problem.code, reason=problem.text[:300])
        headers["X-ClickHouse-Exception-Code"] = str(problem.code)
        text = f"{problem.text} (version {self._version})\n"
        return web.Response(status=wire.http_status(problem.code), text=text, headers=headers)


def _header(handle: Handle, sql: str, params: dict[str, str]) -> bytes:
    """The columns of a result without rows, which the engine leaves out in Native."""
    try:
        found = handle.query(f"DESCRIBE TABLE ({sql}\n)", "JSONCompactEachRow", params)
        rows = [json.loads(line) for line in found.data.splitlines()]
        return wire.empty_block([(row[0], row[1]) for row in rows])
    except SqlError:  # SHOW and the like cannot be described, but are cheap to run again
        meta = json.loads(handle.query(sql, "JSONCompact", params).data)["meta"]
        return wire.empty_block([(column["name"], column["type"]) for column in meta])


def _only_for(hosts: frozenset[str]) -> Middleware:
    """Web pages cannot reach this address under a name of their own (DNS rebinding)."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if _host_of(request.host) not in hosts:
            return web.Response(status=403, text=f"Host {request.host}: expected one of {', '.join(sorted(hosts))}\n")
        return await handler(request)

    return guard


def _host_of(header: str) -> str:
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
