"""The store seen from the event loop: two threads and one client a topic, and patience while it refuses."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from streams.archive.blocks import Chunk, RawChunk, Route, Shaped, Shaper
from streams.archive.claims import ClaimLostError, Claims, TableMismatchError
from streams.archive.consumer import GivenUpError
from streams.archive.ingest import Ingest, Refused, Settled, StoreClient, UnsettledError
from streams.archive.letters import letters_of
from streams.archive.metrics import ArchiveMetrics
from streams.archive.plans import Plan, Verdict

Connect = Callable[[], StoreClient]
Wanted = Callable[[], bool]
Letter = tuple[bytes | None, bytes]
T = TypeVar("T")

# What a store that is down, full or slow raises; anything else is an error in the program.
STORE_ERRORS = (ClickHouseError, OSError, UnsettledError, ClaimLostError, TableMismatchError)
_FIRST_RETRY_S, _LAST_RETRY_S = 0.2, 5.0
_log = structlog.get_logger(__name__)


class StartOverError(Exception):
    """A write failed, or came to nothing: the partitions have to be adopted again."""


class Storing:
    """Blocking work of one topic: one thread shapes, another has the client, so that both may be at work at once.

    A store that refuses is asked again as long as `wanted()`.
    """

    def __init__(self, route: Route, connect: Connect, metrics: ArchiveMetrics, *, claims: bool = False) -> None:
        """`claims`: others may write to the same tables, so each write carries a claim."""
        self.failing = False
        self._claims = Claims(route.topic) if claims else None
        self._pause_s = _FIRST_RETRY_S
        self._route = route
        self._connect = connect
        self._metrics = metrics
        self._shaper = Shaper(route)
        self._client: StoreClient | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"archive-{route.topic}")
        self._shaping = ThreadPoolExecutor(1, thread_name_prefix=f"shape-{route.topic}")

    async def shape(self, chunks: Sequence[Chunk | RawChunk]) -> tuple[Shaped, list[Letter]]:
        """Rows and dead letters of the chunks."""

        def work() -> tuple[Shaped, list[Letter]]:
            shaped = self._shaper.shape(chunks)
            return shaped, letters_of(self._route.topic, shaped.rejected) if self._route.letters else []

        return await asyncio.get_running_loop().run_in_executor(self._shaping, work)

    async def store(self, shaped: Shaped, wanted: Wanted) -> Settled:
        """Stores a batch for the first time. Raises GivenUpError, StartOverError: nobody knows whether it arrived."""
        started = time.monotonic()
        done = await self._write(wanted, lambda ingest: ingest.store(shaped), lambda ingest: ingest.settle(shaped))
        self._metrics.insert_seconds.labels(self._route.topic).observe(time.monotonic() - started)
        return done or Settled()

    async def settle(self, shaped: Shaped, wanted: Wanted) -> Settled:
        """Completes a doubtful batch. Raises GivenUpError, StartOverError."""
        return await self._write(wanted, lambda ingest: ingest.settle(shaped))

    async def accept(self, shaped: Shaped, refused: Sequence[Refused], wanted: Wanted) -> None:
        """Ends the doubt about a batch of which rows were refused. Raises GivenUpError, StartOverError."""
        await self._write(wanted, lambda ingest: ingest.accept(shaped, refused))

    async def no_longer_in_doubt(self, plan: Plan, wanted: Wanted) -> None:
        """Ends the doubt about a plan of which all kept rows are there. Raises GivenUpError, StartOverError."""
        await self._write(wanted, lambda ingest: ingest.no_longer_in_doubt(plan))

    async def last_plans(self, partitions: Collection[int], wanted: Wanted) -> dict[int, Plan]:
        """The last plan of each partition that has one. Raises GivenUpError."""
        return await self._until_done(wanted, lambda ingest: ingest.last_plans(partitions))

    async def verify(self, plans: Sequence[Plan], wanted: Wanted) -> dict[int, Verdict]:
        """What became of each plan that has rows. Raises GivenUpError."""
        return await self._until_done(wanted, lambda ingest: ingest.verify(plans))

    async def close(self) -> None:
        """Ends the client, in its thread, and the threads."""
        if self._client is not None:
            await self._in_thread(self._client.close)
        self._thread.shutdown()
        self._shaping.shutdown()

    async def _write(
        self, wanted: Wanted, first: Callable[[Ingest], T], then: Callable[[Ingest], T] | None = None
    ) -> T:
        """The same where others may write too: after a failure all that is known of the partitions may be old."""
        if self._claims is None:
            return await self._until_done(wanted, first, then)
        if not wanted():
            raise GivenUpError
        try:
            result = await self._in_thread(partial(self._with_client, first))
        except STORE_ERRORS as error:
            await self._note(error, self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LAST_RETRY_S)
            raise StartOverError from error
        self._pause_s, self.failing = _FIRST_RETRY_S, False
        return result

    async def _until_done(
        self, wanted: Wanted, first: Callable[[Ingest], T], then: Callable[[Ingest], T] | None = None
    ) -> T:
        """`first`, and after a failure `then` (or `first`) again and again, with growing pauses."""
        work, pause_s = first, _FIRST_RETRY_S
        while wanted():
            try:
                result = await self._in_thread(partial(self._with_client, work))
            except STORE_ERRORS as error:
                await self._note(error, pause_s)
                work, pause_s = then or first, min(2 * pause_s, _LAST_RETRY_S)
            else:
                self.failing = False
                return result
        raise GivenUpError

    async def _note(self, error: Exception, pause_s: float) -> None:
        """Says that the store refused, and waits."""
        self.failing = True
        self._metrics.store_errors.labels(self._route.topic).inc()
        _log.warning("store-refused", topic=self._route.topic, error=str(error)[:500], retry_s=pause_s)
        await asyncio.sleep(pause_s)

    def _with_client(self, work: Callable[[Ingest], T]) -> T:
        if self._client is None:
            self._client = self._connect()
        return work(Ingest(self._client, self._route, self._claims))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
