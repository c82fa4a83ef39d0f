"""What Grafana's panels ask ClickHouse, asked of the real tables."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore

DASHBOARD = Path(__file__).parents[2] / "infra" / "grafana" / "dashboards" / "fleetbeat.json"
PANELS = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
QUERIES = {panel["title"]: target["rawSql"] for panel in PANELS for target in panel["targets"] if "rawSql" in target}
# What the plugin makes of its macros for an hour in steps of ten seconds.
MACROS = {
    "$__timeFilter(received_at)": "received_at >= now() - 3600 AND received_at <= now()",
    "$__timeInterval(received_at)": "toStartOfInterval(toDateTime(received_at), INTERVAL 10 second)",
}
ROWS = """
INSERT INTO telemetry.probe_results (ts, received_at, node_id, service, endpoint, region, success, latency_us)
SELECT now(), now(), 'n', 'checkout', '/pay', 'eu-1', number % 4 != 0, 1000 * number FROM numbers(100)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with EmbeddedStore(tmp_path_factory.mktemp("dashboard") / "store", memory_cap_bytes=1 << 30) as store:
        client = store.client()
        ddl.apply(client)
        client.command(ROWS)
        yield client
        client.close()


def test_there_are_panels_that_ask_clickhouse() -> None:
    assert len(QUERIES) == 2


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_gets_rows(client: Any, title: str) -> None:  # noqa: ANN401
    query = QUERIES[title]
    for macro, meaning in MACROS.items():
        query = query.replace(macro, meaning)
    assert "$" not in query
    answer = client.query(query)
    (row,) = answer.result_rows
    assert dict(zip(answer.column_names, row, strict=True)).get("failed") in (0.25, 25)
