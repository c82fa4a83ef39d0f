"""What a running archive takes over from its file: how long rows are kept, batches, limits of queries, who may ask."""

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from schemas.documents import DocumentError
from streams.archive import retention
from streams.archive.options import ArchiveOptions
from streams.archive.service import Archive
from streams.archive.sql_users import Users
from streams.archive.storing import STORE_ERRORS, Connect
from streams.logs import set_level
from streams.settings.archive import ARCHIVE_KEYS
from streams.settings.reload import STATUS, CannotApplyError, Loaded, Reloader, ReloadMetrics, answer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from streams.archive.gateway import Gateway

# Of `sql` all but `running`; of `sql_users` not whether there are any.
LIVE = frozenset({"keep", "cold_after", "sql_users", "sql", "limits", "ready_lag", "log_level"})

_log = structlog.get_logger(__name__)


class ArchiveReloads:
    """The file of one archive. `options` are those in effect."""

    def __init__(self, loaded: Loaded[ArchiveOptions], connect: Connect, archive: Archive) -> None:
        self.options = loaded.options
        self.gateway: Gateway | None = None
        self._loaded = loaded
        self._connect = connect
        self._archive = archive
        self._reloader: Reloader[ArchiveOptions] | None = None
        self._asked = asyncio.Event()

    async def run(self, registry: "CollectorRegistry") -> None:
        """Until cancelled: looks at the file when it changes, and when told to. The tables must be there."""
        metrics = ReloadMetrics("archive", registry)
        self._reloader = Reloader(self._loaded, ARCHIVE_KEYS, needs_restart, self._apply, metrics)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reloader.watch())
            tasks.create_task(self._look_when_told(self._reloader))

    def tell(self) -> None:
        """Looks soon."""
        self._asked.set()

    def route(self) -> web.RouteDef:
        """`POST /-/reload`."""

        async def reload(_: web.Request) -> web.Response:
            if self._reloader is None:
                return web.json_response({"error": "the tables are not there yet; ask again"}, status=503)
            found = await self._reloader.reload()
            return web.json_response(answer(found), status=STATUS[found.outcome])

        return web.post("/-/reload", reload)

    async def _look_when_told(self, reloader: Reloader[ArchiveOptions]) -> None:
        while await self._asked.wait():
            self._asked.clear()
            await reloader.reload()

    async def _apply(self, running: ArchiveOptions, wanted: ArchiveOptions) -> None:
        """Reads and checks everything, changes the tables, and only then takes over what cannot fail."""
        try:
            ages = retention.ages(wanted.keep, wanted.cold_after)
            users = await self._users(wanted)
        except retention.RetentionError as cause:
            raise CannotApplyError([str(cause)]) from None
        except DocumentError as cause:
            raise CannotApplyError(cause.problems) from None
        before = retention.ages(running.keep, running.cold_after)
        if ages != before:
            await asyncio.to_thread(self._keep, ages, before)
        self._archive.follow(wanted.limits)
        if self.gateway is not None:
            self.gateway.follow(wanted.sql, users)
        set_level(wanted.log_level)
        self.options = wanted

    async def _users(self, wanted: ArchiveOptions) -> Users | None:
        """Raises DocumentError."""
        path = wanted.sql_users
        return None if path is None else await asyncio.to_thread(Users, path, wanted.sql)

    def _keep(self, ages: dict[str, retention.Age], before: dict[str, retention.Age]) -> None:
        """All tables keep rows like this, or all as before."""
        try:
            self._with_client(ages)
        except retention.RetentionError as cause:
            self._undo(before)
            raise CannotApplyError([str(cause)]) from None
        except STORE_ERRORS as cause:
            self._undo(before)
            raise CannotApplyError([f"the store did not change its tables: {str(cause)[:300]}"], again=True) from None

    def _undo(self, before: dict[str, retention.Age]) -> None:
        try:
            self._with_client(before)
        except (retention.RetentionError, *STORE_ERRORS) as cause:
            _log.error("retention-perhaps-half-changed", why=str(cause)[:300])

    def _with_client(self, ages: dict[str, retention.Age]) -> None:
        client = self._connect()
        try:
            for table, change in retention.apply(client, ages).items():
                _log.info("retention-changed", table=table, change=change)
        finally:
            client.close()


def needs_restart(running: ArchiveOptions, wanted: ArchiveOptions) -> set[str]:
    """Keys of the file that differ and that a running archive cannot change."""
    return set(_fixed(running, wanted))


def _fixed(running: ArchiveOptions, wanted: ArchiveOptions) -> Iterator[str]:
    for field in fields(wanted):
        if field.name not in LIVE and getattr(running, field.name) != getattr(wanted, field.name):
            yield ARCHIVE_KEYS[field.name]
    if running.sql.running != wanted.sql.running:
        yield "sql.running"
    if (running.sql_users is None) != (wanted.sql_users is None):
        yield "sql_users"
