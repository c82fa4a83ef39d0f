"""Two sources beside each other: what services count, and what probes find, each exactly once and none in the other."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from unittest import mock

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from streams.core.slices import SECONDS
from streams.core.sources import place_of
from streams.core.table import Heading, SloTable
from streams.engine import partials
from tests.unit.exactness import COUNTS, PROBES, REQUESTS, START_MS, Counted, Event, Logged, bucket_of, draw_log
from tests.unit.exactness_controls import RULES, SettlesUnheard
from tests.unit.exactness_world import RandomWorld, World

IDS: Mapping[str, str] = {PROBES: "id-of-probes", COUNTS: "id-of-counts"}
SHOP = ("shop", "/cart", "us", REQUESTS)


def probed(append_s: float, ts_s: float) -> Logged:
    """Of a kind that has the name of what services count."""
    return Logged(
        START_MS + int(append_s * 1_000), Event(SHOP, START_MS + int(ts_s * 1_000), success=True, latency_us=300)
    )


def counted(append_s: float, end_s: float, window_ms: int = 1_000, n: int = 5) -> Logged:
    """All good, each of 300 µs."""
    began = START_MS + int(end_s * 1_000) - window_ms
    event = Counted(SHOP, began, window_ms, n, n, n * 300, 300, ((bucket_of(300), n, n),))
    return Logged(START_MS + int(append_s * 1_000), event)


class Named(World):
    """Topics have ids."""

    topic_ids = IDS


class TopicLeftOut(SloTable):
    """A source is a partition, whatever topic it is of."""

    def _advance(self, record: Heading) -> None:
        super()._advance(replace(record, topic=PROBES))


class LeavesTheTopicOut(World):
    table = TopicLeftOut


class LeavesTheTopicOutOfNamed(Named):
    table = TopicLeftOut


# Scripts -------------------------------------------------------------------------------------------------------------


def the_same_second_of_both(kind: type[World]) -> str:
    """The same labels, partition, slice and offsets: only the topic tells them apart."""
    world = kind([[probed(0.1, 0), probed(20, 20)], [counted(0.2, 0.9), counted(20, 20.5)]], counted=1)
    for counter in world.counters:
        world.count(counter, (counter.base, 0, 1))
    return world.finish()


def one_is_far_ahead(kind: type[World]) -> str:
    """What one source has sealed is open for the other: a service that was stopped sends its hour later."""
    late = [counted(3_600 + second / 10, second + 0.5) for second in range(10)]
    world = kind([[probed(second, second) for second in range(0, 4_000, 50)], late], counted=1)
    probes, counts = world.counters
    world.count(probes, (0, 0, 80))
    world.fold()
    world.save()
    world.count(counts, (1, 0, 5))
    world.replace_owner()
    world.restart_counters([1], [0])
    return world.finish()


def a_restart_with_both_open(kind: type[World]) -> str:
    world = kind([[probed(0.1, 0), probed(20, 20)], [counted(0.2, 0.9), counted(11, 0.5), counted(20, 20)]], counted=1)
    probes, counts = world.counters
    world.count(probes, (0, 0, 1))
    world.count(counts, (1, 0, 2))
    world.fold()
    world.save()
    world.restart_counters()
    world.replace_owner()
    return world.finish()


SCRIPTS = (the_same_second_of_both, one_is_far_ahead, a_restart_with_both_open)


@pytest.mark.parametrize("kind", [World, Named])
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_are_counted_once(script: Callable[[type[World]], str], kind: type[World]) -> None:
    assert script(kind) == ""


@pytest.mark.parametrize("kind", [LeavesTheTopicOut, LeavesTheTopicOutOfNamed])
def test_without_the_topic_one_source_replaces_or_seals_the_other(kind: type[World]) -> None:
    """Not every story shows it: there must be one that does for either way of being told apart."""
    assert any(script(kind) for script in SCRIPTS)


def test_a_window_counts_in_the_second_of_its_last_millisecond() -> None:
    world = World([[counted(0.2, 10.0, 10_000), counted(0.3, 9.001, 10_000), counted(30, 30)]], counted=1)
    (counter,) = world.counters
    world.count(counter, (0, 0, 3))
    assert (counter.rollup.events, counter.rollup.late) == (3, 0)
    slices = {key for key in counter.rollup._slots if key < (START_MS // 1_000) + 20}
    assert slices == set()  # sealed by the third, settled
    assert world.finish() == ""


def test_the_first_topic_of_another_name_retires_nothing() -> None:
    world = Named([[probed(0.1, 0), probed(0.2, 0.1)], [counted(0.2, 0.9), counted(0.3, 0.8)]], counted=1)
    for counter in world.counters * 2:
        at = counter.next[counter.base]
        world.count(counter, (counter.base, at, at + 1))
    world.fold()
    lineage = world.owners[0].tables["series"].lineage
    assert (lineage.topics, lineage.newest) == ({PROBES: ["id-of-probes"], COUNTS: ["id-of-counts"]}, {})
    assert list(lineage.retired()) == []


def test_a_recreated_topic_retires_its_own_partitions_only() -> None:
    log = [[probed(0.1, 0), probed(0.2, 0.1), probed(30, 30)], [counted(0.2, 0.9, n=5), counted(0.3, 0.8, n=7)]]
    world = Named(log, counted=1)
    for counter in world.counters:
        world.count(counter, (counter.base, 0, 1))
    world.topic_ids = {**IDS, COUNTS: "made anew"}
    world.commits[1] = (0, 0)
    world.counters[1] = world.new_counter([1])
    world.count(world.counters[1], (1, 0, 2))
    world.count(world.counters[0], (0, 1, 3))
    world.fold()
    table, index = world.owners[0].tables["series"], world.owners[0].index
    assert table.lineage.topics == {PROBES: ["id-of-probes"], COUNTS: ["id-of-counts", "made anew"]}
    assert list(map(place_of, table.lineage.newest)) == [(COUNTS, 0)]
    table.seal()
    found = {name: table.read(index.number(name), SECONDS, 0, 1 << 32)["n"].sum() for name in index.names}
    plain = {name: n for name, n in found.items() if name.startswith("[")}
    assert plain == {log[0][0].event.series: 3, log[1][0].event.series: 5 + 5 + 7}  # type: ignore[union-attr]


# Random worlds -------------------------------------------------------------------------------------------------------


def run(seed: int, kind: type[RandomWorld], acts: int) -> tuple[str, str]:
    rng = Random(seed)
    counted_of, probed_of = rng.choice(((1, 1), (2, 1), (1, 2), (2, 0)))
    with mock.patch.object(partials, "MAX_RECORD_BYTES", rng.choice((3_000, 900_000))):
        world = kind(draw_log(rng, probed_of, 120, counted_of), rng, counted_of)
        differs = world.lived(acts)
    return differs, "\n".join(world.story)


class RandomNamed(Named, RandomWorld):
    pass


@settings(max_examples=3, deadline=None, print_blob=True)
@given(seed=st.integers(0, (1 << 32) - 1), kind=st.sampled_from((RandomWorld, RandomNamed)))
def test_whatever_happens(seed: int, kind: type[RandomWorld]) -> None:
    differs, story = run(seed, kind, 40)
    note(story)
    assert differs == ""


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=200, deadline=None, print_blob=True)
@given(seed=st.integers(0, (1 << 32) - 1), acts=st.integers(10, 120), kind=st.sampled_from((RandomWorld, RandomNamed)))
def test_whatever_happens_for_longer(seed: int, acts: int, kind: type[RandomWorld]) -> None:
    differs, story = run(seed, kind, acts)
    note(story)
    assert differs == ""


@pytest.mark.parametrize("without", [LeavesTheTopicOut, LeavesTheTopicOutOfNamed])
def test_random_worlds_notice_that_the_topic_is_left_out(without: type[World]) -> None:
    kind = type(f"Random{without.__name__}", (without, RandomWorld), {})
    assert any(run(seed, kind, 40)[0] for seed in range(8))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("without", [r for r in RULES if r is not SettlesUnheard], ids=lambda thing: thing.__name__)
def test_random_worlds_of_two_sources_notice_a_missing_rule(without: type[World]) -> None:
    kind = type(f"Random{without.__name__}", (without, RandomWorld), {})
    assert any(run(seed, kind, 60)[0] for seed in range(200))
