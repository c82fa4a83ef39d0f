"""Which queries of the archive's library go on from an objective, their parameters filled in.

The names are those of infra/clickhouse/queries; a test compares them with the files.
"""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.core.objectives import Objective
from streams.core.sources import PROBES


@dataclass(frozen=True, slots=True)
class NextQuery:
    """A query by its name, and what to give it."""

    name: str
    parameters: dict[str, str]

    @property
    def command(self) -> str:
        """As one types it."""
        pairs = (f"{name}={value}" for name, value in self.parameters.items())
        return " ".join([f"fleetbeat sql --name {self.name}", *(f"--param {shlex.quote(pair)}" for pair in pairs)])


def next_queries(objective: Objective, from_ms: int, to_ms: int) -> list[NextQuery]:
    """What to ask about an objective that burned in this span of event time, in the order of docs/drill-down.md."""
    span = {"since": _time(from_ms), "until": _time(to_ms)}
    burning = NextQuery("burning_slos", {"slo": objective.id} | span)
    if objective.source != PROBES:  # counted requests have no node and no trace
        return [burning]
    where, within = selected(objective), threshold(objective)
    without_region = {name: value for name, value in where.items() if name != "region"}
    return [
        burning,
        NextQuery("worst_series", where | within | span),
        NextQuery("worst_nodes", where | within | span),
        NextQuery("first_failure", {"alert_at": span["until"]} | where | within),
        NextQuery("phases_by_region", without_region | span),
        NextQuery("silent_together", dict(span)),
        NextQuery("exact_p99", {"slo": objective.id} | where | span),
    ]


def selected(objective: Objective) -> dict[str, str]:
    """Which series it is about, by the parameters that all of these queries have."""
    where = objective.selector
    fields = {"service": where.service, "endpoint": where.endpoint, "region": where.region, "kind": where.kind}
    return {name: value for name, value in fields.items() if value is not None}


def threshold(objective: Objective) -> dict[str, str]:
    """From when on a result is bad although it succeeded."""
    return {} if objective.latency_us_le is None else {"latency_us_le": str(objective.latency_us_le)}


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
