"""Who may write, on a server that several archives share: a claim a partition, which each insert carries with it.

An archive that was stopped, or a request that the network held back, may come when a successor has long gone on. So
each insert holds only if the claim it carries is still the last one of its partitions. The server finds that out after
it has listed the insert among its processes, and a successor claims first and then waits until none of them runs: so an
insert either is seen, or comes to nothing.
"""

import json
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from streams.archive.ddl import DATABASE

TABLE = f"{DATABASE}.archive_claims"
# No version: of two claims of the same term both stay, so that the last one is always the same.
CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} "
    "(topic LowCardinality(String), partition UInt16, term UInt64, claim String, "
    "claimed_at DateTime64(3, 'UTC') DEFAULT now64(3)) "
    "ENGINE = ReplacingMergeTree ORDER BY (topic, partition, term, claim)"
)


class ClaimLostError(RuntimeError):
    """Somebody else has claimed a partition since, so nobody knows what was written."""


class TableMismatchError(RuntimeError):
    """The table lacks a column."""


class Claims:
    """The claims of one archive on partitions of one topic. Methods raise what the client raises."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._held: dict[int, str] = {}
        self._columns: dict[str, dict[str, str]] = {}

    def take(self, client: Any, partitions: Collection[int]) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
        """Claims the partitions anew; whatever was sent under an earlier claim and has not begun comes to nothing."""
        client.command(CREATE)
        self._columns.clear()  # tables may have changed
        result = client.query(
            f"SELECT partition, max(term) FROM {TABLE} "  # noqa: S608 - our own names
            "WHERE topic = {topic:String} GROUP BY partition",
            parameters={"topic": self._topic},
        )
        terms, claim = dict(result.result_rows), uuid.uuid4().hex
        rows = [
            {"topic": self._topic, "partition": partition, "term": terms.get(partition, 0) + 1, "claim": claim}
            for partition in sorted(partitions)
        ]
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        client.raw_insert(TABLE, insert_block=body, fmt="JSONEachRow")
        self._held.update(dict.fromkeys(partitions, claim))

    def insert(  # noqa: PLR0913 - what an insert is made of
        self,
        client: Any,  # noqa: ANN401 - as above
        partitions: Collection[int],
        table: str,
        columns: Sequence[str],
        body: bytes,
        fmt: str,
        settings: dict[str, Any],
    ) -> None:
        """Inserts all rows or, when one of the partitions is somebody else's by now, none; `check` tells."""
        types = self._types(client, table)
        if lacking := [name for name in columns if name not in types]:
            raise TableMismatchError(f"{table} has no columns {', '.join(lacking)}; expected those of the migrations")
        structure = ", ".join(f"`{name}` {types[name]}" for name in columns).replace("\\", "\\\\").replace("'", "\\'")
        names = ", ".join(f"`{name}`" for name in columns)
        rows = f"SELECT {names} FROM input('{structure}') WHERE {self._holds(partitions)}"  # noqa: S608 - our own names
        into = f"{table} ({names}) {rows}"
        client.raw_insert(into, insert_block=body, settings=settings, fmt=fmt)

    def check(self, client: Any, partitions: Collection[int]) -> None:  # noqa: ANN401 - as above
        """Raises ClaimLostError unless every insert for the partitions so far was one that held."""
        if not int(client.command(f"SELECT {self._holds(partitions)}")):
            raise ClaimLostError(f"{self._topic}: somebody else has claimed a partition of {sorted(partitions)}")

    def _holds(self, partitions: Collection[int]) -> str:
        """The condition that all partitions are still claimed."""
        held = ", ".join(f"({partition}, '{self._held[partition]}')" for partition in sorted(partitions))
        return (
            "(SELECT count() FROM (SELECT partition, argMax(claim, (term, claim)) AS last "  # noqa: S608 - as above
            f"FROM {TABLE} WHERE topic = '{self._topic}' GROUP BY partition) "
            f"WHERE (partition, last) IN ({held})) = {len(partitions)}"
        )

    def _types(self, client: Any, table: str) -> dict[str, str]:  # noqa: ANN401 - as above
        if table not in self._columns:
            database, name = table.split(".")
            result = client.query(
                "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {name:String}",
                parameters={"database": database, "name": name},
            )
            self._columns[table] = dict(result.result_rows)
        return self._columns[table]
