"""The formula of health: what each part is worth, and that no pressure ever makes it better."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.health.score import (
    TcpSecond,
    available_points,
    delay_points,
    health_score,
    stall_points,
    tcp_points,
)

QUIET = TcpSecond(established=0, time_wait=0, sent=0, retransmitted=0, accepted=0, dropped=0)

rates = st.floats(0, 1e12)
perhaps = st.none() | rates
seconds = st.builds(
    TcpSecond, established=rates, time_wait=perhaps, sent=rates, retransmitted=rates, accepted=rates, dropped=perhaps
)
points = st.floats(0, 100)


@pytest.mark.parametrize(
    ("second", "worth"),
    [
        (QUIET, 100),
        # The balance: 5 for a connection that is established, 1 for one that goes into TIME_WAIT.
        (replace(QUIET, time_wait=30), 70),
        (replace(QUIET, time_wait=30, established=2), 80),
        (replace(QUIET, time_wait=30, established=6), 100),
        (replace(QUIET, time_wait=100), 0),
        (replace(QUIET, time_wait=1_000, established=1_000), 100),
        # Half of what is the worst loss.
        (replace(QUIET, sent=10_000, retransmitted=500), 50),
        (replace(QUIET, sent=10_000, retransmitted=1_000), 0),
        # One of three is no bad network.
        (replace(QUIET, sent=3, retransmitted=1), 90),
        # One in four that came in found no room.
        (replace(QUIET, accepted=300, dropped=100), 75),
        (replace(QUIET, accepted=0, dropped=1), 90),
        # The worst counts, and many connections do not hide it.
        (replace(QUIET, time_wait=40, sent=1_000, retransmitted=20, accepted=90, dropped=10), 60),
        (replace(QUIET, established=1_000, accepted=90, dropped=10), 90),
        # What is not known is left out.
        (replace(QUIET, time_wait=None, dropped=None, sent=1_000, retransmitted=20), 80),
    ],
)
def test_what_a_second_of_tcp_is_worth(second: TcpSecond, worth: float) -> None:
    assert tcp_points(second) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("parts", "score"),
    [
        ((100, 100, 100), 100),
        ((0, 100, 100), 60),
        ((100, 0, 100), 70),
        ((100, 100, 0), 70),
        ((50, 80, 20), 50),
        # Without TCP the other two weigh half each; alone a part is the whole.
        ((None, 80, 20), 50),
        ((None, None, 20), 20),
        ((50, None, 100), 71),
        ((None, None, None), None),
    ],
)
def test_the_parts_weigh_40_30_and_30_and_unknown_ones_nothing(
    parts: tuple[float | None, float | None, float | None], score: int | None
) -> None:
    assert health_score(*parts) == score


@pytest.mark.parametrize(("stalled", "worth"), [(0, 100), (0.25, 75), (1, 0), (1.01, 0), (-0.01, 100)])
def test_a_share_of_time_that_something_waited_takes_that_share(stalled: float, worth: float) -> None:
    assert stall_points(stalled) == pytest.approx(worth)


@pytest.mark.parametrize(("available", "worth"), [(1, 100), (0.1, 100), (0.05, 50), (0, 0)])
def test_memory_is_short_from_a_tenth_on(available: float, worth: float) -> None:
    assert available_points(available) == pytest.approx(worth)


@pytest.mark.parametrize(("running", "waiting", "worth"), [(0, 0, 100), (3, 1, 75), (0, 5, 0), (5, 0, 100)])
def test_a_task_that_waits_as_long_as_it_runs_takes_half(running: float, waiting: float, worth: float) -> None:
    assert delay_points(running, waiting) == pytest.approx(worth)


@given(second=seconds)
def test_tcp_has_0_to_100_points(second: TcpSecond) -> None:
    assert 0 <= tcp_points(second) <= 100


@given(second=seconds, more=rates, worse=st.sampled_from(["time_wait", "retransmitted", "dropped"]))
def test_tcp_never_gains_by_what_is_bad(second: TcpSecond, more: float, worse: str) -> None:
    before = getattr(second, worse)
    if before is not None:
        assert tcp_points(replace(second, **{worse: before + more})) <= tcp_points(second)


@given(second=seconds, more=rates, better=st.sampled_from(["established", "sent", "accepted"]))
def test_tcp_never_loses_by_what_is_good(second: TcpSecond, more: float, better: str) -> None:
    assert tcp_points(replace(second, **{better: getattr(second, better) + more})) >= tcp_points(second)


@given(less=rates, more=rates, running=rates)
def test_stalls_delays_and_scarce_memory_never_gain(less: float, more: float, running: float) -> None:
    worse = less + more
    assert 0 <= stall_points(worse) <= stall_points(less) <= 100
    assert 0 <= delay_points(running, worse) <= delay_points(running, less) <= 100
    assert 0 <= available_points(less) <= available_points(worse) <= 100


@given(tcp=points, memory=points, scheduling=points, loss=points, place=st.integers(0, 2))
def test_the_score_is_between_its_parts_and_falls_with_each(
    tcp: float, memory: float, scheduling: float, loss: float, place: int
) -> None:
    parts = [tcp, memory, scheduling]
    score = health_score(*parts)
    assert score is not None
    assert 0 <= round(min(parts)) <= score <= round(max(parts)) <= 100
    parts[place] = max(0.0, parts[place] - loss)
    worse = health_score(*parts)
    assert worse is not None
    assert worse <= score


@given(known=points, other=points, place=st.integers(0, 2))
def test_an_unknown_part_counts_as_the_mean_of_the_others(known: float, other: float, place: int) -> None:
    parts: list[float | None] = [known, other]
    parts.insert(place, None)
    weights = [40, 30, 30]
    del weights[place]
    mean = (known * weights[0] + other * weights[1]) / sum(weights)
    assert health_score(*parts) == pytest.approx(mean, abs=0.5 + 1e-6)
