"""Asks a running fleetbeat, with Python's standard library alone, how each promise is kept and where the worst is slow.

Run it: python query.py [VIEWS SQL], by default http://127.0.0.1:8080 http://127.0.0.1:8123
"""

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

# The server fills in {service:String} from param_service in the address: values never become part of the query's text.
SLOWEST = """
SELECT endpoint, region, count() AS results, countIf(not success) AS failed,
       round(quantile(0.99)(latency_us) / 1000) AS p99_ms
FROM probe_results
WHERE service = {service:String} AND ts > now() - INTERVAL 5 MINUTE
GROUP BY endpoint, region ORDER BY p99_ms DESC
FORMAT JSONEachRow
"""
HOUR_S = 3_600


def report(views: str, sql: str) -> Iterator[str]:
    """One line an objective from the views, then one an endpoint and region of the worst service, from SQL."""
    slos = [slo for slo in json.loads(get(f"{views}/api/v1/slos"))["slos"] if "unavailable" not in slo]
    yield f"{'objective':<22} {'target':>8} {'last hour':>10} {'P99 ms':>7} {'budget left':>12} {'age ms':>7}"
    for slo in slos:
        hour = next(window for window in slo["windows"] if window["window_s"] == HOUR_S)
        yield (
            f"{slo['id']:<22} {slo['target']:>8.2%} {percent(hour['attainment']):>10} {ms(hour['p99_us']):>7} "
            f"{percent(slo['budget_left']):>12} {slo['staleness_ms']:>7}"
        )

    judged = [slo for slo in slos if slo["budget_left"] is not None]
    if judged:
        worst = min(judged, key=lambda slo: slo["budget_left"])["service"]
        yield f"\n{worst} in the last 5 minutes, the slowest first:"
        for row in ask(sql, SLOWEST, service=worst):
            failed = f"{row['failed']} of {row['results']} failed"
            yield f"  {row['endpoint']:<12} {row['region']:<6} P99 {row['p99_ms']:>6} ms, {failed}"


def ask(address: str, query: str, **parameters: str) -> list[dict[str, Any]]:
    """Rows of a query that ends in FORMAT JSONEachRow."""
    named = urllib.parse.urlencode({f"param_{name}": value for name, value in parameters.items()})
    return [json.loads(line) for line in get(f"{address}/?{named}", query.encode()).splitlines()]


def get(url: str, body: bytes | None = None) -> bytes:
    """What a view or the SQL address answers."""
    with urllib.request.urlopen(url, body, timeout=30) as answer:  # noqa: S310 - your own addresses
        return bytes(answer.read())


def percent(share: float | None) -> str:
    """A share as per cent; there is none while nothing has been judged."""
    return "-" if share is None else f"{share:.2%}"


def ms(latency_us: float | None) -> str:
    """Microseconds as milliseconds."""
    return "-" if latency_us is None else f"{latency_us / 1000:.0f}"


if __name__ == "__main__":
    for line in report(*(sys.argv[1:] or ("http://127.0.0.1:8080", "http://127.0.0.1:8123"))):
        print(line)  # noqa: T201 - what it is for
