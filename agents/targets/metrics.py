"""What /metrics says about targets: numbers of them, never their addresses."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from agents.config import ProbeSpec
from agents.probes.base import Outcome, Up
from agents.targets.discovery import DiscoveryFigures

_PROBE = ("probe",)


def target_families(
    figures: Mapping[str, DiscoveryFigures], specs: Sequence[ProbeSpec], latest: Mapping[str, Outcome]
) -> Iterator[Metric]:
    """By the name of the probe; nothing when no probe has targets."""
    if not figures:
        return
    down = dict.fromkeys(figures, 0)
    for spec in specs:
        if spec.target is not None and spec.key in latest and not isinstance(latest[spec.key], Up):
            down[spec.name] = down.get(spec.name, 0) + 1
    targets = GaugeMetricFamily("fleetbeat_agent_targets", "Targets that are probed.", labels=_PROBE)
    failing = GaugeMetricFamily(
        "fleetbeat_agent_targets_failing", "Targets whose latest run was not up.", labels=_PROBE
    )
    refused = GaugeMetricFamily(
        "fleetbeat_agent_targets_refused", "Targets that were found last and cannot be used.", labels=_PROBE
    )
    refreshes = CounterMetricFamily(
        "fleetbeat_agent_target_refreshes", "How often targets were looked for.", labels=_PROBE
    )
    failures = CounterMetricFamily(
        "fleetbeat_agent_target_failures", "Looks that found nothing usable: targets stayed as before.", labels=_PROBE
    )
    for name, one in figures.items():
        targets.add_metric([name], one.targets)
        failing.add_metric([name], down[name])
        refused.add_metric([name], one.refused)
        refreshes.add_metric([name], one.refreshes)
        failures.add_metric([name], one.failures)
    yield from (targets, failing, refused, refreshes, failures)
