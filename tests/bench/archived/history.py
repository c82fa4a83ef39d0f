"""A day of a fleet in the archive's tables, made by the engine itself and shaped like what `simulate` sends.

A heartbeat a node every 30 s, 2,120 results a node and day; five services with two endpoints and two kinds, seen from
three regions, latencies lognormal, one in a thousand failed, one in a hundred traced. Between 90 and 75 minutes before
the end a tenth of what `eu-1` asks of `checkout` fails. Rows come in hour by hour, as parts of a million, and the
engine merges them as it does others. Their partitions are numbered from 100, so that no plan of the archive means them.
"""

import time
from pathlib import Path
from typing import Any

from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore

HOURS = 24
HOUR_MS = 3_600_000
BEATS_AN_HOUR = 120
RESULTS_A_NODE = 2_120
ROWS_A_NODE = HOURS * BEATS_AN_HOUR + RESULTS_A_NODE
SERVICES = ("checkout", "search", "login", "cart", "profile")
ENDPOINTS = ("/api/v1/a", "/api/v1/b")
REGIONS = ("eu-1", "us-1", "ap-1")
MEDIANS_US = (40_000, 25_000, 15_000, 60_000, 90_000)
# Before the end.
BAD_FROM_MS, BAD_TO_MS = 90 * 60_000, 75 * 60_000
_MERGED_S = 600.0

_NODE = """
    concat('node-', leftPad(toString(node), 7, '0')) AS node_id,
    leftPad(lower(hex(sipHash64(node))), 16, '0') AS boot_id,
    fromUnixTimestamp64Milli(ms, 'UTC') AS ts,
    fromUnixTimestamp64Milli(intDiv(ms + 99, 100) * 100 + 5, 'UTC') AS received_at,
    {regions}[node % 3 + 1] AS region,
    toUInt16(100 + node % 12) AS kafka_partition
"""
_BEATS = """
INSERT INTO telemetry.heartbeats (
    node_id, boot_id, ts, received_at, region, kafka_partition, kafka_offset, zone, boot_ts_ms, seq, heartbeat_seq,
    interval_ms, state, agent_version, health, cpu_permille, memory_permille, disk_permille
)
SELECT {node}, beat * {a_round} + intDiv(node, 12), concat(region, substring('abc', node % 9 % 3 + 1, 1)), {start},
    beat * 2, beat, 30000, 'UP', 'simulate', 80 + rand(1) % 21, {load}
FROM (
    SELECT number % {nodes} AS node, {hour} * {beats} + intDiv(number, {nodes}) AS beat,
        toInt64({start} + beat * 30000 + cityHash64(node) % 28000 + rand(0) % 3001 - 1500) AS ms
    FROM numbers({beats} * {nodes})
)
"""
_LOAD = "toInt32(90 + cityHash64(node, {which}) % 800 + rand({which}) % 81 - 40)"
_RESULTS = """
INSERT INTO telemetry.probe_results (
    node_id, boot_id, ts, received_at, region, kafka_partition, kafka_offset, seq, service, endpoint, kind, probe,
    latency_us, success, error, status_code, trace_id
)
WITH region = 'eu-1' AND service = 'checkout' AND ms BETWEEN {bad_from} AND {bad_to} AS is_bad,
    rand(1) % 1000 < if(is_bad, 100, 1) AS failed, rand(2) % 3 AS how
SELECT {node}, {first} + number, intDiv(ms - {start}, 20000), {services}[series % 5 + 1] AS service,
    {endpoints}[intDiv(series, 5) % 2 + 1], ['http', 'tcp'][intDiv(series, 10) + 1] AS kind, concat(service, '-', kind),
    if(failed AND how = 0, 5000000,
        toUInt64(exp(randNormal(0, 0.5)) * {medians}[series % 5 + 1] * (1 + node % 3 / 4))),
    NOT failed, if(failed, ['timeout', 'refused', if(kind = 'http', 'status', 'reset')][how + 1], NULL),
    if(kind = 'http' AND (NOT failed OR how = 2), if(failed, 503, 200), NULL),
    if(rand(3) % 100 = 0, lower(hex(sipHash128({first} + number))), NULL)
FROM (
    SELECT number, cityHash64({first} + number) AS drawn, drawn % {nodes} AS node,
        intDiv(drawn, 1000003) % 20 AS series,
        toInt64({start} + {hour} * {hour_ms} + intDiv(number * {hour_ms}, {results})) AS ms
    FROM numbers({results})
)
"""


def fill(folder: Path, rows: int, end_ms: int) -> dict[str, Any]:
    """Makes a store with about `rows` rows, up to `end_ms`; how many `nodes`, and what is there."""
    nodes = max(12, rows // ROWS_A_NODE)
    with EmbeddedStore(folder) as store:
        client = store.client()
        ddl.apply(client)
        for hour in range(HOURS):
            for statement in _statements(nodes, hour, end_ms):
                client.command(statement)
        _await_merges(client)
        found = {table: int(client.command(f"SELECT count() FROM telemetry.{table}")) for table in _TABLES}  # noqa: S608 - ours
        parts = client.command(
            "SELECT count() FROM system.parts WHERE active AND table IN ('heartbeats', 'probe_results')"
        )
    return {"nodes": nodes, "parts": int(parts), **found}


_TABLES = ("heartbeats", "probe_results")


def _statements(nodes: int, hour: int, end_ms: int) -> tuple[str, str]:
    results = nodes * RESULTS_A_NODE // HOURS
    values: dict[str, Any] = {
        "nodes": nodes, "hour": hour, "start": end_ms - HOURS * HOUR_MS, "hour_ms": HOUR_MS, "beats": BEATS_AN_HOUR,
        "a_round": nodes // 12 + 1, "results": results, "first": hour * results, "services": list(SERVICES),
        "endpoints": list(ENDPOINTS), "medians": list(MEDIANS_US), "bad_from": end_ms - BAD_FROM_MS,
        "bad_to": end_ms - BAD_TO_MS, "load": ", ".join(_LOAD.format(which=which) for which in (4, 5, 6)),
        "node": _NODE.format(regions=list(REGIONS)),
    }  # fmt: skip
    return _BEATS.format(**values), _RESULTS.format(**values)


def _await_merges(client: Any) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
    """A store that has had a day for it is merged."""
    deadline = time.monotonic() + _MERGED_S
    while int(client.command("SELECT count() FROM system.merges")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"merges still run after {_MERGED_S:.0f} s")
        time.sleep(1.0)
