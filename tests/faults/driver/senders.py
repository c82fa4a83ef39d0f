"""What guests send in several rows: clocks that are wrong, records of the first schema, poison."""

import io
from dataclasses import asdict

from fastavro import schemaless_writer

from schemas.catalog import load_catalog
from schemas.codec import frame
from tests.faults.driver.poison import Poison, heartbeat
from tests.faults.driver.stand import Stand
from tests.integration.worker_process import now_ms, probe_result

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OFF_MS = (HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS, -400 * DAY_MS, 4_000, -4_000)
NO_TIMES = (0, -(1 << 62), 1 << 62, (1 << 63) - 1)


def send_wild(stand: Stand, step: int) -> None:
    """A result of each node whose clock steps back, is off, or says what cannot be."""
    now = now_ms()
    for number, ts in enumerate([now - step * 1_000, *(now + off for off in OFF_MS), *NO_TIMES]):
        service = stand.rng.choice(["login", "new"])
        stand.guests.send(probe_result(node_id=f"wild-{number}", seq=step, ts=ts, service=service))


def send_old(stand: Stand, seq: int) -> None:
    """A heartbeat of each of some nodes, written by the first schema."""
    first = load_catalog().topic("heartbeats").versions[0]
    for node in range(20):
        record, body = heartbeat(node_id=f"old-{node}", seq=seq), io.BytesIO()
        schemaless_writer(body, first.parsed, asdict(record))
        stand.guests.send(record, frame(first.id, body.getvalue()))


def send_poison(stand: Stand, poison: Poison, seq: int) -> None:
    """And a good neighbour of the same node behind it, in either topic."""
    stand.guests.poison(poison.topic, poison.key, poison.value, poison.why)
    stand.guests.send(probe_result(node_id="guest-1", seq=seq, service="login"))
    stand.guests.send(heartbeat(node_id="guest-1", seq=seq))
