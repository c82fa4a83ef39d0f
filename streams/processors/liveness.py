"""Liveness: heartbeats in; which nodes are alive in memory, in state pages and in `node-states`."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from faust.types import TP

from streams import metrics
from streams.core.liveness.admission import Limits
from streams.engine.app import App, nothing_is_done
from streams.engine.bulk import Bulk
from streams.engine.changelog import ReadLog
from streams.engine.fetched import last_heard
from streams.engine.intake import Intake
from streams.engine.transport import Consumer, Poll, RawPoll
from streams.processors.dead_letters import Letters
from streams.processors.node_folding import NodeFolder
from streams.processors.node_judging import NodeJudge, Verdict
from streams.processors.node_recovery import SOURCE, NodeRecovery
from streams.processors.node_saving import NodeSaver, Page, Saved, snapshot
from streams.processors.node_states import TOPIC as NODE_STATES
from streams.processors.signature_gate import Signatures

if TYPE_CHECKING:
    from streams.processors.node_parts import Part

ResultT = TypeVar("ResultT")

JUDGE_EVERY_S = 0.5
SAVE_EVERY_S = 1.0
# Polls wait while this many records are not yet folded.
MAX_PENDING = 60_000
# So many records are folded at once: whoever reads waits for no more.
FOLD_RECORDS = 20_000
PENDING_POLL_S = 0.01
UNHEARD_POLL_S = 0.1
NEVER = -2  # no generation of the group follows it

log = structlog.get_logger("fleetbeat.liveness")


class LivenessProcessor:
    """Owns a `Part` for each assigned partition of `heartbeats`. Tables are touched on one thread only, in order."""

    def __init__(self, app: App, read: ReadLog, limits: Limits, signatures: Signatures | None = None) -> None:
        self.parts: dict[int, Part] = {}
        self.recovered = False
        self.judge = NodeJudge()
        self._app = app
        self._folder = NodeFolder(signatures)
        self._thread = ThreadPoolExecutor(1, "liveness")
        self._recovery = NodeRecovery(app, read, limits, self.in_thread)
        self._saver = NodeSaver(app)
        self._intake = Intake(app, SOURCE)
        self._pending: deque[Poll | RawPoll] = deque()
        self._pending_count = 0
        self._enough = asyncio.Event()  # a fold's worth is pending
        self._epoch = 0
        self._generation = NEVER
        self._unsaid = False  # a verdict is on its way
        self._judged_s = self._saved_s = 0.0  # monotonic

    def lose_all(self) -> None:
        """A rebalance has begun: nothing is answered, judged or saved until recovery is complete."""
        self._epoch += 1
        self.recovered = False
        if self._unsaid:  # the tables take for announced what is not: they are built anew
            self._generation, self.judge = NEVER, NodeJudge()
        self._intake.lose_all()
        self._pending.clear()
        self._pending_count = 0

    async def recover(self, owned: Iterable[int]) -> None:
        """Every partition is sought to its commit: build the tables of newly owned ones, drop those of others.

        A table is kept when the group has not met since without us: nobody else can have changed its pages.
        """
        epoch, owned = self._epoch, set(owned)
        started = time.monotonic()
        generation = self._app.consumer_generation_id
        followed = generation == self._generation + 1
        topic_id = self._app.consumer.identity(SOURCE).topic_id  # type: ignore[attr-defined]
        mine = {p: part for p, part in self.parts.items() if p in owned and part.origin.topic_id == topic_id}
        kept = mine if followed else {}
        for part in kept.values():
            part.wait()
        self.parts = kept  # what is built anew should not be in memory twice
        built = await self._recovery.build(owned - kept.keys())
        if epoch != self._epoch:
            return
        self.parts = dict(sorted({**kept, **built}.items()))
        self._generation = generation
        self.recovered = True
        nodes = sum(part.table.nodes for part in self.parts.values())
        seconds = round(time.monotonic() - started, 3)
        log.info("nodes recovered", partitions=sorted(built), kept=sorted(kept), nodes=nodes, seconds=seconds)

    def bound(self, limits: Limits) -> None:
        """From now on new nodes are taken by these; nodes that are known stay."""
        self._recovery.limits = limits
        for part in self.parts.values():
            part.bound(limits)

    async def process(self, stream: AsyncIterable[Poll | RawPoll]) -> None:
        """Faust's entry: each event is what one poll brought for one partition."""
        async for poll in stream:
            epoch = self._epoch
            self._recovery.clock(poll.partition).received(poll.append_ms, time.monotonic())
            records = await self._intake.take(poll)
            if not records or epoch != self._epoch:
                continue
            self._pending.append(records)
            self._pending_count += len(records)
            metrics.HEARTBEATS_PENDING.set(self._pending_count)
            if self._pending_count >= FOLD_RECORDS:
                self._enough.set()
            while self._pending_count > MAX_PENDING and epoch == self._epoch and not nothing_is_done(self._app):  # noqa: ASYNC110 - of four events, two of them Faust's
                await asyncio.sleep(PENDING_POLL_S)

    async def due(self, after_s: float) -> None:
        """Returns after so long, or as soon as there is enough to fold."""
        with suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await self._enough.wait()
        self._enough.clear()

    async def fold(self) -> None:
        """Count what is pending."""
        epoch = self._epoch
        while self.recovered and self.heard_of and self._pending and epoch == self._epoch:
            if self._folder.is_full:
                break  # until they are saved
            polls = self._take()
            with metrics.BATCH_SECONDS.labels("liveness").time():
                left = await self.in_thread(self._folder.fold, self.parts, polls)
            if epoch == self._epoch:
                self._pending.extendleft(reversed(left))
                self._pending_count += sum(map(len, left))
        self._look()

    async def tend(self) -> None:
        """Judge, announce and save when it is time to, while folding goes on. What is announced is saved afterwards."""
        epoch = self._epoch
        if not self.recovered or not self.heard_of:
            return
        if time.monotonic() - self._judged_s >= JUDGE_EVERY_S:
            self._judged_s = time.monotonic()
            await self._judge_all()
        if epoch == self._epoch and time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            self._saved_s = time.monotonic()
            await self.save()

    async def save(self) -> None:
        """Write dead letters and the pages that are due, await every ack, then move the commits."""
        epoch = self._epoch
        if not self.recovered or not self.heard_of:
            return
        with metrics.NODE_SNAPSHOT_SECONDS.time():
            saved, letters = await self.in_thread(self._snapshots)
            pages: list[Page] = await asyncio.to_thread(lambda: [page for each in saved for page in each.packed()])
            if saved:
                await self._app.consumer.confirm(SOURCE)  # type: ignore[attr-defined]
            await self._saver.write_letters(letters)
            await self._saver.tell_who_left(saved)
            await self._saver.write(pages)
        if epoch == self._epoch:
            await self._saver.commit(saved)

    async def in_thread(self, step: Callable[..., ResultT], *args: Any) -> ResultT:  # noqa: ANN401 - passed on
        """Run a step between folds: the tables stand still for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *args)

    @property
    def answers(self) -> bool:
        """Whether the tables hold all that was known before this worker had them."""
        return self.recovered and all(part.known_again for part in self.parts.values())

    @property
    def heard_of(self) -> bool:
        """Whether the group knows us: otherwise others may keep our partitions, and speak of their nodes."""
        consumer: Consumer = self._app.consumer  # type: ignore[assignment]
        return consumer.holds_assignment()

    def _take(self) -> list[Poll | RawPoll]:
        polls: list[Poll | RawPoll] = []
        count = 0
        while self._pending and count < FOLD_RECORDS:
            polls.append(self._pending.popleft())
            count += len(polls[-1])
        self._pending_count -= count
        metrics.HEARTBEATS_PENDING.set(self._pending_count)
        return polls

    def _snapshots(self) -> tuple[list[Saved], Letters]:
        return [snapshot(part) for part in self.parts.values()], self._folder.take_letters()

    def _look(self) -> None:
        """Moves the time of every part on."""
        clock_ms, at_s = time.time_ns() // 1_000_000, time.monotonic()
        for part in self.parts.values():
            part.look(last_heard(self._app, TP(SOURCE, part.partition)), clock_ms, at_s)
            if missing := part.missing():
                metrics.NODES_MISSING.inc(missing)
                log.error("nodes lost: no page brought them back", partition=part.partition, nodes=missing)

    async def _judge_all(self) -> None:
        at_s = time.monotonic()
        judged = [part for part in self.parts.values() if part.may_be_judged(at_s)]
        if not judged:
            return
        epoch, self._unsaid = self._epoch, True
        verdict: Verdict = await self.in_thread(self.judge.round, judged)
        # Others may speak of these nodes now.
        while not self.heard_of and epoch == self._epoch:  # noqa: ASYNC110 - of two events, one of them a clock's
            await asyncio.sleep(UNHEARD_POLL_S)
        if epoch == self._epoch:
            bulk = Bulk(self._app, NODE_STATES)
            await asyncio.to_thread(verdict.pack, bulk, judged[0])
            await bulk.send()
        self._unsaid = False
