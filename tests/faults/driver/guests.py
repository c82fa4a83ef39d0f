"""Senders beside the simulated fleet, with a ledger of their own: canaries, wild clocks, old schemas, poison."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from infra.oracle.guest import joined
from infra.oracle.ledger import Ledger, Names, Results
from schemas.codec import encode
from schemas.event_time import FUTURE_LIMIT_MS, PAST_LIMIT_MS
from schemas.records import Heartbeat, ProbeResult

TOPICS = {ProbeResult: "probe-results", Heartbeat: "heartbeats"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A record where the broker has it; `record` is None for poison, `why` is then the reason it is refused for."""

    record: ProbeResult | Heartbeat | None
    why: str | None
    topic: str
    partition: int
    offset: int
    append_ms: int


class Guests:
    """An idempotent producer; what it sent is known once `flush` has returned."""

    def __init__(self, brokers: str) -> None:
        self.sent: list[Sent] = []
        self.asked = 0
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 2,
            "compression.type": "zstd",
            "partitioner": "murmur2_random",
            "message.max.bytes": 100_000_000,  # of uncompressed poison
            "delivery.timeout.ms": 180_000,
            "log_level": 0,  # brokers that go away are the point here
        }
        self._producer = Producer(settings)

    def send(self, record: ProbeResult | Heartbeat, value: bytes | None = None) -> None:
        """`value` is the record written in another way than by the latest schema."""
        topic = TOPICS[type(record)]
        self._produce(topic, record.node_id.encode(), encode(record) if value is None else value, record, None)

    def poison(self, topic: str, key: bytes | None, value: bytes | None, why: str) -> None:
        self._produce(topic, key, value, None, why)

    def flush(self) -> None:
        """Raises AssertionError when something was not acknowledged."""
        left = self._producer.flush(120)
        assert left == 0 and len(self.sent) == self.asked, f"{self.asked - len(self.sent)} were not acknowledged"  # noqa: PT018

    def join(self, ledger: Ledger) -> Ledger:
        """A ledger with what was sent here, too."""
        return join(ledger, self.sent)

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        record: ProbeResult | Heartbeat | None,
        why: str | None,
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            append_ms = message.timestamp()[1]
            self.sent.append(Sent(record, why, topic, message.partition() or 0, message.offset() or 0, append_ms))

        self.asked += 1
        self._producer.produce(topic, key=key, value=value, on_delivery=delivered)
        self._producer.poll(0)


def join(ledger: Ledger, sent: Iterable[Sent]) -> Ledger:
    """A ledger with these, too."""
    sent = list(sent)
    records = [each.record for each in sent]
    return replace(
        ledger,
        heartbeat_ids=ledger.heartbeat_ids | _ids(r for r in records if isinstance(r, Heartbeat)),
        result_ids=ledger.result_ids | _ids(r for r in records if isinstance(r, ProbeResult)),
        results=joined(ledger.results, _results(sent)),
    )


def _results(sent: Iterable[Sent]) -> Results:
    """The probe results, with the time that counts."""
    found = [(each.record, each.append_ms) for each in sent if isinstance(each.record, ProbeResult)]
    columns = ("service", "endpoint", "region", "kind")
    named = [_names([getattr(record, column) for record, _ in found]) for column in columns]
    return Results(
        np.array([held(record.ts, append_ms) for record, append_ms in found], np.int64),
        np.array([record.latency_us for record, _ in found], np.int64),
        np.array([record.success for record, _ in found], np.bool_),
        *named,
    )


def held(ts: int, append_ms: int) -> int:
    """The time that counts of an event that says `ts`."""
    return min(max(ts, append_ms - PAST_LIMIT_MS), append_ms + FUTURE_LIMIT_MS)


def _ids(records: Iterable[ProbeResult | Heartbeat]) -> frozenset[bytes]:
    return frozenset(f"{r.node_id}\t{r.boot_id}\t{r.seq}".encode() for r in records)


def _names(column: list[str]) -> Names:
    values = tuple(sorted(set(column)))
    return Names(np.array([values.index(name) for name in column], np.int64), values)
