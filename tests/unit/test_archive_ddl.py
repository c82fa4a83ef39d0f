"""The numbered files of infra/clickhouse."""

from streams.archive.blocks import KEPT_DAYS
from streams.archive.ddl import migrations

ONCE = (
    "CREATE TABLE IF NOT EXISTS telemetry.",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.",
    "ALTER TABLE telemetry.",
)


def test_files_are_numbered_without_gaps_and_may_run_twice() -> None:
    found = migrations()
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        assert migration.statements
        for statement in migration.statements:
            assert statement.startswith(ONCE), migration.file


def test_tables_of_raw_rows_deduplicate_inserts() -> None:
    statements = [statement for migration in migrations() for statement in migration.statements]
    for table in ("probe_results", "heartbeats", "request_counts", "slo_windows", "node_states", "dead_letters"):
        (create,) = [
            statement
            for statement in statements
            if statement.startswith(f"CREATE TABLE IF NOT EXISTS telemetry.{table} ")
        ]
        assert "non_replicated_deduplication_window" in create
        if table in ("probe_results", "heartbeats", "request_counts"):
            assert f"TTL toDateTime(received_at) + INTERVAL {KEPT_DAYS} DAY" in create
