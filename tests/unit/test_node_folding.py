"""Heartbeats as the broker's own batches: the same tables and dead letters as record by record."""

import io
from dataclasses import asdict, replace
from typing import TypeAlias
from unittest.mock import patch

from aiokafka.structs import ConsumerRecord
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import load_catalog
from schemas.codec import encode, frame
from schemas.records import Heartbeat
from streams import pieces
from streams.core.liveness.admission import Limits
from streams.core.liveness.table import NodeTable
from streams.engine.transport import Poll, RawPoll
from streams.processors.dead_letters import Letters
from streams.processors.node_clock import BrokerClock
from streams.processors.node_folding import NodeFolder
from streams.processors.node_parts import Part
from tests.unit.liveness_world import rows_of
from tests.unit.raw_batches import raw_batches

BEGIN_MS = 1_767_225_600_000
GOOD = Heartbeat("n", BEGIN_MS, "b", BEGIN_MS - 9, 0, 5_000, "UP", "eu-1", "eu-1a", "1", labels=(), heartbeat_seq=3)
Record: TypeAlias = ConsumerRecord[bytes, bytes]


def first_version(beat: Heartbeat) -> bytes:
    """As a node sends it that does not count its heartbeats."""
    version = load_catalog().topic("heartbeats").versions[0]
    out = io.BytesIO()
    schemaless_writer(out, version.parsed, asdict(beat))
    return frame(version.id, out.getvalue())


def beats() -> st.SearchStrategy[Heartbeat]:
    return st.builds(
        lambda node, seq, state, health, count: replace(
            GOOD, node_id=node, seq=seq, state=state, health=health, heartbeat_seq=count
        ),
        st.sampled_from(["n", "m", "日本"]),
        st.integers(0, 40),
        st.sampled_from(["UP", "DRAINING", "GOODBYE"]),
        st.none() | st.integers(0, 100),
        st.none() | st.integers(0, 40),
    )


VALUES = st.one_of(
    beats().map(lambda beat: (beat.node_id.encode(), encode(beat))),
    beats().map(lambda beat: (beat.node_id.encode(), first_version(beat))),
    beats().map(lambda beat: (b"other", encode(beat))),
    beats().map(lambda beat: (beat.node_id.encode(), encode(beat)[:-3])),
    st.just((b"n", None)),
)
# Of each record: what it says, its partition, and how much later than the one before it came.
LOGS = st.lists(st.tuples(VALUES, st.integers(0, 1), st.sampled_from([0, 0, 0, 400])), max_size=40)


def records_of(log: list[tuple[tuple[bytes, bytes | None], int, int]]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {0: [], 1: []}
    now_ms = BEGIN_MS
    for (key, value), partition, later_ms in log:
        now_ms += later_ms
        place, sizes = found[partition], (len(key), -1 if value is None else len(value))
        place.append(ConsumerRecord("heartbeats", partition, len(place), now_ms, 1, key, value, None, *sizes, ()))
    return found


def folded(polls: list[Poll | RawPoll]) -> tuple[list[dict[str, dict[str, object]]], Letters, list[int]]:
    parts = {
        number: Part(number, Limits(9, 9), NodeTable(Limits(9, 9), 1), BrokerClock(), 0, "owner") for number in (0, 1)
    }
    folder = NodeFolder()
    for poll in polls:
        waiting = [poll]
        while waiting:
            waiting = folder.fold(parts, waiting)
    return (
        [rows_of(part.table) for part in parts.values()],
        folder.take_letters(),
        [part.read_to for part in parts.values()],
    )


@settings(deadline=None, max_examples=25)
@given(
    LOGS,
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.booleans()), max_size=20),
    st.sampled_from([1, 1, 3, 8]),
    st.sampled_from([1, 2_000, 1 << 28]),
)
def test_batches_and_records_make_the_same_tables(
    log: list[tuple[tuple[bytes, bytes | None], int, int]], cuts: list[tuple[int, int, bool]], worth_it: int, room: int
) -> None:
    """`cuts`: the partition of each poll, its records, and whether it comes as batches."""
    records = records_of(log)
    mixed, plain, at = list[Poll | RawPoll](), list[Poll | RawPoll](), {0: 0, 1: 0}
    for partition, count, raw in [*cuts, (0, 99, True), (1, 99, True)]:
        begin = at[partition]
        some = records[partition][begin : begin + count]
        if some:
            at[partition] += len(some)
            mixed.append(RawPoll(raw_batches(some), begin) if raw else Poll(some, begin))
            plain.append(Poll(some, begin))
    with patch.object(pieces, "WORTH_IT", worth_it), patch.object(pieces.Room.__init__, "__defaults__", (room,)):
        assert folded(mixed) == folded(plain)


def test_polls_of_partitions_that_were_lost_are_left_to_their_new_owner() -> None:
    records = records_of([((b"n", encode(GOOD)), 1, 0)])
    part = Part(0, Limits(9, 9), NodeTable(Limits(9, 9), 1), BrokerClock(), 0, "owner")
    NodeFolder().fold({0: part}, [RawPoll(raw_batches(records[1]), 0)])
    assert part.table.nodes == 0
