"""What an archive is asked for."""

from dataclasses import dataclass, field
from pathlib import Path

from schemas.kafka import Brokers
from streams.archive.lane import Limits
from streams.archive.sql_limits import Limits as SqlLimits


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """`clickhouse` is a server's URL; without it `store` is the folder of an embedded store, with SQL on `listen`."""

    brokers: Brokers
    clickhouse: str | None = None
    store: Path | None = None
    listen: str = "127.0.0.1:8123"
    metrics: str | None = None
    sql_users: Path | None = None
    """Who may ask over SQL; without it everybody on this machine, and nobody else."""
    group: str = "fleetbeat-archive"
    ready_lag: int = 700_000  # a full lane: what a busy fleet has on its way is less
    """The archive is not ready while more records than this wait in Kafka."""
    keep: tuple[str, ...] = ()
    """TABLE=DAYSd of tables that are to be kept for another time than usual; likewise `cold_after`."""
    cold_after: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    sql: SqlLimits = field(default_factory=SqlLimits)
    """What queries of the embedded store may take."""
    log_level: str = "info"
    cluster: str | None = None
    """With `clickhouse`: make tables on all servers of this cluster, replicated."""


class OptionsError(ValueError):
    """An option cannot be; the message names it and says what was expected."""
