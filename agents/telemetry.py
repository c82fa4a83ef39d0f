"""The agent's metrics, read at the moment somebody asks: probes by blackbox_exporter's names, and the agent's own."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agents.probes.base import Outcome, Phases, Up
from agents.publish import Drop, Publisher
from agents.reload import ReloadFigures
from agents.reload_metrics import reload_families
from agents.run import DELAYS_S, Prober
from agents.schedule import Skip

# blackbox_exporter's words for phases.
_PHASES = {"first_byte_us": "processing"}
_WHICH = ("probe", "kind", "service")


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to look at."""

    prober: Prober
    publisher: Publisher
    version: str
    config: ReloadFigures | None = None


class Telemetry(Collector):
    """Renders a page of metrics, in any thread. No node id and no address is a label: there is no end to them."""

    def __init__(self, sources: Sources) -> None:
        self._prober = sources.prober
        self._publisher = sources.publisher
        self._version = sources.version
        self._config = sources.config
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        yield from self._latest()
        yield from self._runs()
        yield from self._records()
        info = GaugeMetricFamily("fleetbeat_agent_info", "Always 1; which agent this is.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        if self._config is not None:
            yield from reload_families(self._config)

    def _latest(self) -> Iterable[Metric]:
        success = GaugeMetricFamily("probe_success", "1 when the latest run was up, else 0.", labels=_WHICH)
        duration = GaugeMetricFamily("probe_duration_seconds", "Duration of the latest run.", labels=_WHICH)
        status = GaugeMetricFamily("probe_http_status_code", "Of the latest answer.", labels=_WHICH)
        expiry = GaugeMetricFamily(
            "probe_ssl_earliest_cert_expiry", "When the certificate seen last runs out, Unix time.", labels=_WHICH
        )
        phases: dict[str, GaugeMetricFamily] = {}
        for spec in self._prober.specs:
            outcome = self._prober.latest.get(spec.name)
            if outcome is None:
                continue
            which = [spec.name, spec.kind, spec.service]
            success.add_metric(which, isinstance(outcome, Up))
            duration.add_metric(which, outcome.latency_us / 1e6)
            _add_phases(phases, spec.kind, which, outcome.phases)
            if spec.kind == "http" and outcome.status_code is not None:
                status.add_metric(which, outcome.status_code)
            expires_ms = _expires_ms(outcome)
            if expires_ms is not None:
                expiry.add_metric(which, expires_ms / 1e3)
        yield from (success, duration, status, expiry, *phases.values())

    def _runs(self) -> Iterable[Metric]:
        runs = CounterMetricFamily(
            "fleetbeat_agent_probe_runs", "Runs by kind and outcome.", labels=["kind", "outcome"]
        )
        for (kind, outcome), count in self._prober.outcomes.copy().items():
            runs.add_metric([kind, outcome], count)
        skipped = CounterMetricFamily(
            "fleetbeat_agent_probe_skipped", "Runs that were due and did not take place.", labels=["reason"]
        )
        for reason in Skip:
            skipped.add_metric([reason], self._prober.skipped[reason])
        yield from (runs, skipped, self._delays())
        lineup = self._prober.lineup
        yield GaugeMetricFamily("fleetbeat_agent_queue_depth", "Probes that wait for a worker.", value=lineup.waiting)
        yield GaugeMetricFamily("fleetbeat_agent_running", "Probes being run.", value=lineup.running)
        yield GaugeMetricFamily(
            "fleetbeat_agent_workers", "Probes that can be run at once.", value=self._prober.workers
        )

    def _delays(self) -> Metric:
        delays, below, buckets = self._prober.delays, 0, []
        for bound, count in zip((*map(str, DELAYS_S), "+Inf"), delays.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        return HistogramMetricFamily(
            "fleetbeat_agent_probe_start_delay_seconds",
            "From when a probe was due until a worker began with it.",
            buckets=buckets,
            sum_value=delays.sum_s,
        )

    def _records(self) -> Iterable[Metric]:
        acknowledged = CounterMetricFamily(
            "fleetbeat_agent_records_acknowledged", "Records that Kafka has.", labels=["topic"]
        )
        waiting = GaugeMetricFamily("fleetbeat_agent_records_waiting", "Records on their way.", labels=["topic"])
        dropped = CounterMetricFamily(
            "fleetbeat_agent_records_dropped", "Records given up.", labels=["topic", "reason"]
        )
        disk = GaugeMetricFamily("fleetbeat_agent_spool_bytes", "What the spool takes on disk.", labels=["topic"])
        age = GaugeMetricFamily(
            "fleetbeat_agent_spool_age_seconds", "Since the oldest record that waits was taken.", labels=["topic"]
        )
        memory = GaugeMetricFamily(
            "fleetbeat_agent_spool_in_memory", "Records that the disk did not take.", labels=["topic"]
        )
        again = CounterMetricFamily(
            "fleetbeat_agent_records_sent_again", "Records that may be in Kafka twice.", labels=["topic"]
        )
        for topic, lane in self._publisher.figures().items():
            acknowledged.add_metric([topic], lane.acknowledged)
            waiting.add_metric([topic], lane.waiting)
            for reason in Drop:
                dropped.add_metric([topic, reason], lane.dropped.get(reason, 0))
            disk.add_metric([topic], lane.disk_bytes)
            age.add_metric([topic], 0 if lane.oldest_s is None else max(0, time.monotonic() - lane.oldest_s))
            memory.add_metric([topic], lane.in_memory)
            again.add_metric([topic], lane.sent_again)
        yield from (acknowledged, waiting, dropped, disk, age, memory, again)


def _add_phases(families: dict[str, GaugeMetricFamily], kind: str, which: list[str], phases: Phases) -> None:
    """One family a kind, as blackbox_exporter has them: probe_http_duration_seconds{phase} and so on."""
    for field in fields(phases):
        spent_us = getattr(phases, field.name)
        if spent_us is not None:
            name = f"probe_{re.sub(r'[^a-zA-Z0-9_]', '_', kind)}_duration_seconds"
            family = families.setdefault(
                name, GaugeMetricFamily(name, "Of the latest run, by phase.", labels=[*_WHICH, "phase"])
            )
            family.add_metric([*which, _PHASES.get(field.name, field.name.removesuffix("_us"))], spent_us / 1e6)


def _expires_ms(outcome: Outcome) -> int | None:
    expires: Any = getattr(outcome, "cert_expires_ms", None)  # a Timeout has none
    return expires if isinstance(expires, int) else None
