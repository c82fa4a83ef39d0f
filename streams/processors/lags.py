"""How far the processors are behind the log, and up to when that makes their tables complete."""

import time
from collections.abc import Mapping

from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from streams import metrics
from streams.core.completeness import InputMark, Tip, Told, complete_to_ms, newer
from streams.core.sources import SOURCES, lane
from streams.core.stall import Reading
from streams.engine.app import App
from streams.engine.fetched import Heard, last_heard
from streams.engine.transport import Consumer, topic_partitions
from streams.processors.liveness import LivenessProcessor
from streams.processors.node_recovery import SOURCE as HEARTBEATS
from streams.processors.objectives import ObjectivesProcessor
from streams.processors.queries import Completeness
from streams.processors.rollup import RollupProcessor
from streams.processors.slo_recovery import PARTIALS

TOPICS = (*SOURCES, PARTIALS, HEARTBEATS)
# The broker answers a fetch after 1.5 s at the latest. An answer this young makes an end of the log good up to now.
FRESH_MS = 2_000


class Lags:
    """Compares what processors have worked off with what the fetcher has heard of the log."""

    def __init__(
        self,
        app: App,
        rollups: Mapping[str, RollupProcessor],
        objectives: ObjectivesProcessor,
        liveness: LivenessProcessor,
        partitions: int,
    ) -> None:
        self._app = app
        self._rollups = rollups
        self._objectives = objectives
        self._liveness = liveness
        self._lanes = [lane(topic, partition) for topic in rollups for partition in range(partitions)]
        self._tips: dict[int, Tip] = {}
        self._marks: dict[int, InputMark] = {}
        self._assigned_ms: int | None = None

    def lose_all(self) -> None:
        """A rebalance has begun; what is known of the log stays true."""
        self._marks = {}
        self._assigned_ms = None

    def assigned(self) -> None:
        """What was committed until now, earlier owners had published."""
        self._assigned_ms = _now_ms()

    def read_to(self, tp: TP) -> int:
        """The offset after the last record of an assigned partition that was worked off."""
        if tp.topic == PARTIALS:
            part = self._objectives.parts.get(tp.partition)
            return part.applied + 1 if part else 0
        if tp.topic == HEARTBEATS:
            nodes = self._liveness.parts.get(tp.partition)
            return nodes.read_to if nodes else 0
        committed = self._consumer.committed.get(tp)
        return self._rollups[tp.topic].read_to(tp.partition) or (committed.offset if committed else 0)

    def heard(self, tp: TP) -> Heard | None:
        """As the fetcher has it."""
        return last_heard(self._app, tp)

    def readings(self) -> dict[TP, Reading | None]:
        """Of every assigned partition; None before the broker has answered for it."""
        found: dict[TP, Reading | None] = {}
        for topic in TOPICS:
            for partition in self._assigned(topic):
                tp = TP(topic, partition)
                heard = self.heard(tp)
                found[tp] = None if heard is None else Reading(self.read_to(tp), heard.end)
        return found

    def total(self) -> int | None:
        """Records of all topics that are in the log and not yet worked off; None while that is not known."""
        readings = self.readings()
        for topic in TOPICS:
            behind = [max(0, r.end - r.read_to) for tp, r in readings.items() if tp.topic == topic and r is not None]
            metrics.CONSUMER_LAG.labels(topic).set(sum(behind))
        if any(reading is None for reading in readings.values()):
            return None
        return sum(max(0, reading.end - reading.read_to) for reading in readings.values() if reading is not None)

    def look(self) -> None:
        """Note what can be said of the log now."""
        now_ms = _now_ms()
        for partition in self._assigned(PARTIALS):
            tp = TP(PARTIALS, partition)
            heard = self.heard(tp)
            if heard is not None and self._objectives.recovered and partition in self._objectives.parts:
                mark = self._marks.setdefault(partition, InputMark())
                read_to = self._objectives.parts[partition].shown.applied + 1  # what readers cannot see yet is not read
                mark.look(read_to, heard.end, _good_to_ms(heard, now_ms))
        self.hear(self._own_tips(now_ms))

    def hear(self, tips: Mapping[int, Tip]) -> None:
        """What this or another worker says of lanes."""
        for own in self._lanes:
            if own in tips:
                self._tips[own] = newer(self._tips.get(own), tips[own])

    def own_tips(self) -> dict[int, Tip]:
        """Of the lanes that this worker reads, and has read to their end."""
        return self._own_tips(_now_ms())

    def completeness(self) -> Completeness:
        """A lane is complete up to its frontier in the tables; further when its log is known to have ended.

        To be asked before the tables are: they may have more than this says, and never less.
        """
        now_ms = _now_ms()
        self.hear(self._own_tips(now_ms))
        tables = [
            Told(shown.frontiers, shown.told, self._mark(partition).read_up_at_ms)
            for partition, part in self._objectives.parts.items()
            for shown in (part.shown,)  # another thread may put the next one in its place
        ]
        lowest = min(complete_to_ms(tables, self._tips, self._lanes), now_ms)
        return Completeness(lowest, now_ms - lowest if lowest else -1)

    def _own_tips(self, now_ms: int) -> dict[int, Tip]:
        tips: dict[int, Tip] = {}
        for tp in [TP(topic, partition) for topic in self._rollups for partition in self._assigned(topic)]:
            heard = self.heard(tp)  # before what was read: that may only be more
            read_to = self.read_to(tp)
            published = self._rollups[tp.topic].read_to(tp.partition) is not None
            if heard is not None and read_to >= heard.end and (published or self._assigned_ms is not None):
                earlier_ms = None if published else self._assigned_ms
                tips[lane(tp.topic, tp.partition)] = Tip(read_to, _good_to_ms(heard, now_ms), earlier_ms)
        return tips

    def _assigned(self, topic: str) -> set[int]:
        """Views are asked before Faust has started, and while it stops: then there are none."""
        try:
            return topic_partitions(self._consumer.assignment(), topic)
        except ConsumerNotStarted:
            return set()

    def _mark(self, partition: int) -> InputMark:
        return self._marks.get(partition) or InputMark()

    @property
    def _consumer(self) -> Consumer:
        return self._app.consumer  # type: ignore[return-value]


def _good_to_ms(heard: Heard, now_ms: int) -> int:
    return now_ms if 0 <= now_ms - heard.at_ms <= FRESH_MS else min(heard.at_ms, now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
