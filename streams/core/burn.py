"""Multi-window burn rates: whether an error budget is spent so fast that somebody should look.

The method is that of The Site Reliability Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts": a rule fires
while both its long and its short window burn faster than its factor. The long one says that it matters, the short one
that it still goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
# Share of the budget that the long window may spend, long window, short window, severity: the workbook's table 5-8.
# The factor follows from the share: 14.4, 6, 3 and 1 for an objective over 30 days.
_RECOMMENDED = (
    ("fast", "page", Fraction(2, 100), _HOUR_S, 5 * _MINUTE_S),
    ("slow", "page", Fraction(5, 100), 6 * _HOUR_S, 30 * _MINUTE_S),
    ("fast", "ticket", Fraction(10, 100), _DAY_S, 2 * _HOUR_S),
    ("slow", "ticket", Fraction(10, 100), 3 * _DAY_S, 6 * _HOUR_S),
)


@dataclass(frozen=True, slots=True)
class BurnRule:
    """Fires while the burn rate of both windows is above `factor`."""

    name: str
    severity: str
    factor: float
    long_s: int
    short_s: int

    def can_fire(self, target: float) -> bool:
        """Whether it could fire if every event were bad: a budget burns at 1 / (1 - target) at most."""
        return Fraction(str(self.factor)) * (1 - Fraction(str(target))) < 1


@dataclass(frozen=True, slots=True)
class Counted:
    """Events of a window of `span_s` seconds of event time."""

    span_s: int
    total: int
    good: int


@dataclass(frozen=True, slots=True)
class BurnState:
    """A rule now. Burn rates are None without any events to compare with."""

    rule: BurnRule
    long_burn: float | None
    short_burn: float | None
    firing: bool


def recommended_rules(window_s: int, target: float) -> tuple[BurnRule, ...]:
    """The workbook's rules for an objective over `window_s`: those that fit into it and could fire at its target."""
    rules = [
        BurnRule(f"{severity}-{name}", severity, float(share * window_s / long_s), long_s, short_s)
        for name, severity, share, long_s, short_s in _RECOMMENDED
        if long_s <= window_s
    ]
    return tuple(rule for rule in rules if rule.can_fire(target))


def burn_rate(counted: Counted, usual: Counted, target: float) -> float | None:
    """How many times faster than it lasts the budget is spent in a window: bad / expected / (1 - target).

    `expected` is the window's own total or, when that is less, what `usual` traffic (a longer window) would bring in
    the same time: in a quiet minute one failure out of two events is not half an outage. Never more than the plain
    ratio, and the same for traffic that is as usual.
    """
    # A window that begins before there were any events says no more than what there is.
    from_usual = usual.total * min(1.0, counted.span_s / usual.span_s) if usual.span_s else 0.0
    expected = max(float(counted.total), from_usual)
    if not expected:
        return None
    return (counted.total - counted.good) / expected / (1.0 - target)


def burn_states(
    rules: Sequence[BurnRule], windows: Mapping[int, Counted], usual: Counted, target: float
) -> tuple[BurnState, ...]:
    """Every rule judged on `windows`, which has its long and its short one by length in seconds."""
    return tuple(_state(rule, windows, usual, target) for rule in rules)


def _state(rule: BurnRule, windows: Mapping[int, Counted], usual: Counted, target: float) -> BurnState:
    long, short = (burn_rate(windows[length], usual, target) for length in (rule.long_s, rule.short_s))
    firing = long is not None and short is not None and long > rule.factor and short > rule.factor
    return BurnState(rule, long, short, firing)


def worst(states: Sequence[BurnState]) -> str:
    """The gravest severity that fires, or `ok`."""
    firing = {state.rule.severity for state in states if state.firing}
    return next((severity for severity in ("page", "ticket") if severity in firing), "ok")
