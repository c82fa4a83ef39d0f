"""What becomes of records before Kafka has them: numbers, bounds, ages, and every loss counted."""

import asyncio
import random
from dataclasses import replace
from itertools import pairwise

from agents.heartbeats import Heartbeats
from agents.host import HostFacts
from agents.lane import MemoryLane
from agents.node import Node, probe_result
from agents.probes.base import Down, Phase, Phases, Timeout, Up
from agents.publish import HEARTBEATS, RESULTS, Drop, Outbox
from schemas.records import Heartbeat, Label, ProbeResult
from tests.unit.agent_fakes import NOW_MS, Answering, ListPublisher, ManualClock, spec

NODE = Node("web-17", "eu-1", "eu-1a", (Label("role", "web"),), "boot", NOW_MS, 10_000, "0.1.0", "5b1f09c2")


def facts() -> HostFacts:
    return HostFacts(120, 500, None)


def heartbeats(publisher: ListPublisher, clock: ManualClock) -> Heartbeats:
    return Heartbeats(NODE, Outbox(publisher), facts, clock, random.Random(1))


def test_heartbeats_come_at_once_and_then_an_interval_apart_give_or_take_5_percent() -> None:
    async def case() -> None:
        publisher, clock = ListPublisher(), ManualClock()
        task = asyncio.create_task(heartbeats(publisher, clock).run())
        await clock.advance(0)
        assert len(publisher.taken) == 1
        await clock.advance(1_000)
        task.cancel()
        beats = [record for record in publisher.taken if isinstance(record, Heartbeat)]
        assert 95 <= len(beats) <= 105
        gaps = [after.ts - before.ts for before, after in pairwise(beats)]
        assert min(gaps) >= 9_499
        assert max(gaps) <= 10_501
        assert max(gaps) - min(gaps) > 500
        assert [beat.seq for beat in beats] == [beat.heartbeat_seq for beat in beats] == list(range(len(beats)))

    asyncio.run(case())


def test_a_node_that_changes_says_so_at_once_and_keeps_to_its_new_interval() -> None:
    async def case() -> None:
        publisher, clock = ListPublisher(), ManualClock()
        beats = heartbeats(publisher, clock)
        task = asyncio.create_task(beats.run())
        await clock.advance(3)
        beats.change(replace(NODE, region="eu-2", interval_ms=2_000, config_version="another"))
        await clock.advance(0.1)
        told = [(beat.region, beat.interval_ms, beat.config_version) for beat in publisher.taken[1:]]  # type: ignore[union-attr]
        assert told == [("eu-2", 2_000, "another")]
        await clock.advance(20)
        task.cancel()
        assert 11 <= len(publisher.taken) <= 13

    asyncio.run(case())


def test_a_heartbeat_says_who_where_since_when_and_how_the_host_is() -> None:
    publisher, clock = ListPublisher(), ManualClock()
    beats = heartbeats(publisher, clock)
    beats.beat()
    beats.drain()
    beats.say_goodbye()
    expected = Heartbeat(
        node_id="web-17",
        ts=NOW_MS,
        boot_id="boot",
        boot_ts=NOW_MS,
        seq=0,
        interval_ms=10_000,
        state="UP",
        region="eu-1",
        zone="eu-1a",
        agent_version="0.1.0",
        cpu_permille=120,
        memory_permille=500,
        labels=(Label("role", "web"),),
        heartbeat_seq=0,
        config_version="5b1f09c2",
    )
    assert publisher.taken[0] == expected
    assert [record.state for record in publisher.taken if isinstance(record, Heartbeat)] == [
        "UP",
        "DRAINING",
        "GOODBYE",
    ]


