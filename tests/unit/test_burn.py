"""Burn rates over several windows: the workbook's rules, low traffic, and rules that could never fire."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.burn import BurnRule, Counted, burn_rate, burn_states, recommended_rules, worst

HOUR_S, DAY_S = 3_600, 86_400
PAGE = BurnRule("page", "page", 14.4, HOUR_S, 300)
TICKET = BurnRule("ticket", "ticket", 1.0, 3 * DAY_S, 6 * HOUR_S)
COUNTS = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("days", "factors"),
    [
        (30, [14.4, 6, 3, 1]),
        (28, [13.44, 5.6, 2.8, 0.9333333]),
        (7, [3.36, 1.4, 0.7, 0.2333333]),
        (1, [0.48, 0.2, 0.1]),
    ],
)
def test_recommended_factors_spend_the_same_share_of_any_window(days: int, factors: list[float]) -> None:
    """30 and 28 days: the factors that Sloth publishes for its catalogues."""
    rules = recommended_rules(days * DAY_S, 0.999)
    assert [rule.factor for rule in rules] == pytest.approx(factors)
    assert [(rule.severity, rule.long_s, rule.short_s) for rule in rules] == [
        ("page", HOUR_S, 300),
        ("page", 6 * HOUR_S, 1_800),
        ("ticket", DAY_S, 2 * HOUR_S),
        ("ticket", 3 * DAY_S, 6 * HOUR_S),
    ][: len(rules)]


def test_rules_that_could_not_fire_at_a_low_target_are_left_out() -> None:
    assert [rule.factor for rule in recommended_rules(30 * DAY_S, 0.9)] == [6, 3, 1]
    assert [rule.factor for rule in recommended_rules(30 * DAY_S, 0.5)] == [1]


@pytest.mark.parametrize(
    ("factor", "target", "can_fire"),
    [
        (14.4, 0.999, True),
        (9.99, 0.9, True),
        (10.0, 0.9, False),  # when all events are bad the budget burns exactly 10 times as fast
        (100.1, 0.99, False),
    ],
)
def test_a_rule_can_fire_below_the_rate_of_a_full_outage(factor: float, target: float, *, can_fire: bool) -> None:
    assert BurnRule("r", "page", factor, HOUR_S, 300).can_fire(target) is can_fire


def test_it_fires_while_both_windows_burn_and_not_when_one_does() -> None:
    usual = Counted(DAY_S, 86_400, 86_400)
    bad_hour, good_hour = Counted(HOUR_S, 3_600, 3_400), Counted(HOUR_S, 3_600, 3_599)
    bad_minutes, good_minutes = Counted(300, 300, 200), Counted(300, 300, 300)
    for hour, minutes, firing in [
        (bad_hour, bad_minutes, True),
        (bad_hour, good_minutes, False),  # over already
        (good_hour, bad_minutes, False),  # a short burst
    ]:
        (state,) = burn_states([PAGE], {HOUR_S: hour, 300: minutes}, usual, 0.999)
        assert state.firing is firing


def test_without_any_traffic_nothing_burns() -> None:
    nothing = Counted(HOUR_S, 0, 0)
    (state,) = burn_states([PAGE], {HOUR_S: nothing, 300: Counted(300, 0, 0)}, Counted(DAY_S, 0, 0), 0.999)
    assert (state.long_burn, state.short_burn, state.firing) == (None, None, False)


def test_one_failure_in_a_quiet_hour_is_measured_by_the_traffic_of_a_usual_one() -> None:
    usual = Counted(DAY_S, 24_000, 24_000)  # 1,000 an hour
    quiet = Counted(HOUR_S, 2, 1)
    assert burn_rate(quiet, usual, 0.999) == pytest.approx(1.0)  # 1 of 1,000, not 1 of 2
    assert burn_rate(quiet, Counted(0, 0, 0), 0.999) == pytest.approx(500.0)


@given(COUNTS, st.data(), st.sampled_from([0.9, 0.99, 0.9995]), st.integers(1, 10**6))
def test_with_usual_traffic_or_more_it_is_the_plain_ratio(
    total: int, data: st.DataObject, target: float, span: int
) -> None:
    total += 1
    good = data.draw(st.integers(0, total))
    less = data.draw(st.integers(0, total))
    found = burn_rate(Counted(span, total, good), Counted(span, less, less), target)
    assert found == pytest.approx(float(Fraction(total - good, total) / (1 - Fraction(str(target)))), rel=1e-9)


@given(st.integers(0, 1000), st.data(), COUNTS)
def test_low_traffic_never_makes_it_burn_faster(total: int, data: st.DataObject, usual: int) -> None:
    good = data.draw(st.integers(0, total))
    plain = burn_rate(Counted(60, total, good), Counted(0, 0, 0), 0.99)
    rule = burn_rate(Counted(60, total, good), Counted(600, usual, usual), 0.99)
    assert rule is not None or usual == 0
    assert (rule or 0.0) <= (plain or 0.0)


def test_a_window_longer_than_the_history_is_the_plain_ratio() -> None:
    three_minutes = Counted(180, 600, 300)
    assert burn_rate(Counted(HOUR_S, 600, 300), three_minutes, 0.99) == pytest.approx(50.0)


def test_the_gravest_that_fires_is_what_burns() -> None:
    full = Counted(DAY_S, 1_000, 0)
    windows = dict.fromkeys((HOUR_S, 300, 3 * DAY_S, 6 * HOUR_S), full)
    page, ticket = burn_states([PAGE, TICKET], windows, full, 0.99)
    assert worst([ticket, page]) == "page"
    assert worst([ticket]) == "ticket"
    assert worst([]) == "ok"
