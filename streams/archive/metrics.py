"""What the archive tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ArchiveMetrics:
    """All series of one archive, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        topic = ["topic"]
        self.rows = Counter("fleetbeat_archive_rows", "Rows stored.", topic, registry=self.registry)
        self.records = Counter("fleetbeat_archive_records", "Records read from Kafka.", topic, registry=self.registry)
        self.batches = Counter("fleetbeat_archive_batches", "Batches stored.", topic, registry=self.registry)
        self.rejected = Counter(
            "fleetbeat_archive_rejected_rows", "Records that make no row.", ["topic", "reason"], registry=self.registry
        )
        self.insert_seconds = Histogram(
            "fleetbeat_archive_insert_seconds",
            "Plan and insert of a batch.",
            topic,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.verified = Counter(
            "fleetbeat_archive_plans_verified",
            "Last plans by what was found.",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self.lost = Counter(
            "fleetbeat_archive_lost_records", "Records that Kafka no longer had.", topic, registry=self.registry
        )
        self.store_errors = Counter(
            "fleetbeat_archive_store_errors", "Attempts that the store refused.", topic, registry=self.registry
        )
        self.buffered = Gauge(
            "fleetbeat_archive_buffered_records", "Read, not yet stored.", topic, registry=self.registry
        )
        self.buffered_bytes = Gauge(
            "fleetbeat_archive_buffered_bytes", "Read, not yet stored: their values.", topic, registry=self.registry
        )
        self.lag = Gauge("fleetbeat_archive_lag_records", "In Kafka, not yet stored.", topic, registry=self.registry)
        self.ready = Gauge(
            "fleetbeat_archive_ready", "1 when recovered and lag is under the bound.", registry=self.registry
        )
        self.merges_give_way = Gauge(
            "fleetbeat_archive_merges_give_way",
            "1 while merges of the embedded store run only when nothing else wants a processor.",
            registry=self.registry,
        )
        self.parts = Gauge(
            "fleetbeat_archive_parts", "Parts of the embedded store's fullest partition.", registry=self.registry
        )
