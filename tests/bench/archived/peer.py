"""The same sink the usual way: aiokafka's records, each decoded with fastavro, and clickhouse-connect's columns."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.codec import decode
from schemas.event_time import FUTURE_LIMIT_MS, PAST_LIMIT_MS
from schemas.records import Heartbeat
from streams.archive import ddl
from streams.archive.embedded import EmbeddedStore
from streams.archive.plans import Plan, PlanStore, token

BATCH, BATCHES = 50_000, 4


def with_fastavro(brokers: str, folder: Path) -> float:
    """Rows a second, of one partition of heartbeats; plans and tokens are on."""
    return asyncio.run(_drain(brokers, folder))


async def _drain(brokers: str, folder: Path) -> float:
    place = TopicPartition("heartbeats", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([place])
        with EmbeddedStore(folder) as store:
            client = store.client()
            ddl.apply(client)
            end = (await consumer.end_offsets([place]))[place]
            stored, begun = 0, time.perf_counter()
            while stored < min(BATCH * BATCHES, end):
                records: list[Any] = []
                while len(records) < min(BATCH, end - stored):
                    polled = await consumer.getmany(place, timeout_ms=500, max_records=BATCH - len(records))
                    records += polled.get(place, [])
                _store(client, records)
                stored += len(records)
            return stored / (time.perf_counter() - begun)
    finally:
        await consumer.stop()


def _store(client: Any, records: list[Any]) -> None:  # noqa: ANN401 - clickhouse-connect is not typed
    """One batch, record by record."""
    times = [record.timestamp for record in records]
    plan = Plan("heartbeats", 0, records[0].offset, records[-1].offset, len(records), min(times), max(times))
    rows = [_row(record) for record in records]
    PlanStore(client).write([plan])
    client.insert(
        "telemetry.heartbeats",
        [[row[name] for row in rows] for name in rows[0]],
        list(rows[0]),
        column_oriented=True,
        settings={"insert_deduplication_token": token([plan])},
    )


def _row(record: Any) -> dict[str, Any]:  # noqa: ANN401 - aiokafka is not typed
    beat = decode(record.value)
    if not isinstance(beat, Heartbeat) or record.key != beat.node_id.encode():
        raise TypeError(f"{record.value!r} under {record.key!r}; expected a heartbeat of that node")
    row = asdict(beat)
    held = min(max(beat.ts, record.timestamp - PAST_LIMIT_MS), record.timestamp + FUTURE_LIMIT_MS)
    row |= {
        "ts": held,
        "reported_ts_ms": beat.ts if held != beat.ts else None,
        "boot_ts_ms": row.pop("boot_ts"),
        "labels": {label.key: label.value for label in beat.labels},
        "received_at": record.timestamp,
        "kafka_partition": record.partition,
        "kafka_offset": record.offset,
    }
    return row
