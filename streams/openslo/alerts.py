"""AlertPolicy and AlertCondition: burn-rate rules in OpenSLO's words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from streams.core.burn import BurnRule
from streams.openslo.fields import (
    Description,
    Metadata,
    Name,
    OpenSlo,
    duration,
    either,
    not_yet,
    one_of,
    required_true,
    seconds,
    single,
)

# The short window of a rule: long enough to count something, short enough to end soon after the trouble does.
SHORT_SHARE = 12
_SHORTEST_LONG_S = 120


def _unless_false(value: object) -> object:
    if value is not False:
        raise ValueError("not supported yet; expected false")
    return value


def _long_window(value: str) -> str:
    if seconds(value) < _SHORTEST_LONG_S or seconds(value) % SHORT_SHARE:
        raise ValueError("expected 2m or more, of which a twelfth is whole seconds")
    return value


class _Burnrate(OpenSlo):
    kind: Annotated[Literal["burnrate"], one_of("burnrate")] = "burnrate"
    op: Annotated[Literal["gt"], one_of("gt")] = "gt"
    threshold: Annotated[float, Field(gt=0, le=1e6)] | Annotated[int, Field(gt=0, le=10**6)]
    lookback_window: Annotated[str, AfterValidator(duration), AfterValidator(_long_window)]
    alert_after: str | None = None


class _ConditionSpec(OpenSlo):
    description: Description | None = None
    severity: Literal["page", "ticket"]
    condition: _Burnrate


class AlertCondition(OpenSlo):
    """When an error budget is spent too fast."""

    api_version: Literal["openslo/v1"] = "openslo/v1"
    kind: Literal["AlertCondition"]
    metadata: Metadata
    spec: _ConditionSpec


class ConditionRef(OpenSlo):
    """A condition that stands in a document of its own."""

    condition_ref: Name


if TYPE_CHECKING:
    Condition = ConditionRef | AlertCondition
else:
    Condition = either("conditionRef", ConditionRef, AlertCondition)


class _PolicySpec(OpenSlo):
    description: Description | None = None
    alert_when_breaching: Annotated[bool, required_true("a policy says when a budget is spent too fast")] = True
    alert_when_resolved: bool = False
    alert_when_no_data: Annotated[bool, BeforeValidator(_unless_false)] = False
    conditions: Annotated[list[Condition], AfterValidator(single)]
    notification_targets: Annotated[None, not_yet("none")] = None


class AlertPolicy(OpenSlo):
    """What an SLO refers to; its only condition is one rule."""

    api_version: Literal["openslo/v1"] = "openslo/v1"
    kind: Literal["AlertPolicy"]
    metadata: Metadata
    spec: _PolicySpec


class PolicyRef(OpenSlo):
    """A policy that stands in a document of its own."""

    alert_policy_ref: Name


if TYPE_CHECKING:
    Policy = PolicyRef | AlertPolicy
else:
    Policy = either("alertPolicyRef", PolicyRef, AlertPolicy)


def rule_of(condition: AlertCondition) -> BurnRule:
    """The rule of a condition: `lookbackWindow` is its long window, a twelfth of it the short one."""
    asked = condition.spec.condition
    long_s = seconds(asked.lookback_window)
    name, severity = condition.metadata.name, condition.spec.severity
    return BurnRule(name, severity, float(asked.threshold), long_s, long_s // SHORT_SHARE)


def contradictions(condition: AlertCondition) -> Iterator[tuple[tuple[Any, ...], str]]:
    """What each field of a condition allows but not all of them together: (path in the document, sentence)."""
    asked = condition.spec.condition
    short_s = seconds(asked.lookback_window) // SHORT_SHARE
    if asked.alert_after not in (None, "0m", "0s") and not _lasts(asked.alert_after, short_s):
        yield (
            ("spec", "condition", "alertAfter"),
            f"value {asked.alert_after!r}: not supported; expected 0m or {short_s}s, a twelfth of lookbackWindow",
        )


def _lasts(text: str | None, wanted_s: int) -> bool:
    try:
        return text is not None and seconds(duration(text)) == wanted_s
    except ValueError:
        return False
