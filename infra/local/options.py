"""What a user may choose for `fleetbeat up`."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from infra.state import DEFAULT_FOLDER
from schemas.kafka.option import check_typed

LAST_PORT = 65_535
# What the simulated fleet takes, which is the last to start: a test compares them.
LIMITS = {
    "nodes": (1, 4_000_000),
    "rate": (1, 50_000_000),
    "duration": (0.001, 30 * 86_400),
    "seed": (0, (1 << 64) - 1),
}
HEARTBEAT_EVERY_S = 5
# A check waits for silent nodes to be DOWN, which takes three intervals.
HEARTBEAT_EVERY_S_IN_CHECK = 2


class UpOptionsError(ValueError):
    """An option cannot be; the message names it and says what was expected."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """None means: a default, and for ports another free one when the default is taken.

    `rate` is probe results per second of the whole simulated fleet, on top of heartbeats; `brokers` is host:port of a
    Kafka that already runs, `kafka_config` how to reach that one; one that `up` starts itself has no security.
    """

    check: bool = False
    state: Path | None = None
    nodes: int = 1_000
    rate: int | None = None
    duration_s: float | None = None
    seed: int | None = None
    objectives: Path | None = None
    kafka_port: int | None = None
    worker_port: int | None = None
    sql_port: int | None = None
    brokers: str | None = None
    kafka_config: Path | None = None

    def __post_init__(self) -> None:
        """Raises UpOptionsError, BrokersError."""
        check_typed(self.brokers)
        given = {"nodes": self.nodes, "rate": self.rate, "duration": self.duration_s, "seed": self.seed}
        for name, (low, high) in LIMITS.items():
            value = given[name]
            if value is not None and not low <= value <= high:
                raise UpOptionsError(f"--{name}: value {value}; expected {low:,} to {high:,}")
        for name, port in (("kafka", self.kafka_port), ("worker", self.worker_port), ("sql", self.sql_port)):
            if port is not None and not 0 < port <= LAST_PORT:
                raise UpOptionsError(f"--{name}-port: value {port}; expected 1 to {LAST_PORT}")

    @property
    def state_folder(self) -> Path:
        """Where data and logs go in plain `up`."""
        return self.state if self.state is not None else DEFAULT_FOLDER

    @property
    def heartbeat_every_s(self) -> int:
        """Seconds between two heartbeats of a node, simulated or not."""
        return HEARTBEAT_EVERY_S_IN_CHECK if self.check else HEARTBEAT_EVERY_S

    @property
    def results_per_s(self) -> int:
        """What was asked for, else a few a node, as far as a developer's machine is comfortable with."""
        return self.rate if self.rate is not None else min(3 * self.nodes, 30_000)

    @property
    def objectives_file(self) -> Path:
        """The SLOs of the user, else those of the simulated fleet."""
        return self.objectives if self.objectives is not None else demo_file("slos.yaml")


def demo_file(name: str) -> Path:
    """A file of `infra/demo`; fleetbeat is always installed as plain files, so a path is enough for child processes."""
    return Path(str(files("infra") / "demo" / name))
