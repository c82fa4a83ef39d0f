"""What the SQL endpoint tells Prometheus. Users stand in a file, so their names are few."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class SqlMetrics:
    """All series of one endpoint."""

    def __init__(
        self, registry: CollectorRegistry, running: Callable[[], float], sessions: Callable[[], float]
    ) -> None:
        """`running` and `sessions` are asked whenever somebody reads."""
        self.queries = Counter(
            "fleetbeat_sql_queries",
            "Queries by outcome: ok, refused, failed, busy, cancelled.",
            ["outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "fleetbeat_sql_query_seconds", "Queries that gave a result.", buckets=_SECONDS, registry=registry
        )
        self.read_rows = Counter("fleetbeat_sql_read_rows", "Rows read.", ["user"], registry=registry)
        self.read_bytes = Counter("fleetbeat_sql_read_bytes", "Bytes read.", ["user"], registry=registry)
        self.slow = Counter(
            "fleetbeat_sql_slow_queries", "Queries that were written down as slow.", ["user"], registry=registry
        )
        self.logins_refused = Counter("fleetbeat_sql_logins_refused", "Wrong names or passwords.", registry=registry)
        Gauge("fleetbeat_sql_running_queries", "Queries now.", registry=registry).set_function(running)
        Gauge("fleetbeat_sql_sessions", "Sessions that are kept.", registry=registry).set_function(sessions)
