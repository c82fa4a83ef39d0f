"""A heartbeat says how long the oldest record of all topics has waited on disk."""

import random
from pathlib import Path

from agents.clock import Clock
from agents.heartbeats import Heartbeats
from agents.host import HostFacts
from agents.kafka import KafkaOptions, KafkaPublisher
from agents.lane import Lane, MemoryLane
from agents.node import Node
from agents.publish import HEARTBEATS, RESULTS, TOPICS, Outbox
from agents.spool.journal import Stamp
from agents.spool.lane import SpoolLane, SpoolLimits
from agents.spool.layout import Era
from agents.spool.store import Store
from schemas.codec import decode
from schemas.records import Heartbeat
from tests.unit.agent_fakes import NOW_MS, ManualClock

NODE = Node("web-17", "eu-1", "eu-1a", (), "boot", NOW_MS, 10_000, "0.1.0")
LIMITS = SpoolLimits(1 << 20, 3_600, "drop_oldest", 10, memory_records=3)


def spool_lane(folder: Path, era: Era = Era(b"e" * 16, NOW_MS, 0)) -> SpoolLane:  # noqa: B008 - frozen
    folder.mkdir(exist_ok=True)
    store = Store(folder, 1 << 20, era)
    store.open()
    return SpoolLane(store, LIMITS, random.Random(1))


def publisher(lanes: dict[str, Lane], clock: Clock) -> KafkaPublisher:
    return KafkaPublisher(KafkaOptions("127.0.0.1:1", "lz4"), NODE.id, lanes, clock, random.Random(1))


def heartbeats(to: KafkaPublisher, clock: Clock) -> Heartbeats:
    return Heartbeats(NODE, Outbox(to), lambda: HostFacts(None, None, None), clock, random.Random(1))


def handed_over(lane: Lane) -> list[bytes]:
    values: list[bytes] = []
    lane.hand_over(lambda value: not values.append(value))  # type: ignore[func-returns-value]
    return values


def test_the_age_is_that_of_the_oldest_record_of_all_topics_and_0_when_none_waits(tmp_path: Path) -> None:
    clock = ManualClock()
    lanes = {topic: spool_lane(tmp_path / topic) for topic in TOPICS}
    to = publisher(dict(lanes), clock)
    beats = heartbeats(to, clock)
    beats.beat()
    clock.now_s = 7.25
    to.offer(RESULTS, b"result")
    clock.now_s = 9.5
    beats.beat()
    said = handed_over(lanes[HEARTBEATS])
    lanes[HEARTBEATS].fly(Stamp(1, 0, 0, 0))
    lanes[HEARTBEATS].acknowledge()
    beats.beat()
    handed_over(lanes[RESULTS])
    lanes[RESULTS].fly(Stamp(1, 0, 0, 0))
    clock.now_s = 10.0
    said += handed_over(lanes[HEARTBEATS])
    lanes[HEARTBEATS].fly(Stamp(1, 0, 0, 2))
    lanes[HEARTBEATS].acknowledge()
    beats.beat()
    lanes[RESULTS].acknowledge()
    said += handed_over(lanes[HEARTBEATS])
    ages = [record.spool_age_ms for record in map(decode, said) if isinstance(record, Heartbeat)]
    assert ages == [0, 9_500, 2_250, 2_750], "the last one: what is on its way still waits"
    for lane in lanes.values():
        lane.close()


def test_the_age_goes_on_over_a_restart_of_process_and_machine(tmp_path: Path) -> None:
    clock = ManualClock()
    first = spool_lane(tmp_path / RESULTS)
    first.offer(b"result", 2.0)
    first.close()
    clock.now_s = 5.0
    lane = spool_lane(tmp_path / RESULTS)
    assert Outbox(publisher({RESULTS: lane}, clock)).spool_age_ms(clock.now_s) == 3_000
    lane.close()
    # Taken at NOW_MS + 2 s. The machine's next run began 60 s after the last one, and 1 s of it is over.
    clock.now_s = 1.0
    lane = spool_lane(tmp_path / RESULTS, Era(b"f" * 16, NOW_MS + 61_000, 1_000))
    assert Outbox(publisher({RESULTS: lane}, clock)).spool_age_ms(clock.now_s) == 59_000
    lane.close()


def test_without_a_spool_no_age_is_told() -> None:
    clock = ManualClock()
    lane = MemoryLane(10, 60)
    to = publisher({HEARTBEATS: lane}, clock)
    beats = heartbeats(to, clock)
    beats.beat()
    clock.now_s = 3.0
    beats.beat()
    said = [decode(value) for value in handed_over(lane)]
    assert [record.spool_age_ms for record in said if isinstance(record, Heartbeat)] == [None, None]
