"""The agent's metrics, read at the moment somebody asks: probes by blackbox_exporter's names, and the agent's own."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agents.health.window import Health
from agents.probe_series import ProbeSeries
from agents.publish import Drop, Publisher
from agents.reload import ReloadFigures
from agents.reload_metrics import reload_families
from agents.run import Prober
from agents.schedule import Skip
from agents.targets.discovery import DiscoveryFigures
from agents.targets.metrics import target_families

if TYPE_CHECKING:
    from agents.scrape.pipeline import Scraper


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to look at."""

    prober: Prober
    publisher: Publisher
    version: str
    health: Callable[[], Health] = Health
    series: ProbeSeries = field(default_factory=ProbeSeries)
    scraper: "Scraper | None" = None
    config: ReloadFigures | None = None
    targets: Callable[[], Mapping[str, DiscoveryFigures]] = dict


class Telemetry(Collector):
    """Renders a page of metrics, in any thread. No node id and no address is a label: there is no end to them."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._prober = sources.prober
        self._publisher = sources.publisher
        self._version = sources.version
        self._scraper = sources.scraper
        self._config = sources.config
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        specs, latest = self._prober.specs, self._prober.latest
        # There is no end to targets: they are counted, and have no series of their own.
        yield from self._sources.series.collect([spec for spec in specs if spec.target is None], latest)
        yield from target_families(self._sources.targets(), specs, latest)
        yield from self._runs()
        yield from self._records()
        yield from self._health()
        if self._scraper is not None:
            from agents.scrape.metrics import families  # noqa: PLC0415 - only for those who scrape

            yield from families(self._scraper)
        info = GaugeMetricFamily("fleetbeat_agent_info", "Always 1; which agent this is.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        if self._config is not None:
            yield from reload_families(self._config)

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
        yield from (runs, skipped, self._delays(), self._durations(), *self._failures())
        lineup = self._prober.lineup
        yield GaugeMetricFamily("fleetbeat_agent_queue_depth", "Probes that wait for a worker.", value=lineup.waiting)
        yield GaugeMetricFamily("fleetbeat_agent_running", "Probes being run.", value=lineup.running)
        yield GaugeMetricFamily(
            "fleetbeat_agent_workers", "Probes that can be run at once.", value=self._prober.workers
        )

    def _failures(self) -> Iterable[Metric]:
        failures = self._prober.failures
        for counts, failure, what, text in (
            (failures.validation, "validation", "validator", "Runs that got an answer which this validator refused."),
            (failures.transport, "transport", "reason", "Runs that got no answer to judge."),
        ):
            family = CounterMetricFamily(f"fleetbeat_agent_{failure}_failures", text, labels=["kind", what])
            for (kind, reason), count in counts.copy().items():
                family.add_metric([kind, reason], count)
            yield family

    def _delays(self) -> Metric:
        return HistogramMetricFamily(
            "fleetbeat_agent_probe_start_delay_seconds",
            "From when a probe was due until a worker began with it.",
            buckets=self._prober.delays.buckets(),
            sum_value=self._prober.delays.sum_s,
        )

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "fleetbeat_agent_probe_run_seconds", "How long runs took, by kind.", labels=["kind"]
        )
        for kind, durations in self._prober.durations.copy().items():
            family.add_metric([kind], durations.buckets(), durations.sum_s)
        return family

    def _health(self) -> Iterable[Metric]:
        health = self._sources.health()
        whole = GaugeMetricFamily("fleetbeat_agent_health", "Of this host in the last second, 0 to 100.")
        if health.score is not None:
            whole.add_metric([], health.score)
        parts = GaugeMetricFamily(
            "fleetbeat_agent_health_part", "What health is the mean of, 0 to 100.", labels=["part", "source"]
        )
        for name, part in zip(("tcp", "memory", "scheduling"), health.parts(), strict=True):
            if part is not None:
                parts.add_metric([name, part.source], part.points)
        yield from (whole, parts)

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
