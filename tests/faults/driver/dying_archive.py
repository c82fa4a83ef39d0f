"""`fleetbeat archive` that kills itself at a chosen point, or lacks a rule; OPTIONS as in `parser`.

POINT is before-insert (the plan is written), half-insert (the first half of the rows arrived), after-insert (all did,
the answer is lost with the process), lost-answer (the answer is lost, the process lives), at-rename and after-rename
(of the part that the insert makes in `--part-of`). All that is wired here, in a composition root of its own: the
archive's code knows nothing of it.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from streams.archive import app
from streams.archive.app import Store, run_with
from streams.archive.embedded import EmbeddedStore
from streams.archive.lane import Limits
from streams.archive.options import ArchiveOptions
from streams.archive.plans import PlanStore
from streams.logs import configure_logs
from tests.clickhouse_server.shim import die_at_rename, take_over

MEMORY_BYTES = 3 << 30  # the oracle asks large questions, and each query gets an eighth
POINTS = ("never", "before-insert", "half-insert", "after-insert", "lost-answer", "at-rename", "after-rename")


class Dying:
    """A client whose process dies at one of its inserts."""

    inserts = 0  # of the whole process

    def __init__(self, client: Any, asked: argparse.Namespace, page: Path | None) -> None:  # noqa: ANN401
        self._client = client
        self._asked = asked
        self._page = page

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
        mine = table.split(" ", maxsplit=1)[0] == f"telemetry.{self._asked.table}"
        Dying.inserts += mine
        point = self._asked.point if mine and Dying.inserts == self._asked.nth else "never"
        if point == "before-insert":
            die()
        if point == "half-insert" and insert_block is not None:
            insert_block = first_half(insert_block)
        if point in {"at-rename", "after-rename"}:
            self._arm(after=point == "after-rename")
        done = self._client.raw_insert(table, column_names, insert_block=insert_block, settings=settings, fmt=fmt)
        if point == "lost-answer":
            raise OSError("the answer was lost")
        if point != "never":
            die()
        return done

    def _arm(self, *, after: bool) -> None:
        assert self._page is not None, "started without a shim"
        of = self._asked.part_of or self._asked.table
        uuid = self._client.command(f"SELECT uuid FROM system.tables WHERE database = 'telemetry' AND name = '{of}'")  # noqa: S608
        die_at_rename(self._page, str(uuid), after=after)


def first_half(stream: bytes) -> bytes:
    table = pa.ipc.open_stream(stream).read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.slice(0, table.num_rows // 2))
    return bytes(sink.getvalue())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_plans_out() -> None:
    """The control: what is already stored is only the group's to know."""
    PlanStore.write = lambda *_: None  # type: ignore[method-assign]
    PlanStore.last = lambda *_: {}  # type: ignore[method-assign]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser()
    for name in ("brokers", "group", "metrics"):
        found.add_argument(f"--{name}", required=True)
    found.add_argument("--store", type=Path)
    found.add_argument("--clickhouse")
    found.add_argument("--listen", default="127.0.0.1:0")
    found.add_argument("--held", type=int, default=200_000, help="records that a lane holds at most")
    found.add_argument("--answer-s", type=int, default=60, help="how long a server may take for an answer")
    found.add_argument("--planless", action="store_true")
    found.add_argument("--point", choices=POINTS, default="never")
    found.add_argument("--table", default="probe_results")
    found.add_argument("--part-of", help="the table whose part is renamed: a rollup of TABLE")
    found.add_argument("--nth", type=int, default=1, help="which insert into TABLE, from 1")
    return found


def main() -> int:
    configure_logs()
    asked = parser().parse_args()
    if asked.planless:
        leave_plans_out()
    options = ArchiveOptions(
        asked.brokers,
        clickhouse=asked.clickhouse,
        store=asked.store,
        listen=asked.listen,
        metrics=asked.metrics,
        group=asked.group,
        limits=Limits(enough_records=min(asked.held, 100_000), records=asked.held),
    )
    if asked.clickhouse is not None:
        app._ANSWER_S = asked.answer_s
        connect = app.server(asked.clickhouse)
        return run_with(options, Store(lambda: Dying(connect(), asked, None)))
    with EmbeddedStore(asked.store, memory_cap_bytes=MEMORY_BYTES) as store:
        page = take_over()
        return run_with(options, Store(lambda: Dying(store.client(), asked, page), store))


if __name__ == "__main__":
    sys.exit(main())
