"""The objectives file: OpenSLO v1 as far as it is supported; the rest is refused by name, with its place."""

from pathlib import Path

import pytest

from schemas.documents import DocumentError
from streams.config import load_objectives
from streams.core.burn import recommended_rules
from streams.core.objectives import Objective, Selector
from tests.unit.objectives_text import load, problems, slos

__all__ = ["slos"]

SLO = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: checkout-latency
  displayName: Checkout answers quickly
spec:
  service: checkout
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 30d
      isRolling: true
  objectives:
    - target: 0.999
  indicator:
    metadata:
      name: checkout-fast
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: fleetbeat
            spec:
              source: probe-results
              where: {service: checkout, endpoint: /pay}
              latency_us_le: 200000
        total:
          metricSource:
            type: fleetbeat
            spec:
              source: probe-results
              where: {service: checkout, endpoint: /pay}
"""
OBJECTIVE = Objective(
    id="checkout-latency",
    service="checkout",
    display_name="Checkout answers quickly",
    selector=Selector(service="checkout", endpoint="/pay"),
    latency_us_le=200_000,
    target=0.999,
    window_s=30 * 86_400,
    rules=recommended_rules(30 * 86_400, 0.999),
)
METRIC = "spec.indicator.spec.ratioMetric"


def test_an_slo_becomes_an_objective(slos: Path) -> None:
    assert load(slos, SLO) == (OBJECTIVE,)


def test_what_is_optional_may_be_left_out(slos: Path) -> None:
    text = SLO.replace("  displayName: Checkout answers quickly\n", "").replace("        counter: true\n", "")
    text = text.replace("    metadata:\n      name: checkout-fast\n", "")
    text = text.replace("              latency_us_le: 200000\n", "")
    text = text.replace("              where: {service: checkout, endpoint: /pay}\n", "")
    (objective,) = load(slos, text)
    assert objective.display_name == "checkout-latency"
    assert objective.latency_us_le is None
    assert objective.selector == Selector()


def test_what_openslo_has_for_people_may_be_there(slos: Path) -> None:
    text = SLO.replace(
        "  displayName: Checkout answers quickly\n",
        "  displayName: Checkout\n  labels: {team: [a, b], tier: one}\n  annotations: {openslo.com/key: value}\n",
    ).replace("  service: checkout\n", "  service: checkout\n  description: What we promise.\n", 1)
    assert load(slos, text)[0].display_name == "Checkout"


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("10s", 10), ("5m", 300), ("1h", 3_600), ("7d", 604_800), ("4w", 2_419_200), ("720h", 2_592_000)],
)
def test_windows_are_given_in_seconds_minutes_hours_days_or_weeks(slos: Path, duration: str, seconds: int) -> None:
    assert load(slos, SLO.replace("30d", duration))[0].window_s == seconds


@pytest.mark.parametrize(("percent", "target"), [("99.95", 0.9995), ("99.9", 0.999), ("99", 0.99), ("0.1", 0.001)])
def test_a_target_in_percent_is_the_same_number_as_a_share(slos: Path, percent: str, target: float) -> None:
    assert load(slos, SLO.replace("target: 0.999", f"targetPercent: {percent}"))[0].target == target


def test_a_file_may_hold_services_and_several_slos_and_keeps_their_order(slos: Path) -> None:
    service = "apiVersion: openslo/v1\nkind: Service\nmetadata: {name: checkout}\nspec: {description: Pays.}\n"
    other = SLO.replace("checkout-latency", "another")
    assert [objective.id for objective in load(slos, f"{SLO}---\n{service}---\n{other}")] == [
        "checkout-latency",
        "another",
    ]


def test_the_version_changes_with_what_is_counted_and_with_nothing_else(slos: Path) -> None:
    def version(old: str, new: str) -> str:
        return load(slos, SLO.replace(old, new))[0].version

    same = OBJECTIVE.version
    assert len(same) == 8
    assert version("0.999", "0.99") == version("30d", "7d") == version("quickly", "in time") == same
    assert version("200000", "200001") != same
    assert version("/pay", "/cart") != same


# Each case: what to replace in the good file, by what; then the place, the field and the message that come of it.
REFUSED = {
    "an unknown key": (
        "  service: checkout\n",
        "  service: checkout\n  servce: x\n",
        "8:3",
        "spec.servce",
        "unknown key (value 'x')",
    ),
    "a missing key": ("  service: checkout\n", "", "6:1", "spec.service", "missing; expected a value"),
    "a wrong type": (
        "latency_us_le: 200000",
        "latency_us_le: fast",
        "26:15",
        f"{METRIC}.good.metricSource.spec.latency_us_le",
        "value 'fast': expected a valid integer",
    ),
    "a threshold of nothing": (
        "latency_us_le: 200000",
        "latency_us_le: 0",
        "26:15",
        f"{METRIC}.good.metricSource.spec.latency_us_le",
        "value 0: expected greater than or equal to 1",
    ),
    "another version of OpenSLO": (
        "openslo/v1",
        "openslo/v2alpha",
        "1:1",
        "apiVersion",
        "value 'openslo/v2alpha': expected 'openslo/v1'",
    ),
    "a later kind": (
        "kind: SLO",
        "kind: DataSource",
        "2:1",
        "kind",
        "value 'DataSource': not supported yet; expected SLO, SLI, Service, AlertPolicy or AlertCondition",
    ),
    "an unknown kind": (
        "kind: SLO",
        "kind: Slo",
        "2:1",
        "kind",
        "value 'Slo': not supported; expected SLO, SLI, Service, AlertPolicy or AlertCondition",
    ),
    "no kind": ("kind: SLO\n", "", "1:1", "kind", "missing; expected SLO, SLI, Service, AlertPolicy or AlertCondition"),
    "a name with capitals": (
        "name: checkout-latency",
        "name: Checkout",
        "4:3",
        "metadata.name",
        ("value 'Checkout': expected a DNS label: 1 to 63 of a-z, 0-9 and -, the first and last not -"),
    ),
    "an average of ratios": (
        "Occurrences",
        "RatioTimeslices",
        "8:3",
        "spec.budgetingMethod",
        "value 'RatioTimeslices': not supported; expected Occurrences or Timeslices",
    ),
    "time slices without their length": (
        "Occurrences",
        "Timeslices",
        "13:7",
        "spec.objectives.0",
        "timeSliceTarget is missing; expected it with budgetingMethod Timeslices",
    ),
    "a length of time slices for events": (
        "target: 0.999",
        "target: 0.999\n      timeSliceWindow: 5",
        "14:7",
        "spec.objectives.0.timeSliceWindow",
        "value 300: expected it with budgetingMethod Timeslices only",
    ),
    "a window that does not roll": (
        "isRolling: true",
        "isRolling: false",
        "11:7",
        "spec.timeWindow.0.isRolling",
        "value False: expected true, or a calendar",
    ),
    "months": (
        "30d",
        "1M",
        "10:7",
        "spec.timeWindow.0.duration",
        "value '1M': months, quarters and years do not roll; expected s, m, h, d or w, as in 30d",
    ),
    "a window too short": ("30d", "9s", "10:7", "spec.timeWindow.0.duration", "value '9s': expected 10s to 30d"),
    "a window too long": ("30d", "5w", "10:7", "spec.timeWindow.0.duration", "value '5w': expected 10s to 30d"),
    "a window that is no duration": (
        "30d",
        "30 days",
        "10:7",
        "spec.timeWindow.0.duration",
        "value '30 days': expected a whole number and s, m, h, d or w, as in 30d",
    ),
    "two windows": (
        "    - duration: 30d\n      isRolling: true\n",
        "    - {duration: 30d, isRolling: true}\n    - {duration: 1d, isRolling: true}\n",
        "9:3",
        "spec.timeWindow",
        (
            "value [{'duration': '30d', 'isRolling': True}, {'duration': '1d', 'isRolling': "
            "True}]: 2 items; expected exactly one"
        ),
    ),
    "a percentage as a share": (
        "target: 0.999",
        "target: 99.9",
        "13:7",
        "spec.objectives.0.target",
        "value 99.9: expected a number above 0 and below 1",
    ),
    "both targets": (
        "target: 0.999",
        "target: 0.999\n      targetPercent: 99.9",
        "13:7",
        "spec.objectives.0",
        "both of target and targetPercent; expected one of them",
    ),
    "no target": (
        "target: 0.999",
        "displayName: x",
        "13:7",
        "spec.objectives.0",
        "neither of target and targetPercent; expected one of them",
    ),
    "a comparison": (
        "target: 0.999",
        "target: 0.999\n      op: lte",
        "14:7",
        "spec.objectives.0.op",
        "value 'lte': is for thresholdMetric, which is not supported; expected latency_us_le under good",
    ),
    "an alert policy that is only a name": (
        "  service: checkout\n",
        "  service: checkout\n  alertPolicies: [fast-burn]\n",
        "8:19",
        "spec.alertPolicies.0",
        "value 'fast-burn': expected a mapping",
    ),
    "an alert policy that is nowhere": (
        "  service: checkout\n",
        "  service: checkout\n  alertPolicies: [{alertPolicyRef: fast-burn}]\n",
        "8:19",
        "spec.alertPolicies.0",
        "value 'fast-burn': no AlertPolicy of that name; expected one of []",
    ),
    "an indicator here and elsewhere": (
        "  service: checkout\n",
        "  service: checkout\n  indicatorRef: x\n",
        "6:1",
        "spec",
        "both of indicator and indicatorRef; expected one of them",
    ),
    "a threshold metric": (
        "      ratioMetric:",
        "      thresholdMetric: {}\n      ratioMetric:",
        "18:7",
        "spec.indicator.spec.thresholdMetric",
        "value {}: not supported, as events are counted; expected ratioMetric, with latency_us_le",
    ),
    "a gauge": (
        "counter: true",
        "counter: false",
        "19:9",
        f"{METRIC}.counter",
        "value False: not supported yet; expected true: events are counted, no gauge is read",
    ),
    "a ratio": (
        "        counter: true",
        "        raw: {}",
        "19:9",
        f"{METRIC}.raw",
        "value {}: events are counted, not ratios; expected total, and good or bad",
    ),
    "an unknown source": (
        ("source: probe-results\n              where: {service: checkout, endpoint: /pay}\n              l"),
        ("source: logs\n              where: {service: checkout, endpoint: /pay}\n              l"),
        "24:15",
        f"{METRIC}.good.metricSource.spec.source",
        "value 'logs': expected 'probe-results' or 'request-counts'",
    ),
    "another system": (
        "        total:\n          metricSource:\n            type: fleetbeat",
        "        total:\n          metricSource:\n            type: Prometheus",
        "29:13",
        f"{METRIC}.total.metricSource.type",
        "value 'Prometheus': not supported; expected fleetbeat",
    ),
    "an unknown selector": (
        "{service: checkout, endpoint: /pay}",
        "{service: checkout, zone: a}",
        "25:42",
        f"{METRIC}.good.metricSource.spec.where.zone",
        "unknown key (value 'a')",
    ),
    "an empty selector": (
        "{service: checkout, endpoint: /pay}",
        "{service: ''}",
        "25:23",
        f"{METRIC}.good.metricSource.spec.where.service",
        "value '': expected 1 to 255 bytes",
    ),
    "good and total of different things": (
        "/pay}\n              latency",
        "/cart}\n              latency",
        "25:15",
        f"{METRIC}.good.metricSource.spec.where",
        (
            "value {'service': 'checkout', 'endpoint': '/cart'}: expected the same as under "
            "total, {'service': 'checkout', 'endpoint': '/pay'}"
        ),
    ),
}


@pytest.mark.parametrize(("old", "new", "place", "field", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(slos: Path, old: str, new: str, place: str, field: str, message: str) -> None:
    assert old in SLO
    assert problems(slos, SLO.replace(old, new))[0] == f"slos.yaml:{place}: {field}: {message}"


def test_a_threshold_under_total_is_refused(slos: Path) -> None:
    (problem,) = problems(slos, SLO + "              latency_us_le: 5\n")
    field = f"{METRIC}.total.metricSource.spec.latency_us_le"
    message = "expected it under good only: a threshold does not change what is counted"
    assert problem == f"slos.yaml:33:15: {field}: value 5: {message}"


def test_every_problem_of_every_document_comes_at_once(slos: Path) -> None:
    text = "---\n".join([SLO.replace("0.999", "2"), "kind: DataSource\n", SLO.replace("30d", "1Y")])
    places = [problem.split(": ")[0] for problem in problems(slos, text)]
    assert places == ["slos.yaml:13:7", "slos.yaml:34:1", "slos.yaml:45:7"]


def test_a_name_may_be_used_once(slos: Path) -> None:
    (problem,) = problems(slos, SLO + "---\n" + SLO)
    message = "value 'checkout-latency': the SLO in line 4 has that name; expected one of its own"
    assert problem == f"slos.yaml:37:3: metadata.name: {message}"


def test_a_service_may_be_called_like_an_slo(slos: Path) -> None:
    service = "---\napiVersion: openslo/v1\nkind: Service\nmetadata: {name: checkout-latency}\n"
    assert load(slos, SLO + service) == (OBJECTIVE,)


def test_a_file_without_slos_is_refused(slos: Path) -> None:
    assert problems(slos, "") == ["slos.yaml: no document of kind SLO; expected at least one"]
    assert problems(slos, "- 1\n") == [
        "slos.yaml:1:1: kind: missing; expected SLO, SLI, Service, AlertPolicy or AlertCondition"
    ]


def test_a_missing_file_is_refused_by_name(slos: Path) -> None:
    with pytest.raises(DocumentError, match=r"slos\.yaml: no such file; expected a YAML file$"):
        load_objectives(slos)


def test_the_documentation_shows_a_file_that_works_and_messages_that_come(slos: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    (objective,) = load(slos, example)
    assert (objective.id, objective.version) == ("checkout-latency", OBJECTIVE.version)
    shown = page.split("```\n")[-2].splitlines()
    assert problems(slos, SLO.replace("Occurrences", "RatioTimeslices").replace("0.999", "99.9")) == shown
