"""A store with a small table and its gateway, as a process of its own: FOLDER, then commands on stdin.

Prints one JSON line: its address. `insert` starts a thread that inserts at full speed through clickhouse-connect,
`stop` ends it and prints how many rows it was told are stored. `migrate` makes the archive's tables, `run` and a
statement as a JSON string runs it as the owner, `memory` prints its resident bytes, `metrics` what Prometheus reads.
The end of stdin ends the process.
"""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, generate_latest

from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore, leave
from streams.archive.gateway import Gateway
from streams.archive.sql_limits import Limits
from streams.archive.sql_users import Users
from streams.logs import configure_logs

ROWS = 50_000
TABLE = """
CREATE TABLE samples (
    ts DateTime64(3, 'UTC'), host LowCardinality(String), latency_us UInt32, id UUID, labels Map(String, String),
    maybe Nullable(UInt16)
) ENGINE = MergeTree ORDER BY (host, ts)
"""
FILL = f"""
INSERT INTO samples SELECT
    toDateTime64('2026-01-01', 3, 'UTC') + number, 'h' || toString(number % 5), number, generateUUIDv4(),
    map('k', toString(number % 3)), if(number % 2 = 0, NULL, number % 100)
FROM numbers({ROWS})
"""  # noqa: S608 - a number of ours


class Inserter(threading.Thread):
    def __init__(self, store: EmbeddedStore) -> None:
        super().__init__()
        self._store = store
        self.stopping = threading.Event()
        self.rows = 0

    def run(self) -> None:
        client = self._store.client()
        block = b"".join(b"%d\tnode-%d\n" % (n, n % 100) for n in range(5_000))
        while not self.stopping.is_set():
            client.raw_insert("inserted", ["n", "node"], block, fmt="TabSeparated")
            self.rows += 5_000
        client.close()


async def serve(store: EmbeddedStore, limits: Limits, users: Users | None) -> None:
    gateway = Gateway(store, listen="127.0.0.1:0", limits=limits, users=users)
    say(await gateway.start())
    inserter = None
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "insert":
            inserter = Inserter(store)
            inserter.start()
            say("inserting")
        elif line == "stop" and inserter is not None:
            inserter.stopping.set()
            await asyncio.to_thread(inserter.join)
            say(inserter.rows)
        elif line == "migrate":
            client = store.client()
            say(ddl.apply(client))
            client.close()
        elif line == "memory":
            say(resident_bytes())
        elif line == "metrics":
            say(generate_latest(REGISTRY).decode())
        elif line.startswith("run "):
            with store.handle() as handle:
                handle.query(json.loads(line.removeprefix("run ")))
            say("done")
    await gateway.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(value: Any) -> None:  # noqa: ANN401 - anything JSON
    print(json.dumps(value), flush=True)


def main() -> None:
    configure_logs()
    given = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    file = given.pop("users", None)
    limits = Limits(**given)
    users = Users(Path(file), limits) if file else None
    with EmbeddedStore(Path(sys.argv[1])) as store:
        client = store.client()
        if not int(client.command("EXISTS TABLE samples")):
            client.command(TABLE)
            client.command(FILL)
            client.command("CREATE TABLE inserted (n UInt32, node String) ENGINE = MergeTree ORDER BY n")
        asyncio.run(serve(store, limits, users))
    leave(store, 0)


if __name__ == "__main__":
    main()
