"""`fleetbeat archive`: builds the archive, gives it a store, health and metrics, and ends it cleanly."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.listen import parse_listen
from streams.archive import cluster_ddl, ddl, retention
from streams.archive.consumer import UnsuitableTopicError
from streams.archive.ingest import StoreClient
from streams.archive.metrics import ArchiveMetrics
from streams.archive.options import ArchiveOptions, OptionsError
from streams.archive.reloading import ArchiveReloads
from streams.archive.service import Archive
from streams.archive.sql_users import Users, load_users
from streams.archive.storing import STORE_ERRORS
from streams.logs import configure_logs
from streams.settings.reload import Loaded

if TYPE_CHECKING:
    from streams.archive.embedded import EmbeddedStore
    from streams.archive.gateway import Gateway

_RETRY_S = 2.0
_ANSWER_S = 60
# A question changes threads several times; Python's 5 ms would come each time that another one computes.
_SWITCH_S = 0.001
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Store:
    """A store that the archive writes to; `connect` makes a client for the thread that calls it."""

    connect: Callable[[], StoreClient]
    embedded: "EmbeddedStore | None" = None


class CannotStartError(RuntimeError):
    """The machine refuses something that the archive needs, such as a folder or a port."""


def run_archive(options: ArchiveOptions, config: Loaded[ArchiveOptions] | None = None) -> int:
    """Archives until SIGTERM or SIGINT; returns the exit status. `config`: the file of the options.

    Raises OptionsError, RetentionError, ListenError, CannotStartError, SchemaError when the store is not as this
    version makes it, or StoreInUseError when another process has it.
    """
    retention.ages(options.keep, options.cold_after)  # before anything is made
    configure_logs(options.log_level)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    sys.setswitchinterval(_SWITCH_S)
    if options.clickhouse is not None:
        if options.store is not None:
            raise OptionsError(f"--store {options.store} beside --clickhouse: expected one of them")
        if options.sql_users is not None:
            raise OptionsError("--sql-users beside --clickhouse: that server has users of its own")
        return run_with(options, Store(server(options.clickhouse, options.cluster)), config)
    if options.cluster is not None:
        raise OptionsError(f"--cluster {options.cluster} without --clickhouse: expected the URL of one of its servers")
    _check_listen(options)  # before a store is made
    if options.store is None:
        raise OptionsError("no store: expected --store FOLDER for an embedded one, or --clickhouse URL")
    from streams.archive.embedded import EmbeddedStore, leave  # noqa: PLC0415 - a server needs no chdb

    try:
        embedded = EmbeddedStore(options.store)
    except OSError as error:
        raise CannotStartError(str(error)) from error
    with embedded:
        status = run_with(options, Store(embedded.client, embedded), config)
    return leave(embedded, status)


def _check_listen(options: ArchiveOptions) -> None:
    """Raises ListenError for an address that others reach although nobody logs in, DocumentError for unusable users."""
    if options.sql_users is None:
        parse_listen(options.listen, "--listen without --sql-users")
    else:
        load_users(options.sql_users, options.sql)
        parse_listen(options.listen, open_to_all=True)


def run_with(options: ArchiveOptions, store: Store, config: Loaded[ArchiveOptions] | None = None) -> int:
    """Archives into a store that is open already; returns the exit status."""
    status = 0
    try:
        asyncio.run(_serve(options, store, config))
    except* UnsuitableTopicError as group:
        status = 1
        for error in group.exceptions:
            _log.error("topic-unsuitable", error=str(error))
    return status


def server(url: str, cluster: str | None = None) -> Callable[[], StoreClient]:
    """Connects to a ClickHouse server, maybe one of a cluster. Raises OptionsError for a URL or a name that is none."""
    if cluster is not None:
        try:
            cluster_ddl.check_name(cluster)
        except ValueError as problem:
            raise OptionsError(str(problem)) from None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") not in ("", ddl.DATABASE):
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise OptionsError(f"--clickhouse {shown}: expected http(s)://USER:PASSWORD@HOST:PORT/{ddl.DATABASE}")

    def connect() -> StoreClient:
        import clickhouse_connect  # noqa: PLC0415 - the embedded store must be open before it is imported

        client: StoreClient = clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure=parts.scheme == "https",
            database="default",  # telemetry need not exist yet
            send_receive_timeout=_ANSWER_S,
            autogenerate_session_id=False,
        )
        return client if cluster is None else cluster_ddl.OnCluster(client, cluster)

    return connect


async def _serve(options: ArchiveOptions, store: Store, config: Loaded[ArchiveOptions] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = ArchiveMetrics()
    shared = store.embedded is None
    archive = Archive(
        *(options.brokers, options.group, store.connect, metrics), shared=shared, limits=options.limits, claims=shared
    )
    reloads = None if config is None else ArchiveReloads(config, store.connect, archive)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(archive.close)
        status = _status(archive, metrics, lambda: (reloads.options if reloads else options).ready_lag)
        if reloads is not None:
            status.add_routes([reloads.route()])
            loop.add_signal_handler(signal.SIGHUP, reloads.tell)
        _log.info("status-served", address=await _listen(stack, status, options.metrics or "127.0.0.1:0"))
        if not await _migrate(store, options, stop):
            return
        if store.embedded is not None:
            gateway = await _serve_sql(stack, store.embedded, options, metrics)
            if reloads is not None:
                reloads.gateway = gateway
            from streams.archive.merge_threads import giving_way  # noqa: PLC0415 - only with an embedded store

            await stack.enter_async_context(giving_way(store.embedded, metrics))
        following = asyncio.create_task(reloads.run(metrics.registry)) if reloads else None
        try:
            await archive.run(stop)
        finally:
            if following is not None:
                following.cancel()
    _log.info("stopped")


async def _serve_sql(
    stack: AsyncExitStack, store: "EmbeddedStore", options: ArchiveOptions, metrics: ArchiveMetrics
) -> "Gateway":
    from streams.archive.gateway import Gateway  # noqa: PLC0415 - only with an embedded store

    users = Users(options.sql_users, options.sql) if options.sql_users is not None else None
    try:
        gateway = Gateway(store, listen=options.listen, limits=options.sql, users=users, registry=metrics.registry)
        stack.push_async_callback(gateway.close)
        _log.info("sql-served", address=await gateway.start())
    except OSError as error:
        raise CannotStartError(f"--listen {options.listen}: {error.strerror or error}") from error
    return gateway


async def _migrate(store: Store, options: ArchiveOptions, stop: asyncio.Event) -> bool:
    """Brings the tables up to date; a server may be down for a while. False when asked to stop before."""
    wanted = retention.ages(options.keep, options.cold_after)

    def work() -> list[str]:
        client = store.connect()
        try:
            applied = ddl.apply(client, lambda progress: _log.info("rollup-filled", progress=progress))
            for statement in cluster_ddl.reads(options.cluster) if options.cluster else ():
                client.command(statement)
            for table, change in retention.apply(client, wanted).items():
                _log.info("retention-changed", table=table, change=change)
            return applied
        finally:
            client.close()

    while not stop.is_set():
        try:
            _log.info("tables-ready", applied=await asyncio.to_thread(work))
        except STORE_ERRORS as error:
            if store.embedded is not None:
                raise
            _log.warning("store-refused", error=str(error)[:500], retry_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)
        else:
            return True
    return False


def _status(archive: Archive, metrics: ArchiveMetrics, ready_lag: Callable[[], int]) -> web.Application:
    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        why = archive.why_not_ready(ready_lag())
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    async def figures(_: web.Request) -> web.Response:
        metrics.ready.set(archive.why_not_ready(ready_lag()) is None)
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/-/healthy", healthy), web.get("/-/ready", ready), web.get("/metrics", figures)])
    return app


async def _listen(stack: AsyncExitStack, app: web.Application, address: str) -> str:
    where = parse_listen(address, "--metrics")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, where.host, where.port)
    try:
        await site.start()
    except OSError as error:
        raise CannotStartError(f"--metrics {address}: {error.strerror or error}") from error
    name = runner.addresses[0]
    return f"{name[0]}:{name[1]}"
