"""The series of single probes on /metrics, by blackbox_exporter's names; a bounded number of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from agents.config import ProbeSpec
from agents.metric_labels import MAX_PROBES, WHICH
from agents.probes.base import Outcome, Up

# blackbox_exporter's words for phases.
_PHASES = {"first_byte_us": "processing"}
OVERFLOW = "overflow"


@dataclass(slots=True)
class _Shown:
    """What one set of series says; for several probes the worst of it."""

    kind: str
    which: tuple[str, ...]
    success: bool = True
    latency_us: int = 0
    status_code: int | None = None
    expires_ms: int | None = None
    phases_us: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.success &= isinstance(outcome, Up)
        self.latency_us = max(self.latency_us, outcome.latency_us)
        self.status_code = outcome.status_code
        expires: Any = getattr(outcome, "cert_expires_ms", None)  # a Timeout has none
        if isinstance(expires, int):
            self.expires_ms = expires if self.expires_ms is None else min(self.expires_ms, expires)
        for phase in fields(outcome.phases):
            spent_us = getattr(outcome.phases, phase.name)
            if spent_us is not None:
                self.phases_us[phase.name] = max(self.phases_us.get(phase.name, 0), spent_us)


class ProbeSeries:
    """Series of the first `max_probes` probes, labelled by what is in WHICH and by the listed labels of the config.

    The others share one set of series for each kind, called `overflow` and of no service, and are counted.
    """

    def __init__(self, labels: Sequence[str] = (), max_probes: int = MAX_PROBES) -> None:
        self._labels = labels
        self._max_probes = max_probes

    def collect(self, specs: Sequence[ProbeSpec], latest: Mapping[str, Outcome]) -> Iterable[Metric]:
        """All families; a probe that has not run yet is in none."""
        overflow: dict[str, _Shown] = {}
        beyond: dict[str, int] = {}
        shown: list[_Shown] = []
        for place, spec in enumerate(specs):
            if place >= self._max_probes:
                beyond[spec.kind] = beyond.get(spec.kind, 0) + 1
            outcome = latest.get(spec.name)
            if outcome is None:
                continue
            if place < self._max_probes:
                one = _Shown(spec.kind, self._which(spec))
                shown.append(one)
            else:
                nobody = (OVERFLOW, spec.kind, "", *("" for _ in self._labels))
                one = overflow.setdefault(spec.kind, _Shown(spec.kind, nobody))
            one.add(outcome)
        yield from self._families([*shown, *overflow.values()])
        counted = GaugeMetricFamily(
            "fleetbeat_agent_overflow_probes",
            "Probes beyond metrics.max_probes, which share the series overflow.",
            labels=["kind"],
        )
        for kind, count in beyond.items():
            counted.add_metric([kind], count)
        yield counted

    def _which(self, spec: ProbeSpec) -> tuple[str, ...]:
        values = {label.key: label.value for label in spec.labels}
        return (spec.name, spec.kind, spec.service, *(values.get(name, "") for name in self._labels))

    def _families(self, shown: Sequence[_Shown]) -> Iterable[Metric]:
        which = [*WHICH, *self._labels]
        success = GaugeMetricFamily("probe_success", "1 when the latest run was up, else 0.", labels=which)
        duration = GaugeMetricFamily("probe_duration_seconds", "Duration of the latest run.", labels=which)
        status = GaugeMetricFamily("probe_http_status_code", "Of the latest answer.", labels=which)
        expiry = GaugeMetricFamily(
            "probe_ssl_earliest_cert_expiry", "When the certificate seen last runs out, Unix time.", labels=which
        )
        phases: dict[str, GaugeMetricFamily] = {}
        for one in shown:
            success.add_metric(one.which, one.success)
            duration.add_metric(one.which, one.latency_us / 1e6)
            if one.kind == "http" and one.status_code is not None and one.which[0] != OVERFLOW:
                status.add_metric(one.which, one.status_code)
            if one.expires_ms is not None:
                expiry.add_metric(one.which, one.expires_ms / 1e3)
            for phase, spent_us in one.phases_us.items():
                # One family a kind, as blackbox_exporter has them: probe_http_duration_seconds{phase} and so on.
                name = f"probe_{re.sub(r'[^a-zA-Z0-9_]', '_', one.kind)}_duration_seconds"
                family = phases.setdefault(
                    name, GaugeMetricFamily(name, "Of the latest run, by phase.", labels=[*which, "phase"])
                )
                family.add_metric([*one.which, _PHASES.get(phase, phase.removesuffix("_us"))], spent_us / 1e6)
        yield from (success, duration, status, expiry, *phases.values())
