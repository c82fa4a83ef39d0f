"""infra/prometheus and infra/grafana: valid, about metrics that exist, asked for where the processes listen."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from agents.config import load_agent
from tests.contract.surroundings import INFRA, load, own_commands, services
from tests.programs import need, run, run_with_input

PROMETHEUS = INFRA / "prometheus"
GRAFANA = INFRA / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "fleetbeat.json").read_text(encoding="utf-8"))
ALERTS = load(PROMETHEUS / "fleetbeat_rules.yml")["groups"][0]["rules"]
RULE_TESTS = INFRA.parent / "tests" / "contract" / "fleetbeat_rules_test.yaml"
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


def in_code() -> set[str]:
    """Every metric that a source file names, as Prometheus may show it."""
    sources = [path for room in ("streams", "agents") for path in (INFRA.parent / room).rglob("*.py")]
    names = {name for path in sources for name in re.findall(r'"(fleetbeat_[a-z0-9_]+)"', path.read_text())}
    return {name + suffix for name in names for suffix in SUFFIXES}


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) for each alert and each query of a panel to Prometheus."""
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"] if "expr" in target)


def test_promtool_takes_the_config_and_the_rules() -> None:
    need("promtool")
    done = run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_are_silent_else() -> None:
    need("promtool")
    done = run("promtool", "test", "rules", RULE_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


# Every metric of a process, with a series of each, as it would be on its page.
WORKER = """
import streams.metrics as found
from prometheus_client import REGISTRY as registry
from streams.settings.reload import ReloadMetrics
ReloadMetrics("worker", registry)
"""
ARCHIVE = """
from streams.archive.metrics import ArchiveMetrics
from streams.archive.sql_metrics import SqlMetrics
found = ArchiveMetrics()
registry = found.registry
SqlMetrics(registry, float, float)
from streams.settings.reload import ReloadMetrics
ReloadMetrics("archive", registry)
"""
SHOW = """
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase
for metric in list(registry._collector_to_names):
    if isinstance(metric, MetricWrapperBase) and metric._labelnames:
        metric.labels(*("x" for _ in metric._labelnames))
print(generate_latest(registry).decode())
"""


@pytest.mark.parametrize(("process", "least"), [(WORKER, 25), (ARCHIVE, 10)], ids=["worker", "archive"])
def test_promtool_takes_the_metrics_of_worker_and_archive(process: str, least: int) -> None:
    need("promtool")
    page = run(sys.executable, "-c", process + SHOW, folder=INFRA.parent).stdout
    names = set(re.findall(r"^(fleetbeat_[a-z0-9_]+)", page, re.MULTILINE))
    assert len(names) >= least, names
    done = run_with_input(page, "promtool", "check", "metrics")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_alert_has_a_case_and_says_what_to_do() -> None:
    tried = {case["alertname"] for group in load(RULE_TESTS)["tests"] for case in group["alert_rule_test"]}
    assert {rule["alert"] for rule in ALERTS} == tried
    for rule in ALERTS:
        assert set(rule["annotations"]) == {"summary", "what_to_do"}
        assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_that_is_asked_for_exists(where: str, expression: str) -> None:
    names = set(re.findall(r"\b(?:fleetbeat|probe)_[a-z0-9_]+", expression)) or {"up"}
    assert names - in_code() - {"up"} == set(), where


def test_prometheus_asks_where_the_processes_listen() -> None:
    jobs = load(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    asked = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    commands = {name: " ".join(command) for name, command in own_commands().items()}
    listen = load_agent(INFRA / "container" / "agent.yaml").listen
    assert asked.pop("fleetbeat-agent") == [str(listen)]
    assert asked.pop("prometheus")[0] in str(services()["prometheus"]["command"])
    for job, (target,) in asked.items():
        assert target in commands[job.removeprefix("fleetbeat-")], job


def test_grafana_is_given_the_sources_that_its_panels_ask() -> None:
    provisioned = load(GRAFANA / "provisioning" / "datasources" / "fleetbeat.yaml")
    assert provisioned["apiVersion"] == 1
    sources = {(one["uid"], one["type"]) for one in provisioned["datasources"]}
    asked = {tuple(target["datasource"][key] for key in ("uid", "type")) for target in targets()}
    assert asked == sources
    plugins = services()["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]
    assert re.fullmatch(r"grafana-clickhouse-datasource@\d+\.\d+\.\d+", plugins)


def test_grafana_reads_with_the_user_that_cannot_write() -> None:
    (source,) = [
        one
        for one in load(GRAFANA / "provisioning" / "datasources" / "fleetbeat.yaml")["datasources"]
        if one["type"] == "grafana-clickhouse-datasource"
    ]
    user = source["jsonData"]["username"]
    settings = (INFRA / "container" / "clickhouse-reader.xml").read_text(encoding="utf-8")
    assert f"<users>\n        <{user}>" in settings
    assert "<readonly>2</readonly>" in settings
    assert re.findall(r"GRANT (\w+) ON (\S+?)<", settings) == [("SELECT", "telemetry.*")]
    variable = source["secureJsonData"]["password"].removeprefix("$")
    assert f'from_env="{variable}"' in settings
    assert all(variable in services()[name]["environment"] for name in ("grafana", "clickhouse"))


def test_dashboards_are_taken_from_the_folder_that_is_mounted() -> None:
    provisioned = load(GRAFANA / "provisioning" / "dashboards" / "fleetbeat.yaml")
    assert provisioned["apiVersion"] == 1
    (provider,) = provisioned["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in services()["grafana"]["volumes"]


def test_panels_have_ids_and_places_of_their_own() -> None:
    cells: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells.update((x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"]))  # fmt: skip
    assert max(cells.values()) == 1
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def targets() -> list[dict[str, Any]]:
    return [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
