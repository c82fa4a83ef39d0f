"""A worker and the topic `objectives`: what it announces, believes and refuses, with the topic in memory."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from schemas.codec import encode, frame
from schemas.records import Label, ProbeResult
from streams import metrics
from streams.core.burn import BurnRule, recommended_rules
from streams.core.calendars import Calendar
from streams.core.objectives import Objective, Selector
from streams.core.sources import COUNTS
from streams.core.versions import CONFIRMED_FOR_MS, KEPT_MS, Announcement
from streams.engine.announcements import (
    MAX_SET_BYTES,
    LogShrunkError,
    NewerWriterError,
    SetTooLargeError,
    SetUnreadableError,
    read_set,
    write_set,
)
from streams.processors import versions
from streams.processors.versions import GIVE_UP_AFTER_S, Announced, NotConfirmedError
from tests.unit.objectives_topic import Log, Topic, played, worker

RULES = recommended_rules(2_592_000, 0.999)
FIRST = (
    Objective("pay", "shop", "Päy", Selector("shop", None, "eu"), 200_000, 0.999, 2_592_000, RULES),
    Objective("up", "shop", "up", Selector(), None, 0.95, 60),
)
PROBE = ProbeResult("n", 0, "b", 0, "p", "k", "s", "e", "r", success=True, latency_us=1, labels=(Label("a", "b"),))
SECOND = (replace(FIRST[0], latency_us_le=100_000), FIRST[1])


def with_rule(long_s: int = 3_600, short_s: int = 60) -> Objective:
    return replace(FIRST[0], rules=(BurnRule("odd", "page", 14.4, long_s, short_s),))


def over(calendar: Calendar) -> Objective:
    return replace(FIRST[0], calendar=calendar)


def read(value: bytes) -> Announcement:
    topic = Topic()
    topic.put(b"key", value)
    return read_set(topic.records[0])


def test_a_set_comes_back_as_it_was_announced() -> None:
    assert read(write_set(FIRST, "here")) == Announcement(0, 1_000_000, 0, FIRST, "here")
    assert read(write_set((), "there", 77)) == Announcement(0, 1_000_000, 77, (), "there")


def test_a_set_that_no_record_can_hold_is_refused() -> None:
    many = [replace(FIRST[0], id=f"slo-{n}") for n in range(5_000)]
    with pytest.raises(SetTooLargeError, match=rf"5000 objectives take \d+ bytes; expected at most {MAX_SET_BYTES}"):
        write_set(many, "here")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"junk", "bad-frame"),
        (write_set(FIRST, "")[:-1], "truncated"),
        (encode(PROBE), "ProbeResult"),
        (write_set((FIRST[0], FIRST[0]), ""), "an id comes twice"),
        (write_set((replace(FIRST[0], target=1.0),), ""), "target 1.0"),
        (write_set((replace(FIRST[0], window_s=0),), ""), "window_s 0"),
        (write_set((replace(FIRST[0], window_s=1 << 62),), ""), "window_s 4611686018427387904; .* to 10 years"),
        (write_set((with_rule(long_s=1 << 62),), ""), "rule 'odd' over 4611686018427387904 s and 60 s"),
        (write_set((with_rule(short_s=0),), ""), "rule 'odd' over 3600 s and 0 s"),
        (write_set((over(Calendar("2026-01-01 00:00:00", "UTC", 10**9, "M")),), ""), "a period of 1000000000M"),
        (write_set((over(Calendar("9999-12-31 00:00:00", "UTC", 1, "M")),), ""), "expected a year from 1970 to 2100"),
        (write_set((replace(FIRST[0], source=COUNTS, latency_us_le=1 << 62),), ""), "expected a bucket's bound"),
    ],
)
def test_what_is_no_set_changes_nothing(value: bytes, why: str) -> None:
    with pytest.raises(SetUnreadableError, match=why):
        read(value)

    async def script(topic: Topic) -> None:
        topic.put(b"x", value)
        versions = worker(topic)
        unreadable = metrics.OBJECTIVE_SETS_UNREADABLE._value.get()
        assert (await versions.offer(FIRST, 0)).new
        assert [era.since_s for era in versions.timeline.eras] == [0]
        assert metrics.OBJECTIVE_SETS_UNREADABLE._value.get() == unreadable + 1

    played(script)


def test_a_form_that_only_a_newer_program_knows_stops_the_worker() -> None:
    async def script(topic: Topic) -> None:
        topic.put(b"x", frame(4_711, b""))
        with pytest.raises(NewerWriterError, match="schema id 4711"):
            await worker(topic).offer(FIRST, 0)

    played(script)


def test_what_stops_a_worker_is_heard_by_everybody_who_asks() -> None:
    """A reload may be the first to read it; who follows the topic has to end the worker."""

    async def script(topic: Topic) -> None:
        versions = worker(topic)
        await versions.offer(FIRST, 0)
        topic.put(b"x", frame(4_711, b""))
        with pytest.raises(NewerWriterError):
            await versions.announce(SECOND)
        assert versions.known() is None
        with pytest.raises(NewerWriterError):
            await asyncio.wait_for(versions.follow(), 60)

    played(script)


def test_a_topic_that_was_emptied_stops_a_worker_and_a_new_one_begins_anew() -> None:
    async def script(topic: Topic) -> None:
        versions = worker(topic)
        await versions.offer(FIRST, 0)
        topic.put(b"key 0", None)
        with pytest.raises(LogShrunkError, match="every set in objectives was deleted"):
            await asyncio.wait_for(versions.follow(), 60)
        assert (await worker(topic).offer(SECOND, 0)).start_ms == 0

    played(script)


def test_the_first_set_judges_everything_and_the_next_one_from_30_s_on() -> None:
    async def script(topic: Topic) -> None:
        one, other = worker(topic), worker(topic)
        assert await one.offer(FIRST, 0) == Announced(new=True, objectives=2, start_ms=0)
        assert await other.offer(FIRST, 0) == Announced(new=False, objectives=2, start_ms=0)
        topic.now_ms += 500
        start_ms = 1_031_000
        assert await other.announce(SECOND) == Announced(new=True, objectives=2, start_ms=start_ms)
        await one.confirm()
        for each in (one, other):
            assert each.timeline.era(start_ms - 1).objectives == FIRST
            assert each.timeline.era(start_ms).objectives == SECOND
        assert len(topic.records) == 2

    played(script)


def test_workers_that_announce_at_once_agree() -> None:
    async def script(topic: Topic) -> None:
        workers = [worker(topic) for _ in range(3)]
        await asyncio.gather(*[each.offer(FIRST, 0) for each in workers])
        assert len(topic.records) == 3
        await asyncio.gather(*[each.confirm() for each in workers])
        assert {each.timeline.eras for each in workers} == {workers[0].timeline.eras}
        assert len(workers[0].timeline.eras) == 1

    played(script)


def test_a_worker_restarted_with_an_old_file_does_not_take_back_what_came_since() -> None:
    async def script(topic: Topic) -> None:
        await worker(topic).offer(FIRST, 0)
        topic.now_ms += 60_000
        await worker(topic, "there").announce(SECOND)
        late = worker(topic)
        assert not (await late.offer(FIRST, 0)).new
        assert late.timeline.newest == SECOND
        assert metrics.OBJECTIVES_FILE_USED._value.get() == 0
        assert (await late.announce(FIRST)).new, "somebody insists"

    played(script)


def test_a_worker_that_could_not_ask_lately_does_not_know() -> None:
    async def script(topic: Topic) -> None:
        versions = worker(topic)
        assert versions.known() is None
        await versions.confirm()
        assert versions.known() is None, "nothing was announced"
        await versions.offer(FIRST, 0)
        assert versions.known() is versions.timeline
        topic.now_ms += CONFIRMED_FOR_MS - 1
        assert versions.known() is versions.timeline
        topic.now_ms += 1
        assert versions.known() is None
        topic.broken = True
        with pytest.raises(KafkaConnectionError):
            await versions.confirm()
        assert versions.known() is None
        topic.broken = False
        await versions.confirm()
        assert versions.known() is versions.timeline

    played(script)


def test_what_was_confirmed_is_as_old_as_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped between question and answer may have missed a set."""

    async def script(topic: Topic) -> None:
        versions = worker(topic)
        await versions.offer(FIRST, 0)

        async def slow(_: Log) -> list[ConsumerRecord[bytes, bytes]]:
            topic.now_ms += CONFIRMED_FOR_MS
            return []

        monkeypatch.setattr(Log, "read_to_end", slow)
        await versions.confirm()
        assert versions.known() is None

    played(script)


