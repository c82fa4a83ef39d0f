"""Quix Streams: windows of 60 s every 10 s for each (service, endpoint), in RocksDB with a changelog.

A program of its own environment, started by `tests/bench/peers.py`. Arguments: brokers, group, schema file, state
folder, progress file, bounds file. How many events are in their windows is written to the progress file every 0.1 s, as
`monotonic-ns count`. SIGTERM ends it in good order: with a last checkpoint.
"""

import io
import json
import sys
import threading
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import fastavro
from quixstreams import Application  # type: ignore[import-not-found]  # it is in an environment of its own
from quixstreams.dataframe.windows.aggregations import Aggregator  # type: ignore[import-not-found]

SIZE_MS, STEP_MS = 60_000, 10_000
GRACE_MS = 3_600_000  # partitions of a backlog are read unevenly; nobody shall drop an event for that
FRAME_BYTES = 5
ROOM = 8
BROKERS, GROUP, SCHEMA, STATE, PROGRESS, BOUNDS = sys.argv[1:7]

schema = fastavro.parse_schema(json.loads(Path(SCHEMA).read_text()))
bounds = json.loads(Path(BOUNDS).read_text())
events = 0


class Counts(Aggregator):  # type: ignore[misc]  # nor are its types here
    """[total, good, sum_us, first bucket, a count for each bucket from there on]: Quix keeps it as JSON."""

    def initialize(self) -> list[int]:
        return []

    def agg(self, old: list[int], new: list[int], timestamp: int) -> list[int]:  # noqa: ARG002 - Quix names it
        good, latency_us = new[1], new[2]
        bucket = bisect_left(bounds, latency_us)
        if not old:
            return [1, good, latency_us, bucket, 1]
        place = bucket - old[3] + 4
        if place < 4:
            more = min(4 - place + ROOM, old[3])
            old[4:4] = [0] * more
            old[3] -= more
            place += more
        elif place >= len(old):
            old += [0] * (place - len(old) + 1)
        old[0] += 1
        old[1] += good
        old[2] += latency_us
        old[place] += 1
        return old

    def result(self, value: list[int]) -> list[int]:
        return value


def measure(value: bytes) -> dict[str, Any]:
    record: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
    ts_ms = round(record["ts"].timestamp() * 1_000)
    pair = f"{record['service']}\t{record['endpoint']}"
    return {"pair": pair, "measure": [ts_ms, int(record["success"]), record["latency_us"]]}


def count(_: list[int]) -> None:
    global events  # noqa: PLW0603 - one thread counts, the other one reads
    events += 1


def tell() -> None:
    with Path(PROGRESS).open("w", buffering=1) as out:
        while True:
            out.write(f"{time.monotonic_ns()} {events}\n")
            time.sleep(0.1)


app = Application(
    broker_address=BROKERS,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    state_dir=STATE,
    loglevel="WARNING",
    producer_extra_config={"linger.ms": 20, "compression.type": "lz4"},
)
source = app.topic("probe-results", key_deserializer="bytes", value_deserializer="bytes")
pairs = app.dataframe(source).apply(measure).group_by("pair", key_serializer="str", key_deserializer="bytes")
pairs = pairs.apply(lambda value: value["measure"])
# The repartition topic has the broker's clock; the time of the event is in the value.
pairs = pairs.set_timestamp(lambda value, *_: value[0]).update(count)
pairs = pairs.hopping_window(SIZE_MS, STEP_MS, GRACE_MS, name="windows").agg(counts=Counts()).final("partition")

threading.Thread(target=tell, daemon=True).start()
app.run()
