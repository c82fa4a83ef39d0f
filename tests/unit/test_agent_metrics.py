"""Labels and series that a page of metrics may have, what its histograms count, and that the paper names them all."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from agents.config import ProbeSpec, load_agent
from agents.health.window import Health, Part
from agents.node import Node
from agents.probe_series import ProbeSeries
from agents.probes.base import Down, Failure, Outcome, Phases, Up
from agents.publish import Outbox
from agents.reload import ReloadFigures
from agents.run import DURATIONS_S, Prober
from agents.scrape.pipeline import Scraper
from agents.scrape.settings import ScrapeFile
from agents.spread import Spread
from agents.telemetry import Sources, Telemetry
from schemas.documents import DocumentError
from schemas.records import Label
from tests.programs import need, run_with_input
from tests.unit.agent_fakes import Answering, ListPublisher, ManualClock, spec

PAPER = Path(__file__).parents[2] / "docs" / "how-to" / "agent-metrics.md"
WELL = Up(1_500_000, Phases(resolve_us=1_000, first_byte_us=2_000), 200, cert_expires_ms=1_800_000_000_000)
WRONG = Down("status", "x", 1_000, failure=Failure.VALIDATION)
NODE = Node("n", "eu-1", "eu-1a", (), "boot", 0, 10_000, "0.1.0")
SICK = Health(Part(100, "snmp"), Part(50, "psi"), None)


async def unheard(_: ProbeSpec, __: Outcome) -> None:
    """Nobody listens."""


def page(specs: list[ProbeSpec], series: ProbeSeries | None = None, health: Callable[[], Health] = Health) -> str:
    """What the agent shows after each probe has run once."""

    async def case() -> str:
        prober = Prober(specs, 2, 10_000, unheard, ManualClock())
        await prober.run_once()
        return Telemetry(Sources(prober, ListPublisher(), "0.1.0", health, series or ProbeSeries())).page().decode()

    return asyncio.run(case())


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def http(name: str, outcome: Outcome, *labels: Label) -> ProbeSpec:
    return replace(spec(name, Answering(outcome)), kind="http", labels=labels)


def whole() -> str:
    """A page with all that an agent may show: probes up and down, an exporter, a config that was read again."""

    async def case() -> str:
        publisher, clock = ListPublisher(), ManualClock()
        exporter = ScrapeFile(name="one", service="shop", targets=["http://127.0.0.1:1/metrics"])
        scraper = Scraper([exporter], NODE, Outbox(publisher), clock)
        await scraper.run_once()
        specs = [http("well", WELL), http("ill", Down("refused", "x", 1_000)), http("wrong", WRONG)]
        prober = Prober(specs, 2, 10, unheard, clock)
        await prober.run_once()
        figures = ReloadFigures("abc", 1_800_000_000.0)
        sources = Sources(prober, publisher, "0.1.0", lambda: SICK, scraper=scraper, config=figures)
        return Telemetry(sources).page().decode()

    return asyncio.run(case())


def test_only_listed_labels_of_probes_are_shown() -> None:
    specs = [
        http("a", WELL, Label("team", "shop"), Label("tier", "1"), Label("owner", "eve")),
        http("b", WELL, Label("team", "cart")),
    ]
    shown = families(page(specs, ProbeSeries(("team", "tier"))))["probe_success"].samples
    assert [sample.labels for sample in shown] == [
        {"probe": "a", "kind": "http", "service": "shop", "team": "shop", "tier": "1"},
        {"probe": "b", "kind": "http", "service": "shop", "team": "cart", "tier": ""},
    ]
    assert "owner" not in page(specs, ProbeSeries(("team",)))
    assert "team" not in page(specs)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            "[node]",
            "metrics.labels.0: value 'node': has no end of values, and each would be a series; expected a label",
        ),
        ("[team, URL]", "metrics.labels.1: value 'URL': has no end of values, and each would be a series"),
        ("[instance]", "'instance': has no end of values"),
        ("[target]", "'target': has no end of values"),
        ("[request_id]", "'request_id': has no end of values"),
        ("[probe]", "'probe': is a label already; expected none of job, kind, le, part, phase, probe, "),
        ("[le]", "'le': is a label already"),
        (
            "[a-b]",
            "'a-b': expected a name for Prometheus: a letter or _, then letters, digits and _, and no __ in front",
        ),
        ("[__name__]", "'__name__': expected a name for Prometheus"),
        ("[team, team]", "metrics.labels: value ['team', 'team']: team more than once; expected each label once"),
        ("[a, b, c, d, e, f, g, h, i]", "metrics.labels: value ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i']: "),
    ],
)
def test_a_label_without_end_is_refused_where_the_file_says_it(tmp_path: Path, labels: str, said: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f"metrics: {{labels: {labels}}}\n", encoding="utf-8")
    with pytest.raises(DocumentError) as caught:
        load_agent(path)
    assert said in str(caught.value)
    assert f"{path}:1:" in str(caught.value)


def test_a_file_may_list_labels_and_bound_the_series(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("metrics: {labels: [team, tier], max_probes: 7}\n", encoding="utf-8")
    metrics = load_agent(path).metrics
    assert (metrics.labels, metrics.max_probes) == (("team", "tier"), 7)


def test_probes_beyond_the_bound_share_one_series_a_kind_that_says_the_worst_and_are_counted() -> None:
    slow = Up(9_000_000, Phases(resolve_us=5_000), 200, cert_expires_ms=1_700_000_000_000)
    specs = [
        http("shown", WELL, Label("team", "shop")),
        http("folded-1", WELL, Label("team", "shop")),
        http("folded-2", slow),
        spec("folded-3", Answering(Down("refused", "x", 250_000))),
        spec("folded-4", Answering()),
    ]
    text = page(specs, ProbeSeries(("team",), max_probes=1))
    found = {
        (family.name, sample.labels["probe"], sample.labels["kind"], sample.labels.get("phase")): sample.value
        for family in families(text).values()
        for sample in family.samples
        if "probe" in sample.labels
    }
    assert "folded" not in text
    assert found["probe_success", "shown", "http", None] == 1
    assert found["probe_success", "overflow", "http", None] == 1
    assert found["probe_success", "overflow", "fake", None] == 0
    assert found["probe_duration_seconds", "overflow", "http", None] == 9
    assert found["probe_http_duration_seconds", "overflow", "http", "resolve"] == 0.005
    assert found["probe_http_duration_seconds", "overflow", "http", "processing"] == 0.002
    assert found["probe_ssl_earliest_cert_expiry", "overflow", "http", None] == 1_700_000_000
    assert ("probe_http_status_code", "overflow", "http", None) not in found
    counted = families(text)["fleetbeat_agent_overflow_probes"].samples
    assert {sample.labels["kind"]: sample.value for sample in counted} == {"http": 2, "fake": 2}


def test_ten_thousand_probes_make_no_more_series_than_the_bound() -> None:
    specs = [http(f"probe-{number}", WELL) for number in range(10_000)]
    shown = families(page(specs, ProbeSeries(max_probes=20)))
    assert len(shown["probe_success"].samples) == 21
    assert [sample.value for sample in shown["fleetbeat_agent_overflow_probes"].samples] == [9_980]
    # A probe may even be called like the overflow: that one has no service, which no probe can lack.
    twins = families(page([replace(http("overflow", WELL)), http("b", WELL)], ProbeSeries(max_probes=1)))
    labels = [tuple(sample.labels.values()) for sample in twins["probe_success"].samples]
    assert len(set(labels)) == len(labels) == 2


def test_how_long_runs_took_is_counted_by_kind_and_no_further() -> None:
    histogram = families(page([http("a", WELL), http("b", Down("refused", "x", 2_500_000)), spec("c", Answering())]))[
        "fleetbeat_agent_probe_run_seconds"
    ]
    series = {(sample.name.rpartition("_")[2], *sample.labels.values()): sample.value for sample in histogram.samples}
    assert series["count", "http"] == 2
    assert series["sum", "http"] == 4
    assert [series["bucket", "http", bound] for bound in ("1.0", "2.5", "+Inf")] == [0, 2, 2]
    assert series["bucket", "fake", "0.001"] == 1
    assert {labels[0] for _, *labels in series} == {"http", "fake"}


def test_a_spread_counts_a_bound_with_what_is_as_long_as_itself() -> None:
    spread = Spread(DURATIONS_S)
    for seconds in (0.0, *DURATIONS_S, 60.0):
        spread.add(seconds)
    assert spread.counts == [2, *[1] * (len(DURATIONS_S) - 1), 1]
    assert spread.sum_s == pytest.approx(sum(DURATIONS_S) + 60)


def test_health_is_shown_with_its_parts_and_where_they_were_read() -> None:
    shown = families(whole())
    assert [sample.value for sample in shown["fleetbeat_agent_health"].samples] == [79]
    parts = {tuple(sample.labels.values()): sample.value for sample in shown["fleetbeat_agent_health_part"].samples}
    assert parts == {("tcp", "snmp"): 100, ("memory", "psi"): 50}
    assert families(page([]))["fleetbeat_agent_health"].samples == [], "not known is not 0"


def test_promtool_finds_nothing_to_say_about_a_whole_page() -> None:
    need("promtool")
    done = run_with_input(whole(), "promtool", "check", "metrics")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # It would: a counter that is not called one.
    done = run_with_input("# TYPE runs counter\nruns 1\n", "promtool", "check", "metrics")
    assert done.returncode != 0


def test_no_label_of_ours_has_values_without_end() -> None:
    labels = Counter(key for family in families(whole()).values() for sample in family.samples for key in sample.labels)
    bounded = {
        "kind",
        "outcome",
        "reason",
        "topic",
        "phase",
        "part",
        "source",
        "version",
        "le",
        "stage",
        "result",
        "validator",
        "failure",
    }
    assert set(labels) == bounded | {"probe", "service"}, "expected probe and service alone to come from the config"


def test_the_paper_lists_every_metric_that_is_shown_and_no_other() -> None:
    paper = dict(re.findall(r"^\| `([a-z_]+)(\{[a-z, ]+\})?` \|", PAPER.read_text(encoding="utf-8"), re.MULTILINE))
    shown = {
        (f"{name}_total" if family.type == "counter" else name): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for name, family in families(whole()).items()
        if not name.startswith("process_")
    }
    assert set(paper) == set(shown)
    labels = {name: set(re.findall(r"[a-z]+", text)) for name, text in paper.items()}
    assert {name: found for name, found in labels.items() if shown[name] - found} == {}
