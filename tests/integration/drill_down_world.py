"""An hour of a small fleet with one node that fails and a zone that goes silent: rows whose answers are known.

Twenty nodes, ten in each of two regions, ask three endpoints every ten seconds. From 10:40:20 on eu-07 cannot connect
to checkout's /pay any more; its memory has been full since 10:38, and every sixth of its heartbeats is missing since
then. From 10:20 to 10:30 the three nodes of zone us/c are silent.
"""

import json

import numpy as np

from streams.core.histogram import buckets_of, quantile
from tests.integration.sql_gateway_client import Server

FROM, TO = "2026-03-02 10:00:00", "2026-03-02 11:00:00"
NODES, ENDPOINTS, ROUNDS = 20, 3, 360
FAILED = 118  # rounds from 10:40:20 to 10:59:50

_AT = f"toDateTime64('{FROM}.000', 3, 'UTC')"
_REGION = "if(n < 10, 'eu', 'us')"
_NODE = f"concat({_REGION}, '-', leftPad(toString(n % 10 + 1), 2, '0'))"
# Hashes of numbers: the same on every machine.
_RESULTS = f"""
INSERT INTO telemetry.probe_results SELECT
    {_AT} + toIntervalSecond(round * 10) + toIntervalMillisecond(n * 50 + e) AS ts,
    ts + toIntervalMillisecond(40) AS received_at,
    NULL AS reported_ts_ms, {_NODE} AS node_id, 'boot-1' AS boot_id, round * 4 + e AS seq,
    concat(service, endpoint) AS probe, 'http' AS kind,
    if(e = 2, 'search', 'checkout') AS service, ['/cart', '/pay', '/find'][e + 1] AS endpoint, {_REGION} AS region,
    NOT (node_id = 'eu-07' AND e = 1 AND round >= 242) AS success,
    if(success, resolve + connect + tls + first_byte + transfer, 2000000) AS latency_us,
    2000 AS resolve, if(success, if(n < 10, 8000, 12000), NULL) AS connect, if(success, connect * 2, NULL) AS tls,
    if(success, 20000 + sipHash64(number) % 60000, NULL) AS first_byte, if(success, 1000, NULL) AS transfer,
    if(success, 200, NULL) AS status_code, if(success, NULL, 'timeout') AS error, NULL AS impact,
    if(number % 10 = 7 OR NOT success, lower(hex(sipHash128(number))), NULL) AS trace_id, map('rack', 'r1') AS labels,
    n % 3 AS kafka_partition, number AS kafka_offset
FROM (
    SELECT number, number % {NODES} AS n, intDiv(number, {NODES}) % {ENDPOINTS} AS e,
        intDiv(number, {NODES * ENDPOINTS}) AS round
    FROM numbers({NODES * ENDPOINTS * ROUNDS})
)
"""  # noqa: S608 - our own constants
_SILENT = "(n IN (17, 18, 19) AND round >= 120 AND round < 180)"
_HEARTBEATS = f"""
INSERT INTO telemetry.heartbeats SELECT
    {_AT} + toIntervalSecond(round * 10) + toIntervalMillisecond(n * 50) AS ts,
    ts + toIntervalMillisecond(40) AS received_at,
    NULL AS reported_ts_ms, {_NODE} AS node_id, 'boot-1' AS boot_id,
    toUnixTimestamp64Milli({_AT}) - 3600000 AS boot_ts_ms,
    round * 4 + 3 AS seq, 360 + round AS heartbeat_seq, 10000 AS interval_ms, 'UP' AS state,
    {_REGION} AS region,
    if(n >= 17, 'c', 'a') AS zone, '0.1.0' AS agent_version, NULL AS config_version,
    100 AS health, NULL AS health_source, 200 + n AS cpu_permille,
    if(node_id = 'eu-07' AND round >= 228, 985, 410) AS memory_permille, 300 AS disk_permille,
    0 AS spooled, 0 AS spool_age_ms, 0 AS dropped,
    map('rack', 'r1') AS labels, n % 3 AS kafka_partition, number AS kafka_offset
FROM (SELECT number, number % {NODES} AS n, intDiv(number, {NODES}) AS round FROM numbers({NODES * ROUNDS}))
WHERE NOT {_SILENT} AND NOT (node_id = 'eu-07' AND round >= 228 AND round % 6 = 3)
"""  # noqa: S608 - our own constants
# eu-02 fell silent alone, half an hour after zone us/c did; us-09 and us-10 came back.
_STATES = (
    ("us-08", "DOWN", "10:20:17", "10:19:50.890", "c"),
    ("us-09", "DOWN", "10:20:17", "10:19:50.940", "c"),
    ("us-10", "DOWN", "10:20:18", "10:20:00.000", "c"),
    ("us-09", "UP", "10:30:00", "10:30:00.940", "c"),
    ("us-10", "UP", "10:30:00", "10:30:00.990", "c"),
    ("eu-02", "DOWN", "10:50:27", "10:50:00.090", "a"),
    ("eu-07", "LATE", "10:41:00", "10:40:45.000", "a"),
    ("eu-07", "UP", "10:41:10", "10:41:10.000", "a"),
)
_PROMISES = (("checkout-answers", "checkout", 0.995), ("search-answers", "search", 0.99))


def fill(server: Server) -> None:
    """Makes the archive's tables and the hour's rows; the hour is long past, so they may not expire."""
    server.tell("migrate")
    for statement in ("SYSTEM STOP TTL MERGES", _RESULTS, _HEARTBEATS, _node_states()):
        server.tell("run " + json.dumps(statement))
    server.tell("run " + json.dumps(_windows(server)))


def _node_states() -> str:
    day = "2026-03-02"
    rows = (
        f"('{node}', 'NODE', '{state}', NULL, 'heartbeats', '{day} {since}', '{day} {seen}', '{node[:2]}', '{zone}', "
        f"0, 10000, 1, 20, 0, {number}, '{day} {since}', 0, {number})"
        for number, (node, state, since, seen, zone) in enumerate(_STATES)
    )
    return "INSERT INTO telemetry.node_states VALUES " + ", ".join(rows)  # noqa: S608 - our own constants


def _windows(server: Server) -> str:
    """The minutes of the objectives, with quantiles of the histogram that the worker keeps."""
    rows = []
    for slo, service, target in _PROMISES:
        told = server.ask(
            "SELECT toUnixTimestamp(toStartOfMinute(ts)), toUInt8(success), latency_us FROM probe_results "
            "WHERE service = {service:String} ORDER BY ts",
            param_service=service,
        )
        minute, success, latency_us = np.array([line.split("\t") for line in told.text.splitlines()], np.int64).T
        for begin in np.unique(minute):
            mine = minute == begin
            buckets, counts = np.unique(buckets_of(latency_us[mine]), return_counts=True)
            p50, p90, p99 = (round(quantile(buckets, counts, permille) or 0) for permille in (500, 900, 990))
            rows.append(
                f"('{slo}', '{service}', '4500d425', {target}, 60, {begin}, {begin + 60}, true, {mine.sum()}, "
                f"{success[mine].sum()}, 0, {latency_us[mine].sum()}, {latency_us[mine].max()}, {p50}, {p90}, {p99}, "
                f"{begin + 61}, {begin + 60}, {begin}, {begin + 61}, 0, {begin})"
            )
    return "INSERT INTO telemetry.slo_windows VALUES " + ", ".join(rows)  # noqa: S608 - our own constants
