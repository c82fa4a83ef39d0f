"""A large spool: its start reads little of it, and sending it holds little of it in memory."""

import random
import tracemalloc
from pathlib import Path

import pytest

from agents.spool.journal import Stamp
from agents.spool.lane import SpoolLane, SpoolLimits
from agents.spool.layout import Era
from agents.spool.segments import Segment, Segments
from agents.spool.store import Store

ERA = Era(b"e" * 16, 1_000, 0)
MIB = 1 << 20
PAYLOAD = b"x" * 8_000
BATCH_BYTES = MIB // 4
SPOOLED_BYTES = 66 * MIB


def opened(folder: Path) -> SpoolLane:
    store = Store(folder, 128 * MIB, ERA)
    store.open()
    limits = SpoolLimits(128 * MIB, 3_600, "drop_oldest", 10, memory_records=3)
    return SpoolLane(store, limits, random.Random(1))


def send_all(lane: SpoolLane) -> int:
    """Bytes that went, in batches as the publisher makes them."""
    sent = 0
    while lane.waiting:
        size = 0

        def accepts(value: bytes) -> bool:
            nonlocal size
            if size + len(value) > BATCH_BYTES:
                return False
            size += len(value)
            return True

        lane.hand_over(accepts)
        lane.fly(Stamp(1, 0, 0, sent))
        lane.acknowledge()
        sent += size
    return sent


def test_a_start_with_66_mib_reads_two_segments_and_sending_them_holds_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path)
    records = SPOOLED_BYTES // len(PAYLOAD)
    for number in range(records):
        assert first.offer(PAYLOAD, float(number)) is None
    first.close()
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.segment"))
    assert on_disk >= SPOOLED_BYTES

    read = 0
    usual = Segments._read

    def counted(self: Segments, segment: Segment, offset: int, most: int | None = None) -> bytes:
        nonlocal read
        data = usual(self, segment, offset, most)
        read += len(data)
        return data

    monkeypatch.setattr(Segments, "_read", counted)
    tracemalloc.start()
    try:
        again = opened(tmp_path)
        assert (len(again), again.oldest_s()) == (records, 0.0)
        assert read <= 2 * MIB, "the last segment for its end, the first one for its oldest record"
        at_start = tracemalloc.get_traced_memory()[1]
        sent = send_all(again)
        at_end = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent == records * len(PAYLOAD)
    assert len(again) == 0
    assert at_start <= 3 * MIB
    assert at_end <= 3 * MIB
    assert read <= 2 * MIB + on_disk + 66 * 1_000, "each segment once, and headers"
    assert sum(path.stat().st_size for path in tmp_path.glob("*.segment")) <= MIB, "what was sent is gone"
    again.close()
