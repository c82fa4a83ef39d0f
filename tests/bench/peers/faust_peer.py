"""Plain Faust: its hopping table of 60 s every 10 s for each (service, endpoint), as its manual shows it.

A program started by `tests/bench/peers.py`. Arguments: brokers, application id, schema file, state folder, progress
file, bounds file, partitions. How many events are in their windows is written to the progress file every 0.1 s, as
`monotonic-ns count`. SIGTERM ends it in good order.
"""

import asyncio
import io
import json
import sys
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import fastavro
import faust
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.types import EventT, StreamT

SIZE_S, STEP_S = 60, 10
EXPIRES_S = 86_400  # nobody shall drop an event or a window
FRAME_BYTES = 5
ROOM = 8
BROKERS, APP_ID, SCHEMA, STATE, PROGRESS, BOUNDS, PARTITIONS = sys.argv[1:8]

schema = fastavro.parse_schema(json.loads(Path(SCHEMA).read_text()))
bounds = json.loads(Path(BOUNDS).read_text())
events = 0

app = faust.App(
    APP_ID,
    broker=f"kafka://{BROKERS}",
    datadir=STATE,
    store="memory://",
    topic_partitions=int(PARTITIONS),
    topic_replication_factor=1,
    web_enabled=False,
    broker_max_poll_records=2_000,
    producer_compression_type="lz4",
    producer_linger=0.02,
)
source = app.topic("probe-results", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
pairs = app.topic(f"{APP_ID}-pairs", key_type=str, partitions=int(PARTITIONS), value_serializer="json", internal=True)


def event_time_s(event: EventT[Any] | None) -> float:
    return float(event.value[0]) / 1_000 if event is not None else time.time()


windows = (
    app.Table("windows", default=list, partitions=int(PARTITIONS))
    .hopping(SIZE_S, STEP_S, expires=EXPIRES_S)
    .relative_to(event_time_s)  # type: ignore[attr-defined]  # it is there
)


def add(old: list[int], measure: list[int]) -> list[int]:
    """[total, good, sum_us, first bucket, a count for each bucket from there on]."""
    _, good, latency_us = measure
    bucket = bisect_left(bounds, latency_us)
    if not old:
        return [1, good, latency_us, bucket, 1]
    low, counts = old[3], old[4:]
    if bucket < low:
        more = min(low - bucket + ROOM, low)
        counts = [0] * more + counts
        low -= more
    elif bucket - low >= len(counts):
        counts += [0] * (bucket - low - len(counts) + 1)
    counts[bucket - low] += 1
    return [old[0] + 1, old[1] + good, old[2] + latency_us, low, *counts]


@app.agent(source)
async def rekey(results: StreamT[bytes]) -> None:
    """Every pair to its partition; `group_by` would send the whole record."""
    async for value in results:
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
        ts_ms = round(record["ts"].timestamp() * 1_000)
        measure = [ts_ms, int(record["success"]), record["latency_us"]]
        await pairs.send(key=f"{record['service']}\t{record['endpoint']}", value=measure)


@app.agent(pairs)
async def count(measures: StreamT[list[int]]) -> None:
    """Every event into its windows."""
    global events  # noqa: PLW0603 - one thread counts, the other one reads
    async for pair, measure in measures.items():
        windows[pair].apply(add, measure)
        events += 1


async def create_topic() -> None:
    """Faust goes on without a topic of its own that is not in the metadata yet, and then never reads it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKERS)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"{APP_ID}-pairs", int(PARTITIONS), 1)])
        while f"{APP_ID}-pairs" not in await admin.list_topics():  # noqa: ASYNC110 - the broker sends no event for it
            await asyncio.sleep(0.1)
    finally:
        await admin.close()


def tell() -> None:
    with Path(PROGRESS).open("w", buffering=1) as out:
        while True:
            out.write(f"{time.monotonic_ns()} {events}\n")
            time.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(create_topic())
    threading.Thread(target=tell, daemon=True).start()
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()
