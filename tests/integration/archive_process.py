"""The archive as a process of its own, which can kill itself at a chosen point: BROKERS STORE POINT NTH TABLE.

POINT is never, before-insert (the plan is written), after-insert (the answer is lost, nothing committed) or
half-insert (the first half of the rows arrived); NTH counts inserts into TABLE from 1. With `unverified` the last plans
are not looked at. All that is wired here, in a composition root of its own: the archive's code knows nothing of it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from streams.archive.app import ArchiveOptions, Store, run_with
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest
from streams.logs import configure_logs


class Dying:
    """A client whose process dies at one of its inserts."""

    inserts = 0  # of the whole process

    def __init__(self, client: Any, point: str, nth: int, table: str) -> None:  # noqa: ANN401
        self._client = client
        self._point = point
        self._nth = nth
        self._table = f"telemetry.{table}"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._client, name)

    def raw_insert(
        self,
        table: str,
        column_names: Sequence[str] | None = None,
        insert_block: bytes | None = None,
        settings: dict[str, Any] | None = None,
        fmt: str | None = None,
    ) -> Any:  # noqa: ANN401
        mine = table == self._table
        Dying.inserts += mine
        dies = mine and Dying.inserts == self._nth
        if dies and self._point == "before-insert":
            die()
        if dies and self._point == "half-insert" and insert_block is not None:
            insert_block = first_half(insert_block)
        done = self._client.raw_insert(table, column_names, insert_block=insert_block, settings=settings, fmt=fmt)
        if dies:
            die()
        return done


def first_half(stream: bytes) -> bytes:
    table = pa.ipc.open_stream(stream).read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.slice(0, table.num_rows // 2))
    return bytes(sink.getvalue())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(brokers: str, folder: str, point: str, nth: str, table: str) -> int:
    configure_logs()
    if point == "unverified":
        Ingest.verify = lambda *_: {}  # type: ignore[method-assign]
    options = ArchiveOptions(brokers, store=Path(folder), listen="127.0.0.1:0", metrics="127.0.0.1:0", ready_lag=1_000)
    with EmbeddedStore(Path(folder), memory_cap_bytes=2 << 30) as store:
        return run_with(options, Store(lambda: Dying(store.client(), point, int(nth), table), store))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
