"""What /metrics says about the agent's config, by the names Prometheus has for its own."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from agents.reload import ReloadFigures, Result


def reload_families(figures: ReloadFigures) -> Iterator[Metric]:
    """The config that is in effect, and how reloads went."""
    info = GaugeMetricFamily("fleetbeat_agent_config_info", "Always 1; which config is in effect.", labels=["version"])
    info.add_metric([figures.version], 1)
    yield info
    yield GaugeMetricFamily(
        "fleetbeat_agent_config_last_reload_successful",
        "0 when the file was refused, and the config of before is in effect.",
        value=figures.successful,
    )
    yield GaugeMetricFamily(
        "fleetbeat_agent_config_last_reload_success_timestamp_seconds",
        "When the file was last found good.",
        value=figures.success_s,
    )
    yield GaugeMetricFamily(
        "fleetbeat_agent_config_fields_waiting_for_restart",
        "Fields of the file that keep their old values until the agent is started again.",
        value=len(figures.restart),
    )
    reloads = CounterMetricFamily(
        "fleetbeat_agent_config_reloads", "Looks at the file by what came of them.", labels=["result"]
    )
    for result in Result:
        reloads.add_metric([result], figures.counts[result])
    yield reloads
