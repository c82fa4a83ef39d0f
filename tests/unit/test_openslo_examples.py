"""The example files that OpenSLO has in its repositories: each is loaded, or refused by field and reason.

`openslo/` has files of the same shapes in words of our own, each named after its model: those of OpenSLO/OpenSLO of
September 2025 and of OpenSLO/go-sdk of May 2026.
"""

import re
from pathlib import Path

import pytest

from schemas.documents import DocumentError
from streams.config import load_objectives
from streams.core.calendars import Calendar
from streams.core.objectives import TimeSlices

EXAMPLES = Path(__file__).with_name("openslo")
METRIC = "spec.indicator.spec.ratioMetric"
NOT_OURS = "not supported; expected fleetbeat"
FOR_GAUGES = "is for thresholdMetric, which is not supported; expected latency_us_le under good"
NO_GAUGES = "not supported, as events are counted; expected ratioMetric, with latency_us_le"
NO_RATIOS = "events are counted, not ratios; expected total, and good or bad"
KINDS = "not supported yet; expected SLO, SLI, Service, AlertPolicy or AlertCondition"


def of_another_system(metric: str, part: str, own: str = "query") -> dict[str, str]:
    """What is said of a metric source that is not ours."""
    source = f"{metric}.{part}.metricSource"
    return {
        f"{source}.type": NOT_OURS,
        f"{source}.spec.source": "missing; expected a value",
        f"{source}.spec.{own}": "unknown key (value 'Any')",
    }


ANOTHERS = of_another_system(METRIC, "good") | of_another_system(METRIC, "total")
# By file: what is refused, by field, and the end of the sentence.
REFUSED: dict[str, dict[str, str]] = {
    "occurences-slo": {
        "spec.indicator.spec.thresholdMetric": NO_GAUGES,
        "spec.indicator.spec.ratioMetric": "missing; expected a value",
        "spec.objectives.0.op": FOR_GAUGES,
        "spec.objectives.0.value": FOR_GAUGES,
    },
    "ratio-timeslices": ANOTHERS
    | {
        "spec.budgetingMethod": "not supported; expected Occurrences or Timeslices",
        "spec.objectives.0.op": FOR_GAUGES,
    },
    "timeslices-slo": ANOTHERS
    | {
        "spec.timeWindow.0.duration": "shorter than a day; expected d, w or M, as in 1M for a month",
        "spec.objectives.0.op": FOR_GAUGES,
    },
    "low-traffic-slo": ANOTHERS | {"spec.objectives.0.op": FOR_GAUGES},
    "slos": ANOTHERS | {"spec.objectives.0.op": FOR_GAUGES},
    "slis": of_another_system("spec.ratioMetric", "good")
    | of_another_system("spec.ratioMetric", "total")
    | of_another_system("spec.ratioMetric", "bad", "path")
    | of_another_system("spec.ratioMetric", "total", "path")
    | {
        f"spec.ratioMetric.{part}.metricSource.metricSourceRef": "not supported yet; expected type: fleetbeat"
        for part in ("good", "bad", "total")
    }
    | {
        "spec.ratioMetric.counter": "not supported yet; expected true: events are counted, no gauge is read",
        "spec.ratioMetric.raw": NO_RATIOS,
        "spec.ratioMetric.rawType": NO_RATIOS,
        "spec.ratioMetric.total": "missing; expected a value",
        "spec.thresholdMetric": NO_GAUGES,
        "spec.ratioMetric": "missing; expected a value",
    },
    "alert_conditions": {
        "spec.condition.op": "not supported; expected gt",
        "spec.severity": "expected 'page' or 'ticket'",
    },
    "alert_policies": {"spec.notificationTargets": "not supported yet; expected none"},
    "alert_notification_targets": {"kind": KINDS},
    "data_sources": {"kind": KINDS},
    "services": {"metadata.name": "the Service in line 4 has that name; expected one of its own"},
}


def problems(path: Path) -> dict[str, str]:
    """By field what was said of it last; each sentence's place is looked at."""
    with pytest.raises(DocumentError) as caught:
        load_objectives(path)
    lines, said = path.read_text(encoding="utf-8").splitlines(), {}
    for problem in caught.value.problems:
        found = re.fullmatch(r".*\.yaml:(\d+):\d+: ([\w.]+): (.*)", problem, re.DOTALL)
        assert found, problem
        line, field, sentence = int(found[1]), found[2], found[3]
        key = field.rpartition(".")[2]
        parent = field.split(".")[-2:][0]
        assert f"{parent if sentence.startswith('missing') else key}:" in lines[line - 1], problem
        said[field] = sentence
    return said


def test_every_example_is_looked_at() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_an_example_is_refused_by_field_and_reason(name: str) -> None:
    said = problems(EXAMPLES / f"{name}.yaml")
    assert set(said) == set(REFUSED[name])
    for field, reason in REFUSED[name].items():
        assert said[field].endswith(reason), field


OURS = "type: fleetbeat\n{indent}spec: {{source: probe-results, where: {{service: line}}}}\n"


def ours(name: str) -> str:
    """The example with our metric source, and without the comparison that OpenSLO allows beside a threshold only."""
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"type: Any\n( *)spec:\n *query: Any\n", lambda found: OURS.format(indent=found[1]), text)
    return re.sub(r" +op: gt\n", "", text)


CONTRACT = ["line-is-up.for-ourselves", "line-is-up.contract"]
NEW_YORK = ("2022-01-01 12:00:00", "America/New_York", 1)


@pytest.mark.parametrize(
    ("name", "old", "new", "ids", "slices", "unit"),
    [
        ("timeslices-slo", "1m\n      isR", "1M\n      isR", CONTRACT, TimeSlices(60, 0.99), "M"),
        ("low-traffic-slo", "", "", ["help-line"], TimeSlices(60, 0.95), "w"),
        ("slos", "", "", ["pages-answer"], TimeSlices(60, 0.95), "w"),
        ("ratio-timeslices", "RatioTimeslices", "Occurrences", ["front-page"], None, ""),
    ],
)  # fmt: skip
def test_with_our_metric_source_it_is_loaded(
    tmp_path: Path, name: str, old: str, new: str, ids: list[str], slices: TimeSlices | None, unit: str
) -> None:
    text = ours(name).replace(old, new)
    if slices is None:
        text = text.replace("      timeSliceWindow: 1m\n", "")
    path = tmp_path / "slos.yaml"
    path.write_text(text, encoding="utf-8")
    found = load_objectives(path)
    assert [objective.id for objective in found] == ids
    assert {objective.time_slices for objective in found} == {slices}
    assert {objective.calendar for objective in found} == {Calendar(*NEW_YORK, unit) if unit else None}
