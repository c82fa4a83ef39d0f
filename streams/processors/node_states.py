"""What is announced of nodes and zones in `node-states`: changes as records."""

import io
from collections.abc import Iterator

import polars as pl
from fastavro import schemaless_writer

from schemas.catalog import load_catalog
from schemas.codec import encode, frame
from schemas.records import NodeState
from streams.core.liveness.zones import ZoneChange

TOPIC = "node-states"


def node_records(changes: pl.DataFrame, partition: int, applied_offset: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, framed value) of each change, as CHANGES of streams.core.liveness."""
    version = load_catalog().topic(TOPIC).latest
    rows = changes.rename({"node_id": "subject", "since_ms": "since", "last_seen_ms": "last_seen"}).with_columns(
        kind=pl.lit("NODE"), nodes=1, nodes_known=1, partition=partition, applied_offset=applied_offset
    )
    # Straight to fastavro: a dataclass for each of two million nodes costs as much again.
    for fields in rows.iter_rows(named=True):
        out = io.BytesIO()
        schemaless_writer(out, version.parsed, fields)
        yield fields["subject"].encode(), frame(version.id, out.getvalue())


def zone_record(change: ZoneChange, partition: int, applied_offset: int) -> tuple[bytes, bytes]:
    """(key, framed value) of a zone's new state."""
    region, zone = change.zone
    subject = f"zone:{region}/{zone}"
    record = NodeState(
        subject=subject,
        kind="ZONE",
        state=change.state,
        previous=change.previous,
        reason=change.reason,
        since=change.since_ms,
        last_seen=change.last_seen_ms,
        region=region,
        zone=zone,
        boot_ts=0,
        interval_ms=0,
        nodes=change.missing,
        nodes_known=change.expected,
        partition=partition,
        applied_offset=applied_offset,
    )
    return subject.encode(), encode(record)
