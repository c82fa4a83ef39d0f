"""What the numbered files make, as read from their text, and how a store differs from it."""

import pytest

from streams.archive.schema import SchemaError, differences, expected_columns, refuse_different, refuse_newer, views

Rows = list[tuple[object, ...]]


class Store:
    """A client of a store that holds these columns, and a history of migrations."""

    def __init__(self, columns: list[tuple[str, str, str]], history: list[tuple[int, str]]) -> None:
        self._answers: dict[str, Rows] = {"system.columns": list(columns), "archive_migrations": list(history)}
        self.result_rows: Rows = []

    def query(self, sql: str) -> "Store":
        self.result_rows = next(rows for name, rows in self._answers.items() if name in sql)
        return self


def as_made() -> list[tuple[str, str, str]]:
    tables = expected_columns()
    found = [(table, name, kind) for table, columns in tables.items() for name, kind in columns.items()]
    return found + [(view.name, name, kind) for view in views().values() for name, kind in tables[view.to].items()]


def test_a_store_as_the_files_make_it_is_good() -> None:
    refuse_different(Store(as_made(), []))
    refuse_newer(Store([], []))
    refuse_newer(Store([], [(2, "0002_probe_results.sql")]))


def test_columns_that_are_added_later_are_expected_too() -> None:
    assert expected_columns()["heartbeats"]["heartbeat_seq"] == "Nullable(Int64)"
    assert expected_columns()["probe_1m"]["latency"] == "AggregateFunction(quantilesBFloat16(0.5, 0.9, 0.99), UInt64)"


def test_differences_name_column_found_type_and_expected_type() -> None:
    there = [
        (table, name, "String" if (table, name) == ("heartbeats", "seq") else kind)
        for table, name, kind in as_made()
        if (table, name) != ("probe_results", "trace_id") and table != "probe_1h_view"
    ]
    with pytest.raises(SchemaError) as refused:
        refuse_different(Store(there, []))
    assert str(refused.value) == (
        "telemetry: not as infra/clickhouse makes it: "
        "probe_results.trace_id: no such column; expected Nullable(String); "
        "heartbeats.seq: found String; expected Int64; probe_1h_view: no such view; it fills probe_1h. "
        "Put the columns right by ALTER TABLE, or give the archive another store"
    )


def test_a_missing_table_is_named_and_further_columns_are_nobodys_business() -> None:
    expected = {"a": {"x": "Int64"}, "b": {"y": "String"}}
    assert list(differences(expected, {"a": {"x": "Int64", "mine": "Int8"}, "c": {}})) == ["b: no such table"]


def test_a_store_of_a_newer_version_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"the store is of schema 99 \(0099_later\.sql\); this fleetbeat knows"):
        refuse_newer(Store([], [(99, "0099_later.sql")]))
