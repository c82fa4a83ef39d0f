"""Bytes a row in the archive's tables, after merging: what `simulate` sent, with trace ids and live append times."""

from pathlib import Path
from typing import Any

from streams.archive.embedded import EmbeddedStore

TRACED_PERCENT = 1
# The simulated fleet traces nothing, and a fast run has the same append time for minutes of events. So the rows are
# copied: one event in a hundred gets a trace id, and the broker takes what was said in 100 ms at most 25 ms later.
_COPY = """
INSERT INTO telemetry.measured SELECT * REPLACE (
    fromUnixTimestamp64Milli(
        toInt64(intDiv(toUnixTimestamp64Milli(ts) + 99, 100) * 100
            + 5 + cityHash64(kafka_partition, intDiv(toUnixTimestamp64Milli(ts), 100)) % 20), 'UTC'
    ) AS received_at{more}
) FROM telemetry.{table}
"""
_TRACES = """,
    if(cityHash64(kafka_partition, kafka_offset) % 100 < {percent},
        lower(hex(sipHash128(kafka_partition, kafka_offset))), NULL) AS trace_id"""


def bytes_a_row(folder: Path) -> dict[str, dict[str, Any]]:
    """By table: `rows`, `bytes` a row on disk with indexes and marks, and `columns`, the bytes a row of each."""
    with EmbeddedStore(folder) as store:
        client = store.client()
        return {table: _measure(client, table) for table in ("heartbeats", "probe_results")}


def _measure(client: Any, table: str) -> dict[str, Any]:  # noqa: ANN401 - clickhouse-connect is not typed
    more = _TRACES.format(percent=TRACED_PERCENT) if table == "probe_results" else ""
    client.command("DROP TABLE IF EXISTS telemetry.measured")
    client.command(f"CREATE TABLE telemetry.measured AS telemetry.{table}")
    client.command(_COPY.format(table=table, more=more))
    client.command("OPTIMIZE TABLE telemetry.measured FINAL")
    active = "WHERE active AND database = 'telemetry' AND table = 'measured'"
    rows, size = client.query(f"SELECT sum(rows), sum(bytes_on_disk) FROM system.parts {active}").result_rows[0]  # noqa: S608
    if rows != int(client.command(f"SELECT count() FROM telemetry.{table}")):  # noqa: S608 - our own names
        raise RuntimeError(f"{table}: {rows} rows in the copy; expected as many as in the table")
    columns = client.query(
        "SELECT column, sum(column_data_compressed_bytes + column_marks_bytes) / sum(rows) AS bytes "  # noqa: S608 - as above
        f"FROM system.parts_columns {active} GROUP BY column ORDER BY bytes DESC"
    )
    return {
        "rows": rows,
        "bytes": round(size / rows, 2),
        "columns": {name: round(each, 2) for name, each in columns.result_rows},
    }
