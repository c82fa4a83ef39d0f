"""The few figures of a running stack that its status line shows, read from views and /metrics."""

import json
import time
import urllib.request
from dataclasses import dataclass

from infra.local.addresses import Addresses

TIMEOUT_S = 2.0
# Counters and gauges by which process tells them.
EVENTS = "fleetbeat_rollup_events_total"
WORKER_LAG = "fleetbeat_consumer_lag_records"
STORED = "fleetbeat_archive_rows_total"
ARCHIVE_LAG = "fleetbeat_archive_lag_records"


@dataclass(frozen=True, slots=True)
class Figures:
    """Totals since the start; lags are records not yet read or stored; `kept` of `slos` attain their target.

    Nodes are up when they are not silent for long: neither DOWN nor GONE.
    """

    at_s: float
    slos: int
    kept: int
    events: int
    worker_lag: int
    stored: int
    archive_lag: int
    nodes_up: int
    nodes_down: int


def read_figures(where: Addresses) -> Figures | None:
    """None while one of the processes does not answer."""
    try:
        worker, archive = (_get(f"{base}/metrics") for base in (where.views, where.archive_metrics))
        slos = json.loads(_get(f"{where.views}/api/v1/slos"))["slos"]
        states = json.loads(_get(f"{where.views}/api/v1/fleet"))["nodes"]
    except OSError:
        return None
    return Figures(
        at_s=time.monotonic(),
        slos=len(slos),
        kept=sum((slo.get("attainment") or 0.0) >= slo["target"] for slo in slos),
        events=total(worker, EVENTS),
        worker_lag=total(worker, WORKER_LAG),
        stored=total(archive, STORED),
        archive_lag=total(archive, ARCHIVE_LAG),
        nodes_up=sum(states[state] for state in ("UP", "LATE", "SUSPECT")),
        nodes_down=states["DOWN"],
    )


def total(exposition: str, name: str) -> int:
    """The sum over all series of a metric in Prometheus' text format; 0 when it is not there."""
    lines = (line for line in exposition.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def status_line(before: Figures | None, now: Figures | None) -> str:
    """How many SLOs are kept and nodes there, rates since `before`, and how far behind worker and archive are."""
    if now is None:
        return "the worker or the archive does not answer at the moment"
    seconds = now.at_s - before.at_s if before is not None else 0.0
    counted = _rate("events", now.events, before.events if before else 0, seconds)
    stored = _rate("rows", now.stored, before.stored if before else 0, seconds)
    return (
        f"{now.kept} of {now.slos} SLOs kept · {now.nodes_up:,} nodes up, {now.nodes_down:,} down · "
        f"{counted} counted (lag {now.worker_lag:,}) · "
        f"{stored} stored (lag {now.archive_lag:,})"
    )


def _rate(what: str, now: int, before: int, seconds: float) -> str:
    return f"{(now - before) / seconds:,.0f} {what}/s" if seconds > 0 else f"{now:,} {what}"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - http on loopback, built by us
        return str(response.read().decode())
