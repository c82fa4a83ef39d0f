"""What the agent signs, when it signs anew, and whose clock it goes by."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from agents import signing
from agents.kafka import KafkaOptions, KafkaPublisher
from agents.lane import Lane, MemoryLane
from agents.publish import RESULTS
from agents.signing import Signer
from schemas.codec import encode
from schemas.signatures import HEADER, SigningKey, head, node_key, parse_head, sign
from schemas.signing_files import NodeKey
from schemas.traces import HEADER as TRACE
from tests.unit.agent_fakes import NOW_MS, ManualClock
from tests.unit.signed_records import MASTER, PROBE
from tests.unit.test_spool_lane import lane as spool_lane

KEY = node_key(MASTER, "n")
VALUE = encode(PROBE)


def signer(clock: ManualClock) -> Signer:
    return Signer(NodeKey("n", 3, KEY), clock)


def test_a_record_is_signed_for_its_topic_with_the_time_it_is_sent() -> None:
    clock = ManualClock()
    clock.now_s = 5.0
    ((name, made),) = signer(clock).begin(RESULTS).headers(VALUE)
    assert name == HEADER
    assert made == sign(SigningKey(KEY), head(3, NOW_MS + 5_000), RESULTS, VALUE)


def test_what_is_no_record_goes_unsigned_and_stops_nobody() -> None:
    assert signer(ManualClock()).begin(RESULTS).headers(b"\0\0\0\0\x63") == []


@pytest.mark.parametrize(
    ("off_ms", "took_s", "learned_ms"),
    [
        (4_900, 0.1, 0),
        (90_000, 0.1, 90_000),
        (-3_600_000, 0.1, -3_600_000),
        (90_000, 5.1, 0),  # it may have been written at any time since
    ],
)
def test_the_broker_says_what_time_it_is(off_ms: int, took_s: float, learned_ms: int) -> None:
    clock = ManualClock()
    one = signer(clock)
    batch = one.begin(RESULTS)
    clock.now_s += took_s
    batch.heard(NOW_MS + off_ms)
    clock.now_s = 0.0
    assert one.begin(RESULTS).signed_ms == NOW_MS + learned_ms
    one.begin(RESULTS).heard(-1)  # of a topic without append times
    assert one.begin(RESULTS).signed_ms == NOW_MS + learned_ms


class Broker:
    """Producers that keep what they are given; only those after the first get an acknowledgement."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, int, bytes]] = []

    def producer(self, *_: object) -> Any:  # noqa: ANN401 - as much of aiokafka's as the publisher uses
        numbers = SimpleNamespace(
            producer_id=7,
            producer_epoch=0,
            sequence_number=lambda _: 0,
            set_pid_and_epoch=lambda pid, epoch: self.sent.append((("resumed", pid, epoch), 0, b"")),
            increment_sequence_number=lambda *_: None,
        )

        async def partitions_for(_: str) -> set[int]:
            return {0}

        async def send_batch(batch: BatchBuilder, _: str, *, partition: int) -> asyncio.Future[Any]:
            self.sent.append(("batch", partition, bytes(batch._build())))
            ack = asyncio.get_running_loop().create_future()
            if len(self.sent) > 1:
                ack.set_result(SimpleNamespace(timestamp=-1))
            return ack

        async def nothing() -> None:
            pass

        return SimpleNamespace(
            _txn_manager=numbers,
            partitions_for=partitions_for,
            create_batch=lambda: BatchBuilder(1 << 18, 0),
            send_batch=send_batch,
            start=nothing,
            stop=nothing,
        )


def sent_in_half_a_second(
    monkeypatch: pytest.MonkeyPatch,
    lane: Lane,
    clock: ManualClock,
    make: Callable[[ManualClock], Signer | None] = signer,
    value: bytes = VALUE,
) -> list[tuple[Any, int, bytes]]:
    broker = Broker()
    monkeypatch.setattr(signing, "SIGN_ANEW_AFTER_S", 0.1)
    monkeypatch.setattr(KafkaPublisher, "_producer", broker.producer)

    async def run() -> None:
        own = KafkaPublisher(KafkaOptions("b:1", "lz4"), "n", {RESULTS: lane}, clock, random.Random(1), make(clock))
        own.offer(RESULTS, value)
        task = asyncio.create_task(own.run())
        for _ in range(50):
            await clock.advance(0.5)
            await asyncio.sleep(0.01)
        if task.done():
            task.result()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    return broker.sent


def signed_at(batch: bytes) -> int:
    (record,) = DefaultRecordBatch(batch)
    ((name, made),) = record.headers
    assert (name, record.key, record.value) == (HEADER, b"n", VALUE)
    parsed = parse_head(made)
    assert parsed is not None
    return parsed[1]


def test_what_is_not_acknowledged_in_time_is_signed_anew_and_sent_under_its_old_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, resumed, second = sent_in_half_a_second(monkeypatch, spool_lane(tmp_path), ManualClock())
    assert resumed[0] == ("resumed", 7, 0)
    assert signed_at(second[2]) > signed_at(first[2])


def test_without_a_key_nothing_is_signed_and_a_batch_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (only,) = sent_in_half_a_second(monkeypatch, spool_lane(tmp_path), ManualClock(), lambda _: None)
    (record,) = DefaultRecordBatch(only[2])
    assert not record.headers


def test_a_traced_record_has_its_trace_ahead_of_a_signature_that_is_what_it_would_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    value = encode(replace(PROBE, trace_id="ab" * 16))
    for make, expected in ((lambda _: None, []), (signer, [HEADER])):
        folder = tmp_path / str(len(expected))
        folder.mkdir()
        first, *_ = sent_in_half_a_second(monkeypatch, spool_lane(folder), ManualClock(), make, value)
        (record,) = DefaultRecordBatch(first[2])
        assert [name for name, _ in record.headers] == [TRACE, *expected]
        assert record.headers[0] == (TRACE, f"00-{'ab' * 16}-{'ab' * 8}-01".encode())
        for _, made in record.headers[1:]:
            parsed = parse_head(made)
            assert parsed is not None
            assert made == sign(SigningKey(KEY), head(3, parsed[1]), RESULTS, value)


def test_what_is_in_memory_alone_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could say whether Kafka has it: it would be there twice."""
    assert len(sent_in_half_a_second(monkeypatch, MemoryLane(9, 1_000), ManualClock())) == 1