async def turns() -> None:
    """Enough for everybody to get on, however fast the machine is."""
    for _ in range(200):
        await asyncio.sleep(0)


def test_a_worker_that_cannot_find_out_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "CONFIRM_EVERY_S", 0.0)

    async def script(topic: Topic) -> None:
        following = worker(topic)
        await following.offer(FIRST, 0)
        task = asyncio.create_task(following.follow())
        topic.broken = True
        await turns()
        topic.now_ms += int(GIVE_UP_AFTER_S * 1_000) - 1
        await turns()
        assert not task.done()
        topic.broken = False
        await turns()  # it hears again: the time begins anew
        topic.broken = True
        await turns()
        topic.now_ms += int(GIVE_UP_AFTER_S * 1_000)
        with pytest.raises(NotConfirmedError, match=r"could not be read to its end for 60 s \(KafkaConnectionError"):
            await asyncio.wait_for(task, 60)

    played(script)


def test_sets_that_judge_nothing_any_more_leave_and_nobody_notices() -> None:
    async def script(topic: Topic) -> None:
        versions = worker(topic)
        await versions.offer(FIRST, 0)
        topic.now_ms += 1_000
        await versions.announce(SECOND)
        topic.now_ms += KEPT_MS + 40_000
        await versions.announce(FIRST)
        await versions.confirm()
        topic.compact()
        fresh = worker(topic)
        await fresh.confirm()
        assert len(topic.records) == 2
        assert fresh.timeline.eras == versions.timeline.eras
        assert [era.objectives for era in fresh.timeline.eras] == [SECOND, FIRST]

    played(script)
