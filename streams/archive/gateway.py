"""SQL over HTTP: the embedded store answers ClickHouse's protocol, to read: on loopback, or for users who log in."""

import asyncio
import contextlib
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry

from schemas.listen import ListenAddress, parse_listen
from streams.archive import wire
from streams.archive.ddl import DATABASE
from streams.archive.embedded import EmbeddedStore, SqlError
from streams.archive.gate import Asking, ErrorCode, Gate, RefusedError
from streams.archive.sql_handles import Handles
from streams.archive.sql_http import Query, answer_headers, read_login, read_query, says_who
from streams.archive.sql_limits import Limits
from streams.archive.sql_listen import SqlListener, only_for
from streams.archive.sql_metrics import SqlMetrics
from streams.archive.sql_run import Engine, Run
from streams.archive.sql_sessions import Session, Sessions
from streams.archive.sql_slow import LEFT, OK, Outcome, SlowQueries, SlowQuery, normalized
from streams.archive.sql_users import Login, User, Users, WrongLoginError

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_QUERY_ID = re.compile(r"[!-~]{1,128}")
_ENCODED_FROM_BYTES = 4096
_KILL_AGAIN_S, _KILL_SELDOM_S = 0.05, 2.0
_STOP_WITHIN_S = 10.0
_LOGINS_WAITING = 32
_UNAUTHORIZED = 401


