"""An embedded store for the tests of one file, and what is in it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore


def small_store(folder: Path) -> EmbeddedStore:
    """In a new folder, with little memory."""
    return EmbeddedStore(folder / "store", memory_cap_bytes=1 << 30)


@contextmanager
def emptied(store: EmbeddedStore, tables: Iterable[str]) -> Iterator[Any]:
    """A client of the store, whose tables are up to date and some of them empty."""
    client = store.client()
    ddl.apply(client)
    for table in tables:
        client.command(f"TRUNCATE TABLE telemetry.{table}")
    yield client
    client.close()


def offsets(client: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - clickhouse-connect is not typed
    """Partition and offset of each heartbeat."""
    found = client.query("SELECT kafka_partition, kafka_offset FROM telemetry.heartbeats ORDER BY ALL")
    return [tuple(row) for row in found.result_rows]
