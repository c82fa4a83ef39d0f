"""What the agent's /metrics says of its scrapes; no target and no metric of theirs is a label."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from agents.probes.base import Failure
from agents.schedule import Skip
from agents.scrape.pipeline import Scraper


def families(scraper: Scraper) -> Iterable[Metric]:
    """All of it, in any thread."""
    figures, lineup = scraper.figures, scraper.lineup
    yield _by("fleetbeat_agent_scrapes", "Scrapes by outcome.", "outcome", scraper.outcomes.copy())
    yield _failures(scraper)
    skipped = {reason: scraper.skipped[reason] for reason in Skip}
    yield _by("fleetbeat_agent_scrape_skipped", "Scrapes that were due and not made.", "reason", skipped)
    depth = GaugeMetricFamily(
        "fleetbeat_agent_scrape_queue_depth", "Waiting for a stage, of at most 1024.", labels=["stage"]
    )
    depth.add_metric(["fetch"], lineup.waiting)
    depth.add_metric(["aggregate"], scraper.pages.qsize())
    yield depth
    yield GaugeMetricFamily("fleetbeat_agent_scrapes_running", "Exporters being asked.", value=lineup.running)
    yield GaugeMetricFamily("fleetbeat_agent_scrape_targets", "Exporters that are scraped.", value=scraper.targets)
    yield GaugeMetricFamily(
        "fleetbeat_agent_scrape_target_file_problems",
        "Files of targets that are not used as they are.",
        value=len(scraper.discovery.problems),
    )
    for name, text, value in (
        ("scrape_target_refreshes", "How often a URL was asked for targets.", scraper.urls.asked),
        (
            "scrape_target_failures",
            "URLs that gave no targets that can be used: those before stayed.",
            scraper.urls.failures,
        ),
        ("scrape_series", "Series read, on all pages.", figures.series),
        ("scrape_bad_samples", "Series left out of a page because of what it says.", figures.bad_samples),
        ("scrape_postponed", "Histograms read while they changed; a later page tells.", figures.postponed),
        ("scrape_resets", "Series that began anew.", figures.resets),
        ("scraped_requests", "Requests handed over as records.", figures.requests),
        ("scrape_records", "Records of request counts handed over.", figures.records),
        (
            "scrape_records_kept_back",
            "Times that no record was taken; its counts go with later ones.",
            figures.kept_back,
        ),
    ):
        yield CounterMetricFamily(f"fleetbeat_agent_{name}", text, value=value)
    yield HistogramMetricFamily(
        "fleetbeat_agent_scrape_duration_seconds",
        "How long scrapes took.",
        buckets=scraper.durations.buckets(),
        sum_value=scraper.durations.sum_s,
    )


def _failures(scraper: Scraper) -> Metric:
    family = CounterMetricFamily(
        "fleetbeat_agent_scrape_failures",
        "Scrapes that were not up: no page came, or one that is not as expected.",
        labels=["failure", "reason"],
    )
    for failure, counts in (
        (Failure.TRANSPORT, scraper.failures.transport),
        (Failure.VALIDATION, scraper.failures.validation),
    ):
        for (_, reason), count in counts.copy().items():
            family.add_metric([failure, reason], count)
    return family


def _by(name: str, text: str, label: str, counts: dict[str, int] | dict[Skip, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