class Gateway:
    """Answers queries on one address until it is closed; belongs to one event loop."""

    def __init__(
        self,
        store: EmbeddedStore,
        *,
        listen: str = "127.0.0.1:8123",
        limits: Limits | None = None,
        users: Users | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`listen` is HOST:PORT, port 0 for any. Raises ListenError for a host that is not loopback, without users."""
        self._store = store
        self._address = parse_listen(listen, open_to_all=users is not None)
        self._limits = limits or Limits()
        self._users = users
        self._anyone = _anyone(self._limits)
        self._slow = SlowQueries()
        self._sessions = Sessions()
        self._metrics = SqlMetrics(registry, lambda: self._running, lambda: len(self._sessions))
        with store.handle() as handle:
            gate = Gate(handle)
            found = handle.query("SELECT version(), timezone()").data.decode().strip()
        self._handles = Handles(store)
        self._engine = Engine(store, gate, self._handles, *found.split("\t"))
        self._threads = ThreadPoolExecutor(self._limits.running, thread_name_prefix="sql")
        self._logins = ThreadPoolExecutor(1, thread_name_prefix="sql-login")
        self._logins_waiting = 0
        self._free = asyncio.Semaphore(self._limits.running)
        self._waiting = self._running = 0
        self._free_of: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._closing = self._left_behind = False
        self._runner: web.AppRunner | None = None
        self._listener: SqlListener | None = None

    def application(self) -> web.Application:
        """The routes, to be served by somebody else; `start` serves them here."""
        guards = [] if self._users else [only_for(_LOCAL_NAMES | {self._address.host})]
        application = web.Application(client_max_size=self._limits.query_bytes, middlewares=guards)
        application.router.add_get("/ping", _ok)
        application.router.add_get("/replicas_status", _ok)
        application.router.add_get("/-/slow", self._show_slow)
        application.router.add_get("/", self._answer)
        application.router.add_post("/", self._answer)
        return application

    async def start(self) -> str:
        """Listens; returns HOST:PORT. Raises OSError when the port is taken."""
        self._runner = web.AppRunner(
            self.application(),
            access_log=None,
            shutdown_timeout=5.0,
            max_line_size=self._limits.query_bytes,  # clients put parameters, and GET the query, into the address
            handler_cancellation=True,  # a client that leaves ends its query
        )
        await self._runner.setup()
        self._listener = await SqlListener.open(self._runner, self._address)
        self._address = ListenAddress(self._address.host, self._listener.port)
        return str(self._address)

    def follow(self, limits: Limits, users: Users | None) -> None:
        """Queries that come from now on go by these; how many may run, and whether people log in, stays as it is."""
        self._limits, self._users, self._anyone = limits, users, _anyone(limits)

    async def close(self) -> None:
        """Stops listening and ends running queries; call it before the store is closed.

        The engine looks between two blocks of rows whether it is to stop. A query that computes one block for longer
        than `_STOP_WITHIN_S` is left behind: the store's `left_behind` counts it, and only `leave` ends it.
        """
        self._closing = True
        if self._listener is not None:
            self._listener.close()
        until_s = time.monotonic() + _STOP_WITHIN_S
        while self._running and time.monotonic() < until_s:
            await asyncio.to_thread(self._store.stop_queries)
            await asyncio.sleep(_KILL_AGAIN_S)
        self._store.left_behind = self._running
        self._left_behind = bool(self._running)
        if self._left_behind:
            _log.error("sql_queries_left_behind", queries=self._running, after_s=_STOP_WITHIN_S)
        if self._runner is not None:
            await self._runner.cleanup()
        self._threads.shutdown(wait=not self._left_behind)
        self._handles.close()
        self._logins.shutdown()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        given = request.query.get("query_id", "")
        headers = {
            "X-ClickHouse-Server-Display-Name": "fleetbeat",
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Query-Id": given if _QUERY_ID.fullmatch(given) else str(uuid.uuid4()),
        }
        try:
            user = await self._login(request)
            query = await read_query(request, self._limits)
            if not query.sql:
                return web.Response(text="Ok.\n", headers=headers)
            async with self._session(user, query) as session:
                asked_s = time.monotonic()
                async with self._slot(user):
                    return await self._run(request, query, user, session, headers, time.monotonic() - asked_s)
        except SqlError as problem:
            return self._error(request, problem, headers)

    async def _login(self, request: web.Request) -> User:
        """Who asks. Raises RefusedError."""
        if self._users is None:
            return self._anyone
        login = read_login(request) or Login("default", "")
        try:
            if self._users.is_known(login):
                return self._users.check(login)
            if self._logins_waiting >= _LOGINS_WAITING:
                raise RefusedError(ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, "Too many logins are checked at once")
            self._logins_waiting += 1
            try:
                return await asyncio.get_running_loop().run_in_executor(self._logins, self._users.check, login)
            finally:
                self._logins_waiting -= 1
        except WrongLoginError:
            self._metrics.logins_refused.inc()
            _log.warning("sql_login_refused", user=login.name[:64], peer=request.remote)
            raise RefusedError(
                ErrorCode.AUTHENTICATION_FAILED,
                f"{login.name[:64]}: Authentication failed: password is incorrect, or there is no user with such name",
            ) from None

    @contextlib.asynccontextmanager
    async def _session(self, user: User, query: Query) -> AsyncIterator[Session | None]:
        if query.session is None:
            yield None
            return
        session = await self._sessions.take(user.name, query.session, user.limits.sessions)
        try:
            yield session
        finally:
            self._sessions.give_back(user.name, query.session)

    @contextlib.asynccontextmanager
    async def _slot(self, user: User) -> AsyncIterator[None]:
        """One of the few places to run. Raises RefusedError when too many wait, or one waited too long."""
        limits = self._limits
        own = user.limits.running
        free_of_user = self._free_of.setdefault((user.name, own), asyncio.Semaphore(own))
        busy = RefusedError(
            ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES,
            f"Too many simultaneous queries: {limits.running} may run, {own} of them of user {user.name}, "
            f"{limits.waiting} wait up to {limits.wait_s:g} s",
        )
        if (self._free.locked() or free_of_user.locked()) and self._waiting >= limits.waiting:
            raise busy
        async with contextlib.AsyncExitStack() as stack:
            self._waiting += 1
            try:
                async with asyncio.timeout(limits.wait_s):
                    await stack.enter_async_context(free_of_user)
                    await stack.enter_async_context(self._free)
            except TimeoutError:
                raise busy from None
            finally:
                self._waiting -= 1
            if self._closing:
                raise busy
            self._running += 1
            try:
                yield
            finally:
                self._running -= 1

    async def _run(  # noqa: PLR0913 - what belongs to one query
        self,
        request: web.Request,
        query: Query,
        user: User,
        session: Session | None,
        headers: dict[str, str],
        waited_s: float,
    ) -> web.StreamResponse:
        """Runs a query that has its place. Raises SqlError as long as nothing was sent."""
        database = query.database or (session.database if session else None) or DATABASE
        asking = Asking(database, in_session=session is not None, sees_system=user.sees_system)
        run = Run(self._engine, query, user.limits, asking, dict(session.settings) if session else {})
        started_ns, outcome = time.monotonic_ns(), LEFT
        try:
            first = await self._on_thread(run, run.begin)
            if run.change is not None and session is not None:
                session.change(run.change.settings, run.change.database)
            run.totals.elapsed_ns = time.monotonic_ns() - started_ns
            if run.whole:
                response: web.StreamResponse = await self._whole(run, first, headers)
                outcome = OK
            else:
                response = web.StreamResponse(headers=headers | answer_headers(run.output_format, _summary(run)))
                outcome = await self._stream(request, run, first, response)
        except SqlError as problem:
            outcome = Outcome("failed", problem.code)
            raise
        finally:
            run.totals.elapsed_ns = time.monotonic_ns() - started_ns
            await asyncio.shield(self._finish(run, user, headers["X-ClickHouse-Query-Id"], outcome, waited_s))
        return response

    async def _whole(self, run: Run, data: bytes, headers: dict[str, str]) -> web.Response:
        if len(data) < _ENCODED_FROM_BYTES and run.query.encoding == "gzip":
            run.unpacked()
        elif run.query.encoding:
            headers["Content-Encoding"] = run.query.encoding
        if run.query.encoding or run.query.compress:
            data = await self._on_thread(run, lambda: run.pack(data) + run.end())
        return web.Response(body=data, headers=headers | answer_headers(run.output_format, _summary(run)))

    async def _stream(self, request: web.Request, run: Run, first: bytes, response: web.StreamResponse) -> Outcome:
        """Sends a result as it comes; what goes wrong now ends the connection in the middle."""
        tag = secrets.token_hex(8)
        response.headers["X-ClickHouse-Exception-Tag"] = tag
        if run.query.encoding:
            response.headers["Content-Encoding"] = run.query.encoding
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            await self._send(response, await self._on_thread(run, lambda: run.pack(first)))
            while not run.whole:
                await self._send(response, await self._on_thread(run, run.more))
            await self._send(response, run.end())
            await response.write_eof()
        except SqlError as problem:
            self._tell(problem, response.headers["X-ClickHouse-Query-Id"])
            if not (run.query.compress or run.query.encoding):
                await response.write(wire.exception_block(f"{problem.text} (version {self._engine.version})", tag))
            _drop(request)
            return Outcome("failed", problem.code)
        except (TimeoutError, ConnectionError, ValueError) as problem:
            _log.info("sql_stream_ended", reason=str(problem) or type(problem).__name__)
            _drop(request)
            return LEFT
        return OK

    async def _send(self, response: web.StreamResponse, piece: bytes) -> None:
        """Raises TimeoutError: who does not read must not keep a place."""
        if piece:
            async with asyncio.timeout(self._limits.execution_s):
                await response.write(piece)

    async def _on_thread(self, run: Run, work: Callable[[], _T]) -> _T:
        """Does a part of a query; when the client leaves meanwhile, the engine is told to stop."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.shield(self._kill(run, future))
            raise

    async def _kill(self, run: Run, future: "asyncio.Future[_T]") -> None:
        again_s = _KILL_AGAIN_S
        while not future.done():
            if self._left_behind:
                run.is_left_behind = True
                return
            if run.comment:
                await asyncio.to_thread(self._store.stop_queries, run.comment)
            await asyncio.wait([future], timeout=again_s)
            again_s = min(again_s * 2, _KILL_SELDOM_S)
        future.exception()  # nobody waits for it

    async def _finish(self, run: Run, user: User, query_id: str, outcome: Outcome, waited_s: float) -> None:
        totals, metrics = run.totals, self._metrics
        seconds = totals.elapsed_ns / 1e9
        metrics.read_rows.labels(user.name).inc(totals.read_rows)
        metrics.read_bytes.labels(user.name).inc(totals.read_bytes)
        if outcome.kind != "failed":  # that was counted when it was told
            metrics.queries.labels(outcome.kind).inc()
        if outcome is OK:
            metrics.seconds.observe(seconds)
        if run.is_open and not run.is_left_behind:
            await asyncio.get_running_loop().run_in_executor(self._threads, run.close)
        if not self._closing:
            asyncio.get_running_loop().run_in_executor(self._threads, run.prepare_next)
        if seconds >= self._limits.slow_s:
            metrics.slow.labels(user.name).inc()
            text = await asyncio.to_thread(normalized, self._store, run.query.sql)
            self._slow.add(SlowQuery.of(totals, query_id, user.name, outcome.code, waited_s, text))

    async def _show_slow(self, request: web.Request) -> web.Response:
        try:
            user = await self._login(request)
        except SqlError as problem:
            return self._error(request, problem, {})
        kept = self._slow.of(None if user.sees_system else user.name)
        return web.json_response({"slower_than_s": self._limits.slow_s, "queries": [query.payload() for query in kept]})

    def _error(self, request: web.Request, problem: SqlError, headers: dict[str, str]) -> web.Response:
        self._tell(problem, headers.get("X-ClickHouse-Query-Id", ""))
        headers["X-ClickHouse-Exception-Code"] = str(int(problem.code))
        status = wire.http_status(problem.code)
        if problem.code == ErrorCode.AUTHENTICATION_FAILED and not says_who(request):
            headers["WWW-Authenticate"] = 'Basic realm="fleetbeat", charset="UTF-8"'  # a browser asks its user
            status = _UNAUTHORIZED
        text = f"{problem.text} (version {self._engine.version})\n"
        return web.Response(status=status, text=text, headers=headers)

    def _tell(self, problem: SqlError, query_id: str) -> None:
        """Counts and logs an error. The engine's text may quote the query: that is for who asked, not for the log."""
        busy = problem.code == ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES
        outcome = "busy" if busy else "refused" if isinstance(problem, RefusedError) else "failed"
        self._metrics.queries.labels(outcome).inc()
        reason = problem.text[:300] if isinstance(problem, RefusedError) else problem.name
        _log.info("sql_query_" + outcome, code=int(problem.code), reason=reason, query_id=query_id)


def _anyone(limits: Limits) -> User:
    """Who asks where nobody logs in."""
    return User("default", limits, frozenset({"telemetry", "system"}))


def _drop(request: web.Request) -> None:
    """Ends the connection in the middle, so that nobody takes what came for all of it."""
    if request.transport is not None:
        request.transport.close()


def _summary(run: Run) -> dict[str, int]:
    totals = run.totals
    return {
        "read_rows": totals.read_rows,
        "read_bytes": totals.read_bytes,
        "result_rows": totals.result_rows,
        "result_bytes": totals.result_bytes,
        "elapsed_ns": totals.elapsed_ns,
    }


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