def test_a_number_is_used_up_only_by_a_record_that_was_taken_and_the_next_heartbeat_tells_of_the_others() -> None:
    full: set[str] = set()
    publisher = ListPublisher(lambda topic: Drop.BUFFER_FULL if topic in full else None)
    outbox = Outbox(publisher)
    beats = Heartbeats(NODE, outbox, facts, ManualClock(), random.Random(1))
    probe = spec("home", Answering())
    for blocked in ((), (RESULTS,), (HEARTBEATS,), ()):
        full = {*blocked}
        beats.beat()
        outbox.put(lambda seq: probe_result(NODE, probe, Up(5), NOW_MS, seq))
    taken = [record for record in publisher.taken if isinstance(record, Heartbeat | ProbeResult)]
    assert [record.seq for record in taken] == list(range(6))
    assert [(beat.heartbeat_seq, beat.dropped) for beat in taken if isinstance(beat, Heartbeat)] == [
        (0, 0),
        (1, 0),
        (2, 2),
    ]


def test_outcomes_become_results_with_phases_status_and_reason() -> None:
    probe = spec("home", Answering())
    phases = Phases(resolve_us=10, connect_us=20)
    up = probe_result(NODE, probe, Up(500, phases, 200), NOW_MS, 3)
    assert up == ProbeResult(
        node_id="web-17",
        ts=NOW_MS,
        boot_id="boot",
        seq=3,
        probe="home",
        kind="fake",
        service="shop",
        endpoint="/",
        region="eu-1",
        success=True,
        latency_us=500,
        resolve_us=10,
        connect_us=20,
        status_code=200,
        impact="P1",
    )
    down = probe_result(NODE, probe, Down("status", "503", 700, phases, 503), NOW_MS, 4)
    assert (down.success, down.latency_us, down.error, down.status_code) == (False, 700, "status", 503)
    late = probe_result(NODE, probe, Timeout(5_000_000, Phase.CONNECT, phases), NOW_MS, 5)
    assert (late.success, late.latency_us, late.error, late.connect_us) == (False, 5_000_000, "timeout", 20)


def hand_over(lane: MemoryLane, count: int) -> list[bytes]:
    batch: list[bytes] = []

    def accepts(value: bytes) -> bool:
        if len(batch) == count:
            return False
        batch.append(value)
        return True

    lane.hand_over(accepts)
    return batch


def filled(count: int, limit: int = 10) -> MemoryLane:
    lane = MemoryLane(limit, give_up_after_s=60)
    for number in range(count):
        lane.offer(b"%d" % number, now_s=number)
    return lane


def test_a_lane_hands_over_in_order_and_counts_what_was_acknowledged() -> None:
    lane = filled(5)
    assert hand_over(lane, 3) == [b"0", b"1", b"2"]
    assert (len(lane), lane.waiting, lane.oldest_s()) == (5, 2, 0)
    lane.acknowledge()
    assert hand_over(lane, 9) == [b"3", b"4"]
    lane.acknowledge()
    assert (len(lane), lane.oldest_s(), lane.figures().acknowledged, lane.figures().dropped) == (0, None, 5, {})


def test_a_full_lane_refuses_the_newest_and_what_is_on_its_way_counts_as_in_it() -> None:
    lane = filled(3, limit=3)
    hand_over(lane, 2)
    assert lane.offer(b"x", now_s=3) is Drop.BUFFER_FULL
    lane.acknowledge()
    assert lane.offer(b"y", now_s=4) is None
    assert lane.figures().dropped == {Drop.BUFFER_FULL: 1}


def test_a_record_that_waits_for_too_long_is_dropped_but_not_one_that_kafka_may_be_writing() -> None:
    lane = filled(4)
    hand_over(lane, 2)
    lane.expire(now_s=62.5)
    assert lane.figures().dropped == {Drop.EXPIRED: 1}  # the one taken at 2 s; those of 0 s and 1 s are handed over
    lane.acknowledge()
    assert hand_over(lane, 9) == [b"3"]


def test_what_was_not_sent_waits_again_in_order_and_what_may_have_been_is_not_sent_twice() -> None:
    lane = filled(4)
    hand_over(lane, 2)
    lane.take_back()
    assert hand_over(lane, 3) == [b"0", b"1", b"2"]
    lane.refuse()
    assert hand_over(lane, 3) == [b"3"]
    assert lane.give_up() == 1
    assert lane.figures().dropped == {Drop.REFUSED: 3, Drop.STOPPED: 1}
    assert len(lane) == 0
