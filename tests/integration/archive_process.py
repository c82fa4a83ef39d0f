"""The archive as a process of its own, which can kill itself at a chosen point: BROKERS STORE POINT NTH TABLE.

POINT is never, before-insert (the plan is written), after-insert (the answer is lost, nothing committed) or
half-insert (the first half of the rows arrived); NTH counts inserts into TABLE from 1. With `unverified` the last plans
are not looked at. All that is wired here, in a composition root of its own: the archive's code knows nothing of it.
"""

import argparse
import sys
from pathlib import Path

from streams.archive.app import Store, run_with
from streams.archive.embedded import EmbeddedStore
from streams.archive.ingest import Ingest
from streams.archive.options import ArchiveOptions
from streams.logs import configure_logs
from tests.faults.driver.dying_archive import Dying


def main(brokers: str, folder: str, point: str, nth: str, table: str) -> int:
    configure_logs()
    if point == "unverified":
        Ingest.verify = lambda *_: {}  # type: ignore[method-assign]
    asked = argparse.Namespace(table=table, part_of=None, point=point, nth=int(nth))
    options = ArchiveOptions(brokers, store=Path(folder), listen="127.0.0.1:0", metrics="127.0.0.1:0", ready_lag=1_000)
    with EmbeddedStore(Path(folder), memory_cap_bytes=2 << 30) as store:
        return run_with(options, Store(lambda: Dying(store.client(), asked, None), store))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
