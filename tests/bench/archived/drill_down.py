"""The questions of the drill-down library, asked one after the other as `fleetbeat sql` asks them."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streams.sql.client import Endpoint
from streams.sql.library import find
from tests.bench.archived.history import ENDPOINTS, HOURS, REGIONS, SERVICES

QUESTIONS = 50
PAUSE_S = 0.3
_SPAN = timedelta(minutes=15)
_Filled = dict[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: how long until the whole answer was there, and how many rows it had."""

    name: str
    recent: bool
    ms: float
    rows: int


def ask(url: str, nodes: int, seed: int = 1) -> list[Asked]:
    """QUESTIONS of them: each query of the library that needs raw rows, in turn; every other about the last minutes."""
    endpoint = Endpoint.parse(f"{url}/telemetry")
    rng = random.Random(seed)
    traces = _lines(
        endpoint, "SELECT trace_id FROM probe_results WHERE trace_id IS NOT NULL AND cityHash64(trace_id) % 499 = 0"
    )
    asked = []
    for number in range(QUESTIONS):
        time.sleep(PAUSE_S)
        name, given = _question(number, nodes, traces, rng)
        now = datetime.now(UTC)
        recent = number % 2 == 0
        end = now if recent else now - timedelta(minutes=rng.randrange(60, HOURS * 60 - 60))
        query = find(name)
        filled = query.fill(given(end), now)
        begun = time.perf_counter()
        rows = len(_lines(endpoint, query.sql, filled))
        asked.append(Asked(name, recent, (time.perf_counter() - begun) * 1_000, rows))
    return asked


def _question(
    number: int, nodes: int, traces: list[str], rng: random.Random
) -> tuple[str, Callable[[datetime], _Filled]]:
    """The name of a query and its parameters, once it is known where its time ends."""
    service, endpoint, region = (rng.choice(names) for names in (SERVICES, ENDPOINTS, REGIONS))
    series = {"service": service, "endpoint": endpoint, "region": region}

    def span(end: datetime, length: timedelta = _SPAN) -> _Filled:
        return {"since": (end - length).isoformat(), "until": end.isoformat()}

    trace, node = rng.choice(traces), f"node-{rng.randrange(nodes):07}"
    questions: list[tuple[str, Callable[[datetime], _Filled]]] = [
        ("worst_series", lambda end: {"service": service, **span(end)}),
        ("worst_nodes", lambda end: {**series, **span(end)}),
        ("node_hour", lambda end: {"node": node, **span(end, timedelta(hours=1))}),
        ("event_by_trace", lambda _: {"trace_id": trace}),
        ("first_failure", lambda end: {**series, "alert_at": end.isoformat(), "lookback_s": "900"}),
        ("phases_by_region", lambda end: {"service": service, "endpoint": endpoint, **span(end)}),
    ]
    # Halved, so that each query is asked about both the last minutes and the past.
    return questions[number // 2 % len(questions)]


def _lines(endpoint: Endpoint, sql: str, params: _Filled | None = None) -> list[str]:
    return b"".join(endpoint.ask(sql, "TabSeparated", params)).decode().splitlines()


def by_query(asked: list[Asked]) -> Iterator[str]:
    """A line for each query: the median and the slowest, recent and past apart."""
    for name, recent in sorted({(each.name, each.recent) for each in asked}):
        times = sorted(each.ms for each in asked if (each.name, each.recent) == (name, recent))
        rows = [each.rows for each in asked if (each.name, each.recent) == (name, recent)]
        when = "recent" if recent else "past"
        middle, most = times[len(times) // 2], times[-1]
        yield f"{name:<18}{when:<8}{len(times):>3}  median {middle:7.1f} ms  max {most:7.1f} ms  rows {rows}"
