"""The running archive: lanes, the loop that polls for them, commits as hints, lag."""

import asyncio

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.kafka import Brokers
from streams.archive.blocks import routes
from streams.archive.consumer import Partitions, Source
from streams.archive.lane import Lane, Limits
from streams.archive.letters import DeadLetters
from streams.archive.metrics import ArchiveMetrics
from streams.archive.storing import Connect

_NO_ROOM_S = 0.02
_TICK_S = 1.0
_LAST_WORDS_S = 15.0
_log = structlog.get_logger(__name__)


class Archive:
    """Everything between Kafka and the store. `shared`: partitions come from the group, else all are taken."""

    def __init__(  # noqa: PLR0913 - the parts it is made of
        self,
        brokers: Brokers,
        group: str,
        connect: Connect,
        metrics: ArchiveMetrics,
        *,
        shared: bool,
        limits: Limits | None = None,
        claims: bool = False,
    ) -> None:
        """`claims`: other archives may write to the store, so each write carries a claim on its partitions."""
        self._metrics = metrics
        self._letters = DeadLetters(brokers)
        found = routes()
        self._source = Source(brokers, group, found, shared=shared)
        self._lanes = {
            route.topic: Lane(route, connect, self._source, self._letters, metrics, limits or Limits(), claims=claims)
            for route in found
        }
        self._assigned = False
        self._committed: dict[TopicPartition, int] = {}
        self.lag: dict[str, int] = {}
        """Records in Kafka that the store does not hold, by topic; a topic is missing while that is unknown."""

    def why_not_ready(self, lag_bound: int) -> str | None:
        """What stands against ready; None when all plans are verified, the store works and lag is under the bound."""
        if not self._assigned:
            return "no partitions yet"
        unwell = sorted(topic for topic, lane in self._lanes.items() if not lane.well)
        if unwell:
            return f"recovering or refused by the store: {', '.join(unwell)}"
        if self.lag.keys() != self._lanes.keys():
            return "lag is not known yet"
        behind = sum(self.lag.values())
        return f"lag is {behind} records, the bound {lag_bound}" if behind > lag_bound else None

    def follow(self, limits: Limits) -> None:
        """From now on batches are made by these."""
        for lane in self._lanes.values():
            lane.follow(limits)

    async def run(self, stop: asyncio.Event) -> None:
        """Archives until `stop`, then stores what waits. Raises UnsuitableTopicError or an error in the program."""
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self._source.start(self._take_on, self._give_back))
            lanes = [tasks.create_task(lane.run()) for lane in self._lanes.values()]
            ticking = tasks.create_task(self._tick(starting))
            await self._poll(starting, stop)
            for lane in self._lanes.values():
                lane.end(_LAST_WORDS_S)
            await asyncio.wait(lanes)
            ticking.cancel()
            await self._commit()

    async def close(self) -> None:
        """Ends clients, threads and connections, also when `run` was never called or raised."""
        for lane in self._lanes.values():
            await lane.close()
        await self._letters.close()
        await self._source.stop()

    def _take_on(self, partitions: Partitions) -> None:
        self._assigned = True
        for topic, lane in self._lanes.items():
            lane.assign(partitions.get(topic, set()))

    async def _give_back(self) -> None:
        self._assigned = False
        self.lag.clear()
        self._committed.clear()
        await asyncio.gather(*(lane.revoke() for lane in self._lanes.values()))
        await self._commit()

    async def _poll(self, starting: asyncio.Task[None], stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        stopping.cancel()
        while not stop.is_set():
            places = [place for lane in self._lanes.values() for place in lane.places()]
            if not places:
                # nothing adopted, or too much waits already
                await asyncio.sleep(_NO_ROOM_S)
                continue
            try:
                polled = await self._source.poll(places)
            except KafkaError as error:
                _log.warning("poll-refused", error=repr(error), retry_s=_TICK_S)
                await asyncio.sleep(_TICK_S)
                continue
            for place, records in polled.items():
                self._lanes[place.topic].offer(place.partition, records)

    async def _tick(self, starting: asyncio.Task[None]) -> None:
        await asyncio.wait([starting])
        while not starting.cancelled():
            if (more := self._source.added()) is not None:
                _log.info("partitions-added", count=sum(map(len, more.values())))
                await self._give_back()
                self._source.take(more)
                self._take_on(more)
            try:
                await self._confirm_topics()
                await self._measure_lag()
            except (KafkaError, TimeoutError):
                self.lag.clear()
            await self._commit()
            await asyncio.sleep(_TICK_S)

    async def _confirm_topics(self) -> None:
        """A topic that is away for a moment has no id, and is not looked at."""
        ids = await self._source.topic_ids()
        for topic, lane in self._lanes.items():
            if self._assigned and topic in ids:
                lane.confirm(ids[topic])

    async def _measure_lag(self) -> None:
        ends = await self._source.ends(list(self._positions()))
        held = self._positions()
        for topic, lane in self._lanes.items():
            if not (self._assigned and lane.adopted):
                self.lag.pop(topic, None)
                continue
            mine = [max(end - held.get(place, end), 0) for place, end in ends.items() if place.topic == topic]
            self.lag[topic] = sum(mine)
            self._metrics.lag.labels(topic).set(self.lag[topic])

    def _positions(self) -> dict[TopicPartition, int]:
        return {
            TopicPartition(topic, partition): offset
            for topic, lane in self._lanes.items()
            for partition, offset in lane.next.items()
        }

    async def _commit(self) -> None:
        news = {place: offset for place, offset in self._positions().items() if self._committed.get(place) != offset}
        if news and await self._source.commit(news):
            self._committed.update(news)
