"""Objectives in the shapes that people write: several in an SLO, time slices, calendars, indicators elsewhere."""

import re
from pathlib import Path

import pytest

from streams.core.burn import recommended_rules
from streams.core.calendars import Calendar
from streams.core.objectives import Selector, TimeSlices
from tests.unit.objectives_text import load, problems, slos

__all__ = ["slos"]

SLO = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: shop, displayName: The shop}
spec:
  service: shop
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  objectives:
    - target: 0.99
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: fleetbeat, spec: {source: probe-results, where: {service: shop}, latency_us_le: 5}}}
        total: {metricSource: {type: fleetbeat, spec: {source: probe-results, where: {service: shop}}}}
"""
INDICATOR = SLO[SLO.index("  indicator:") :]
GOOD = INDICATOR.splitlines(keepends=True)[3]
CALENDAR = "[{duration: 1w, isRolling: false, calendar: {startTime: 2022-01-01 12:00:00, timeZone: America/New_York}}]"
ROLLING = "[{duration: 28d, isRolling: true}]"
SLICED = SLO.replace("Occurrences", "Timeslices").replace(
    "- target: 0.99\n", "- {target: 0.99, timeSliceTarget: 0.95, timeSliceWindow: 5m}\n"
)


def with_objectives(*lines: str) -> str:
    return SLO.replace("    - target: 0.99\n", "".join(f"    - {line}\n" for line in lines))


# Several objectives ---------------------------------------------------------------------------------------------------


def test_each_of_several_objectives_is_one_of_its_own_by_its_display_name_or_place(slos: Path) -> None:
    text = with_objectives(
        "{displayName: Internal objective, target: 0.995}",
        "{target: 0.5}",
        "{displayName: SLA (Verträge!), targetPercent: 99}",
        "{displayName: 速い, target: 0.9}",
    )
    found = load(slos, text)
    assert [(o.id, o.display_name, o.target) for o in found] == [
        ("shop.internal-objective", "The shop: Internal objective", 0.995),
        ("shop.2", "The shop: 2", 0.5),
        ("shop.sla-vertrage", "The shop: SLA (Verträge!)", 0.99),
        ("shop.4", "The shop: 速い", 0.9),
    ]
    assert {o.selector for o in found} == {Selector("shop")}
    assert {o.version for o in found} == {load(slos, SLO)[0].version}
    assert [len(o.rules) for o in found] == [4, 1, 4, 3]


def test_one_objective_goes_by_the_name_of_its_slo(slos: Path) -> None:
    (objective,) = load(slos, with_objectives("{displayName: Good, target: 0.99}"))
    assert (objective.id, objective.display_name) == ("shop", "The shop")


def test_two_objectives_that_would_be_called_alike_are_refused(slos: Path) -> None:
    text = with_objectives("{displayName: Good, target: 0.9}", "{displayName: good!, target: 0.99}")
    sentence = "value 'good!': objective 'good' is there already; expected another"
    assert problems(slos, text) == [f"slos.yaml:10:8: spec.objectives.1.displayName: {sentence}"]


def test_no_objective_is_none(slos: Path) -> None:
    (problem,) = problems(slos, SLO.replace("objectives:\n    - target: 0.99\n", "objectives: []\n"))
    assert problem == "slos.yaml:8:3: spec.objectives: value []: expected at least one item"


def test_each_objective_is_checked_at_its_place(slos: Path) -> None:
    found = problems(slos, with_objectives("{target: 0.9}", "{displayName: x}", "{target: 0.9, targetPercent: 90}"))
    assert found == [
        "slos.yaml:10:7: spec.objectives.1: neither of target and targetPercent; expected one of them",
        "slos.yaml:11:7: spec.objectives.2: both of target and targetPercent; expected one of them",
    ]


def test_a_policy_is_checked_for_every_objective(slos: Path) -> None:
    policy = (
        "  alertPolicies: [{kind: AlertPolicy, metadata: {name: p}, spec: {conditions: [{kind: AlertCondition, "
        "metadata: {name: c}, spec: {severity: page, condition: "
        "{kind: burnrate, op: gt, threshold: 20, lookbackWindow: 1h}}}]}}]\n"
    )
    text = with_objectives("{target: 0.999}", "{target: 0.9}") + policy
    (problem,) = problems(slos, text)
    assert "threshold 20 is never exceeded: with target 0.9 the budget burns 10 times" in problem
    assert [len(o.rules) for o in load(slos, text.replace("0.9}", "0.99}"))] == [1, 1]


# Time slices ----------------------------------------------------------------------------------------------------------


def test_time_slices_are_counted_by_the_minute_from_a_version_of_their_own_on(slos: Path) -> None:
    (objective,), (plain,) = load(slos, SLICED), load(slos, SLO)
    assert objective.time_slices == TimeSlices(300, 0.95)
    assert objective.rules == recommended_rules(28 * 86_400, 0.99)
    assert objective.version == f"{plain.version}-1m"
    for other in ("timeSliceTarget: 0.9", "timeSliceWindow: 10m"):
        field = other.partition(":")[0]
        old = next(part for part in ("timeSliceTarget: 0.95", "timeSliceWindow: 5m") if part.startswith(field))
        assert load(slos, SLICED.replace(old, other))[0].version == objective.version


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1m", 60), ("1", 60), ("5", 300), ("60s", 60), ("10m", 600), ("2h", 7_200), ("6h", 21_600), ("90m", 5_400)],
)
def test_lengths_of_time_slices(slos: Path, written: str, seconds: int) -> None:
    (objective,) = load(slos, SLICED.replace("timeSliceWindow: 5m", f"timeSliceWindow: {written}"))
    assert objective.time_slices is not None
    assert objective.time_slices.length_s == seconds


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("timeSliceWindow: 5m", "timeSliceWindow: 7m", "timeSliceWindow: value '7m': expected whole minutes"),
        ("timeSliceWindow: 5m", "timeSliceWindow: 30s", "timeSliceWindow: value '30s': expected whole minutes"),
        ("timeSliceWindow: 5m", "timeSliceWindow: 1d", "timeSliceWindow: value '1d': expected whole minutes"),
        ("timeSliceWindow: 5m", "timeSliceWindow: 0", "timeSliceWindow: value 0: expected whole minutes"),
        ("timeSliceWindow: 5m", "timeSliceWindow: soon", "timeSliceWindow: value 'soon': expected a whole number and"),
        ("timeSliceTarget: 0.95", "timeSliceTarget: 95", "timeSliceTarget: value 95: expected a number above 0"),
        ("timeSliceTarget: 0.95", "timeSliceTarget: 0", "timeSliceTarget: value 0: expected a number above 0"),
        ("28d", "3m", "timeSliceWindow: value 300 s: expected a whole part of the window, 180 s"),
        ("Timeslices", "Occurrences", "timeSliceTarget: value 0.95: expected it with budgetingMethod Timeslices only"),
    ],
)  # fmt: skip
def test_time_slices_that_cannot_be_counted_are_refused(slos: Path, old: str, new: str, problem: str) -> None:
    found = problems(slos, SLICED.replace(old, new))[0]
    assert found.startswith("slos.yaml:9:"), found
    assert f": spec.objectives.0.{problem}" in found


def test_a_share_of_all_may_be_wanted_of_a_slice(slos: Path) -> None:
    (objective,) = load(slos, SLICED.replace("timeSliceTarget: 0.95", "timeSliceTarget: 1.0"))
    assert objective.time_slices == TimeSlices(300, 1.0)


# Calendars ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "calendar", "window_s"),
    [
        ("1w", ("2022-01-01 12:00:00", "America/New_York", 1, "w"), 604_800),
        ("1d", ("2022-01-01 12:00:00", "America/New_York", 1, "d"), 86_400),
        ("31d", ("2022-01-01 12:00:00", "America/New_York", 31, "d"), 31 * 86_400),
        ("4w", ("2022-01-01 12:00:00", "America/New_York", 4, "w"), 28 * 86_400),
        ("1M", ("2022-01-01 12:00:00", "America/New_York", 1, "M"), 30 * 86_400),
    ],
)
def test_calendars(slos: Path, duration: str, calendar: tuple[str, str, int, str], window_s: int) -> None:
    (objective,) = load(slos, SLO.replace(ROLLING, CALENDAR.replace("1w", duration)))
    assert (objective.calendar, objective.window_s) == (Calendar(*calendar), window_s)
    assert objective.rules == recommended_rules(window_s, 0.99)
    (same,) = load(slos, SLO.replace(ROLLING, CALENDAR.replace("1w", duration).replace("isRolling: false, ", "")))
    (quoted,) = load(slos, SLO.replace(ROLLING, CALENDAR.replace("1w", duration).replace(*QUOTED)))
    assert same == quoted == objective


QUOTED = ("2022-01-01 12:00:00", "'2022-01-01 12:00:00'")


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("1w", "1Q", "duration", "value '1Q': longer than the 35 days that hours are kept"),
        ("1w", "1Y", "duration", "value '1Y': longer than the 35 days that hours are kept"),
        ("1w", "2M", "duration", "value '2M': longer than the 35 days that hours are kept"),
        ("1w", "5w", "duration", "value '5w': longer than the 35 days that hours are kept"),
        ("1w", "1m", "duration", "value '1m': shorter than a day; expected d, w or M, as in 1M for a month"),
        ("1w", "week", "duration", "value 'week': expected a whole number and d, w or M, as in 1M for a month"),
        ("isRolling: false", "isRolling: true", "isRolling", "value True: expected false beside a calendar"),
        ("12:00:00", "12:30:00", "calendar.startTime", "value '2022-01-01 12:30:00': in America/New"),
        ("America/New_York", "Asia/Kolkata", "calendar.startTime", "value '2022-01-01 12:00:00': in Asia/Kolkata no"),
        ("2022-01-01 12:00:00", "2022-01-01", "calendar.startTime", "value datetime.date(2022, 1, 1): "),
        ("2022-01-01 12:00:00", "2022-01-01T12:00:00Z", "calendar.startTime", "value "),
        ("2022-01-01 12:00:00", "noon", "calendar.startTime", "value 'noon': expected a date and a time"),
        ("America/New_York", "Mars/Olympus", "calendar.timeZone", "value 'Mars/Olympus': expected a time zone"),
        ("America/New_York", "../etc", "calendar.timeZone", "value '../etc': expected a time zone"),
        (", timeZone: America/New_York", "", "calendar.timeZone", "missing; expected a value"),
        (", calendar: {startTime: 2022-01-01 12:00:00, timeZone: America/New_York}", "", "isRolling", "value False: "),
    ],
)  # fmt: skip
def test_calendars_that_cannot_be_kept_are_refused(slos: Path, old: str, new: str, field: str, message: str) -> None:
    found = problems(slos, SLO.replace(ROLLING, CALENDAR.replace(old, new)))
    assert found[0].startswith("slos.yaml:7:")
    assert f": spec.timeWindow.0.{field}: {message}" in found[0]


# Indicators -----------------------------------------------------------------------------------------------------------


def test_an_indicator_may_stand_elsewhere(slos: Path) -> None:
    sli = "---\napiVersion: openslo/v1\nkind: SLI\nmetadata: {name: quick}\n" + INDICATOR.replace("  indicator:\n", "")
    sli = sli.replace("\n    spec:", "\nspec:")
    text = SLO.replace(INDICATOR, "  indicatorRef: quick\n") + sli
    assert load(slos, text) == load(slos, SLO)
    two = text.replace("name: shop,", "name: other,").partition("---")[0] + "---\n" + text
    assert [(o.id, o.latency_us_le) for o in load(slos, two)] == [("other", 5), ("shop", 5)]
    (problem,) = problems(slos, text.replace("indicatorRef: quick", "indicatorRef: slow"))
    assert problem == "slos.yaml:10:3: spec.indicatorRef: value 'slow': no SLI of that name; expected one of ['quick']"


def test_what_is_wrong_with_an_indicator_elsewhere_is_said_once_at_its_place(slos: Path) -> None:
    sli = "---\napiVersion: openslo/v1\nkind: SLI\nmetadata: {name: quick}\n" + INDICATOR.replace("  indicator:\n", "")
    sli = sli.replace("\n    spec:", "\nspec:").replace("{service: shop}, latency", "{service: cart}, latency")
    slo = SLO.replace(INDICATOR, "  indicatorRef: quick\n")
    (problem,) = problems(slos, slo + "---\n" + slo.replace("name: shop,", "name: other,") + sli)
    assert problem.startswith(
        "slos.yaml:28:78: spec.ratioMetric.good.metricSource.spec.where: value {'service': 'cart'}"
    )


def test_neither_indicator_nor_reference_is_refused(slos: Path) -> None:
    found = problems(slos, SLO.replace(INDICATOR, ""))
    assert found == ["slos.yaml:4:1: spec: neither of indicator and indicatorRef; expected one of them"]


def test_bad_events_are_the_others(slos: Path) -> None:
    bad = SLO.replace("good:", "bad:").replace("latency_us_le: 5", "latency_us_gt: 5")
    assert load(slos, bad) == load(slos, SLO)
    failed = SLO.replace(", latency_us_le: 5", "")
    assert load(slos, failed.replace("good:", "bad:")) == load(slos, failed)


BAD_ELSEWHERE = GOOD.replace("good:", "bad:").replace("shop}, latency_us_le", "x}, latency_us_gt")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (GOOD, GOOD + GOOD.replace("good:", "bad:").replace("us_le", "us_gt"), "both of good and bad; expected one of"),
        (GOOD, "", "neither of good and bad; expected one of them"),
        (GOOD, GOOD.replace("good:", "bad:"), "bad.metricSource.spec.latency_us_le: value 5: expected it under good"),
        (GOOD, GOOD.replace("us_le", "us_gt"), "good.metricSource.spec.latency_us_gt: unknown key (value 5)"),
        (GOOD, BAD_ELSEWHERE, "bad.metricSource.spec.where: value"),
    ],
)  # fmt: skip
def test_good_and_bad_that_do_not_fit_are_refused(slos: Path, old: str, new: str, problem: str) -> None:
    assert problem in problems(slos, SLO.replace(old, new))[0]


def test_documents_may_stand_in_a_list(slos: Path) -> None:
    indented = SLO.replace("\n", "\n  ").rstrip(" ")
    assert load(slos, f"- {indented}") == load(slos, SLO)
    found = problems(slos, f"- {indented}".replace("target: 0.99", "target: 99"))
    assert found == [
        "slos.yaml:9:9: spec.objectives.0.target: value 99: expected a number above 0 and below 1",
    ]


@pytest.mark.parametrize("field", ["indicator: {}", "indicatorRef: x", "compositeWeight: 2"])
def test_composites_are_refused_by_name(slos: Path, field: str) -> None:
    found = problems(slos, with_objectives(f"{{target: 0.9, {field}}}"))
    assert found[0].startswith(f"slos.yaml:9:21: spec.objectives.0.{field.partition(':')[0]}: value ")
    assert found[0].endswith("composite SLOs are not supported; expected the indicator under spec")


def test_the_documentation_shows_what_is_loaded(slos: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    whole, sli, several, slices, calendar, policy = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (shown,) = load(slos, whole)
    before, _, _ = whole.partition("  indicator:\n")
    assert load(slos, f"{before}  indicatorRef: pays-in-time\n---\n{sli}") == (shown,)
    objectives, window = r"  objectives:\n(    .*\n)+", r"  timeWindow:\n(    .*\n)+"
    named = [line.partition("# ")[2] for line in several.splitlines()[1:]]
    assert [each.id for each in load(slos, re.sub(objectives, several, whole))] == named
    without = re.sub(objectives, "", re.sub(r"  budgetingMethod: .*\n", "", whole))
    (sliced,) = load(slos, without.replace("spec:\n", f"spec:\n{slices}", 1))
    assert sliced.time_slices == TimeSlices(60, 0.95)
    (monthly,) = load(slos, re.sub(window, calendar, whole))
    assert monthly.calendar == Calendar("2026-01-01 00:00:00", "Europe/Berlin", 1, "M")
    (ruled,) = load(slos, f"{whole}  alertPolicies: [{{alertPolicyRef: fast-burn}}]\n---\n{policy}")
    assert [rule.factor for rule in ruled.rules] == [14.4]
