"""Which time it is in a partition of heartbeats: what a worker may conclude from hearing nothing."""

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from streams.core.liveness.admission import Limits
from streams.engine.fetched import Heard
from streams.processors.node_clock import BrokerClock
from streams.processors.node_parts import DEAF_AFTER_MS, GRACE_S, Part

FRONTIER_MS = 1_000_000
SKEW_MS = 90_000  # this machine's clock is ahead of the broker's


def part(read_to: int = 100, decided: int = 50) -> Part:
    table = cast("Any", SimpleNamespace(frontier_ms=FRONTIER_MS, decided_offset=decided))
    return Part(0, Limits(1, 1), table, BrokerClock(), read_to, "owner")


def test_without_records_to_read_time_goes_on_with_the_brokers_clock() -> None:
    one = part()
    one.clock.received(FRONTIER_MS, at_s=10.0)
    one.look(Heard(100, FRONTIER_MS + SKEW_MS), FRONTIER_MS + SKEW_MS, 10.0)
    assert one.now_ms == FRONTIER_MS
    one.look(Heard(100, FRONTIER_MS + SKEW_MS + 7_000), FRONTIER_MS + SKEW_MS + 7_000, 17.0)
    assert one.now_ms == FRONTIER_MS + 7_000


def test_with_records_to_read_time_is_the_frontier() -> None:
    one = part()
    one.clock.received(FRONTIER_MS, at_s=10.0)
    one.look(Heard(101, FRONTIER_MS + 7_000), FRONTIER_MS + 7_000, 17.0)
    assert one.now_ms == FRONTIER_MS


def test_a_worker_that_hears_nothing_does_not_conclude_that_nobody_speaks() -> None:
    one = part()
    one.clock.received(FRONTIER_MS, at_s=10.0)
    one.look(Heard(100, FRONTIER_MS), FRONTIER_MS + DEAF_AFTER_MS + 1, 15.0)
    assert one.now_ms == FRONTIER_MS


def test_time_never_goes_back() -> None:
    one = part()
    one.clock.received(FRONTIER_MS, at_s=10.0)
    one.look(Heard(100, FRONTIER_MS), FRONTIER_MS, 12.0)
    one.look(Heard(101, FRONTIER_MS), FRONTIER_MS, 12.5)
    assert one.now_ms == FRONTIER_MS + 2_000


def test_before_any_record_this_machines_clock_has_to_do() -> None:
    one = part()
    one.look(Heard(100, FRONTIER_MS + 3_000), FRONTIER_MS + 3_000, 10.0)
    assert one.now_ms == FRONTIER_MS + 3_000


def test_nobody_is_judged_before_the_log_was_read_to_the_end_it_had_at_first() -> None:
    one = part(read_to=100)
    one.look(Heard(150, 0), 0, 10.0)
    one.read_to = 149
    one.look(Heard(400, 0), 0, 11.0)
    assert not one.may_be_judged(100.0)
    one.read_to = 150
    one.look(Heard(500, 0), 0, 12.0)
    assert not one.may_be_judged(12.0 + GRACE_S / 2)
    assert one.may_be_judged(12.0 + GRACE_S)
    one.wait()
    assert not one.may_be_judged(100.0)


def test_nobody_is_judged_before_all_is_known_again_that_an_earlier_owner_knew() -> None:
    one = part(read_to=100, decided=100)
    one.look(Heard(100, 0), 0, 10.0)
    assert (one.known_again, one.may_be_judged(100.0)) == (False, False)


def test_before_the_broker_has_answered_nobody_is_judged() -> None:
    one = part()
    one.look(None, FRONTIER_MS + 60_000, 10.0)
    assert (one.now_ms, one.may_be_judged(100.0)) == (FRONTIER_MS, False)


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 5_000)), min_size=1, max_size=50),
    st.integers(-(10**12), 10**12),
)
def test_the_brokers_clock_is_never_thought_ahead_of_itself(records: list[tuple[float, float]], starts_ms: int) -> None:
    """`records`: (when appended, s; how long it took to come, ms); the broker's clock began at `starts_ms`."""
    clock = BrokerClock()
    received = sorted((at_s + way_ms / 1_000, starts_ms + int(at_s * 1_000)) for at_s, way_ms in records)
    for at_s, append_ms in received:
        clock.received(append_ms, at_s)
        shown = clock.now_ms(at_s)
        assert shown is not None
        assert append_ms - 1 <= shown <= starts_ms + at_s * 1_000 + 1
