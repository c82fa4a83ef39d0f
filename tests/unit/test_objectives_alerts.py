"""Alert policies of the objectives file: burn-rate rules, and those that could never fire."""

from pathlib import Path

import pytest

from streams.core.burn import BurnRule
from tests.unit.objectives_text import load, problems, slos

__all__ = ["slos"]

AT = "8:19: spec.alertPolicies.0"
SLO = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout-latency
  displayName: Checkout answers quickly
spec:
  service: checkout
  budgetingMethod: Occurrences
  timeWindow: [{duration: 30d, isRolling: true}]
  objectives: [{target: 0.999}]
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: fleetbeat, spec: {source: probe-results}}}
        total: {metricSource: {type: fleetbeat, spec: {source: probe-results}}}
"""
POLICY = """\
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: fast-burn}
spec:
  alertWhenBreaching: true
  conditions:
    - conditionRef: burns-fast
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: burns-fast}
spec:
  severity: page
  condition:
    kind: burnrate
    threshold: 10
    lookbackWindow: 2h
    alertAfter: 10m
"""
REFERRING = SLO.replace(
    "  service: checkout\n", "  service: checkout\n  alertPolicies: [{alertPolicyRef: fast-burn}]\n", 1
)


def test_an_slo_without_policies_has_the_recommended_rules(slos: Path) -> None:
    (objective,) = load(slos, SLO)
    assert [rule.factor for rule in objective.rules] == pytest.approx([14.4, 6, 3, 1])


def test_no_policies_at_all_are_no_rules(slos: Path) -> None:
    (objective,) = load(slos, SLO.replace("  service: checkout\n", "  service: checkout\n  alertPolicies: []\n", 1))
    assert objective.rules == ()


def test_a_policy_becomes_a_rule_with_a_twelfth_of_its_window_as_the_short_one(slos: Path) -> None:
    (objective,) = load(slos, REFERRING + POLICY)
    assert objective.rules == (BurnRule("burns-fast", "page", 10.0, 7_200, 600),)


def test_policy_and_condition_may_stand_inside_the_slo(slos: Path) -> None:
    condition = (
        "{kind: AlertCondition, metadata: {name: c}, spec: {severity: ticket, condition: "
        "{kind: burnrate, threshold: 2.5, lookbackWindow: 1d}}}"
    )
    policy = f"{{kind: AlertPolicy, metadata: {{name: p}}, spec: {{conditions: [{condition}]}}}}"
    text = SLO.replace("  service: checkout\n", f"  service: checkout\n  alertPolicies: [{policy}]\n", 1)
    assert load(slos, text)[0].rules == (BurnRule("c", "ticket", 2.5, 86_400, 7_200),)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "threshold: 10\n",
            "threshold: 1000\n",
            (
                f"{AT}: AlertPolicy 'fast-burn': threshold 1000 is never exceeded: with target "
                "0.999 the budget burns 1000 times as fast as it lasts when every event is bad; expected less"
            ),
        ),
        (
            "conditionRef: burns-fast",
            "conditionRef: burns",
            (f"{AT}: AlertPolicy 'fast-burn': no AlertCondition 'burns'; expected one of ['burns-fast']"),
        ),
        (
            "alertAfter: 10m",
            "alertAfter: 5m",
            (
                "35:5: spec.condition.alertAfter: value '5m': not supported; expected 0m or 600s, a twelfth "
                "of lookbackWindow"
            ),
        ),
        (
            "lookbackWindow: 2h",
            "lookbackWindow: 1m",
            "34:5: spec.condition.lookbackWindow: value '1m': expected 2m or more, of which a twelfth is whole seconds",
        ),
        ("severity: page", "severity: sev1", "30:3: spec.severity: value 'sev1': expected 'page' or 'ticket'"),
        (
            "alertWhenBreaching: true",
            "alertWhenNoData: true",
            "22:3: spec.alertWhenNoData: value True: not supported yet; expected false",
        ),
        ("- conditionRef: burns-fast", "- conditionReff: x", "24:7: spec.conditions.0.kind: missing; expected a value"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(slos: Path, old: str, new: str, problem: str) -> None:
    assert old in POLICY
    assert problems(slos, REFERRING + POLICY.replace(old, new))[0] == f"slos.yaml:{problem}"


def test_a_window_longer_than_the_slo_is_refused(slos: Path) -> None:
    (problem,) = problems(slos, REFERRING.replace("30d", "1h") + POLICY)
    assert problem.endswith("lookbackWindow of 7200 s; expected at most the SLO's window, 3600 s")
