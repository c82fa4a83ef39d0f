"""Selectors, versions of an objective, and the arithmetic of error budgets."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.objectives import Budget, Objective, Selector, budget, seconds_to_exhaustion

CART = ("shop", "/cart", "eu", "http")
OBJECTIVE = Objective("cart", "shop", "Cart", Selector(service="shop"), 200_000, 0.99, 3_600)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (Selector(), True),
        (Selector(service="shop"), True),
        (Selector("shop", "/cart", "eu", "http"), True),
        (Selector(service="Shop"), False),
        (Selector(service="shop", region="us"), False),
        (Selector(endpoint=""), False),
        (Selector(kind="tcp"), False),
    ],
)
def test_a_selector_wants_all_that_it_names(selector: Selector, matches: bool) -> None:  # noqa: FBT001 - a column
    assert selector.matches(*CART) is matches


def test_an_empty_label_is_a_label() -> None:
    assert Selector(region="").matches("shop", "/cart", "", "http")


@pytest.mark.parametrize(
    "changed",
    [
        replace(OBJECTIVE, selector=Selector(service="other")),
        replace(OBJECTIVE, selector=Selector(endpoint="shop")),
        replace(OBJECTIVE, latency_us_le=200_001),
        replace(OBJECTIVE, latency_us_le=None),
    ],
)
def test_what_would_count_other_events_is_another_version(changed: Objective) -> None:
    assert changed.version != OBJECTIVE.version
    assert changed.series != OBJECTIVE.series


@pytest.mark.parametrize(
    "changed",
    [replace(OBJECTIVE, target=0.5), replace(OBJECTIVE, window_s=60), replace(OBJECTIVE, display_name="Basket")],
)
def test_what_counts_the_same_events_keeps_its_history(changed: Objective) -> None:
    assert changed.series == OBJECTIVE.series


def test_the_version_is_the_same_in_every_process() -> None:
    assert OBJECTIVE.series == "slo:cart@4ff24104"


@pytest.mark.parametrize(
    ("total", "good", "target", "attainment", "burn_rate", "budget_left"),
    [
        (1_000, 1_000, 0.99, 1.0, 0.0, 1.0),
        (1_000, 990, 0.99, 0.99, 1.0, 0.0),
        (1_000, 995, 0.99, 0.995, 0.5, 0.5),
        (1_000, 980, 0.99, 0.98, 2.0, -1.0),
        (1_000, 0, 0.99, 0.0, 100.0, -99.0),
        (1, 0, 0.5, 0.0, 2.0, -1.0),
    ],
)
def test_budgets(total: int, good: int, target: float, attainment: float, burn_rate: float, budget_left: float) -> None:
    found = budget(total, good, target)
    assert (found.total, found.good) == (total, good)
    assert (found.attainment, found.burn_rate, found.budget_left) == pytest.approx((attainment, burn_rate, budget_left))


def test_nothing_to_judge_is_neither_good_nor_bad() -> None:
    assert budget(0, 0, 0.99) == Budget(0, 0, None, None, None)


@given(st.integers(1, 10**12), st.data(), st.sampled_from([0.5, 0.9, 0.99, 0.999, 0.99999]))
def test_budgets_are_the_exact_fractions(total: int, data: st.DataObject, target: float) -> None:
    good = data.draw(st.integers(0, total))
    found = budget(total, good, target)
    burn = Fraction(total - good, total) / (1 - Fraction(str(target)))
    assert found.burn_rate == pytest.approx(float(burn), rel=1e-9)
    assert found.budget_left == pytest.approx(float(1 - burn), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("budget_left", "burn_rate", "seconds"),
    [
        (1.0, 1.0, 3_600),  # an untouched budget at its own pace lasts one window
        (0.5, 2.0, 900),
        (0.25, 14.4, 62.5),
        (0.0, 3.0, 0),
        (-0.5, 3.0, 0),  # overspent
        (0.5, 0.0, None),  # does not shrink
        (0.5, None, None),
        (None, 2.0, None),
    ],
)
def test_how_long_a_budget_lasts(budget_left: float | None, burn_rate: float | None, seconds: float | None) -> None:
    assert seconds_to_exhaustion(budget_left, burn_rate, 3_600) == (None if seconds is None else pytest.approx(seconds))
