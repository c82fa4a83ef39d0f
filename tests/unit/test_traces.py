"""The trace of a record in its header: from its bytes alone, and only for probe results that have one."""

from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given, settings

from schemas.blocks import Reject
from schemas.codec import encode
from schemas.records import Label, ProbeResult
from schemas.traces import trace_headers, traceparent
from streams.processors.dead_letters import dead_letters
from tests.unit.signed_records import BEAT, PROBE
from tests.unit.test_blocks_poison import probes

TOPIC = "probe-results"
ID = "0af7651916cd43dd8448eb211c80319c"
HEADER = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01")


def test_a_result_with_a_trace_id_has_the_header_of_w3c() -> None:
    assert trace_headers(TOPIC, encode(replace(PROBE, trace_id=ID))) == [HEADER]
    assert traceparent(ID, sampled=False) == "00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-00"


@pytest.mark.parametrize(
    "trace_id",
    [
        pytest.param(None, id="none"),
        pytest.param("0af765", id="too short"),
        pytest.param(ID.upper(), id="upper case"),
        pytest.param(ID[:16] + "0" * 16, id="a second half of zeros, which no span may have"),
        pytest.param(ID[:-1] + "g", id="no digit"),
    ],
)
def test_a_result_without_a_good_one_has_none(trace_id: str | None) -> None:
    assert trace_headers(TOPIC, encode(replace(PROBE, trace_id=trace_id))) == []


def test_what_only_looks_like_a_traced_result_has_none() -> None:
    """The quick look finds the bytes of a trace id in a label; the record says that it has none."""
    look = f"\x02@{ID}"
    assert trace_headers(TOPIC, encode(replace(PROBE, labels=(Label("a", look),)))) == []
    assert trace_headers("heartbeats", encode(replace(BEAT, labels=(Label("a", look),)))) == []
    assert trace_headers("heartbeats", encode(replace(PROBE, trace_id=ID))) == []
    whole = encode(replace(PROBE, trace_id=ID))
    assert [trace_headers(TOPIC, whole[:end]) for end in (0, 4, 5, len(whole) - 3)] == [[]] * 4


@settings(deadline=None, max_examples=50)
@given(probes())
def test_whatever_else_is_in_the_record_its_trace_is_found(record: ProbeResult) -> None:
    assert trace_headers(TOPIC, encode(replace(record, trace_id=ID))) == [HEADER]
    assert trace_headers(TOPIC, encode(replace(record, trace_id=None))) == []


def test_a_dead_letter_has_the_trace_of_its_record_and_no_other_header() -> None:
    def lost(*headers: tuple[str, bytes | None]) -> ConsumerRecord[bytes, bytes]:
        return ConsumerRecord(TOPIC, 0, 3, 7, 1, b"n", b"junk", None, 1, 4, headers)

    records = [lost(("fb-sig", b"x"), HEADER, ("other", b"y")), lost(("traceparent", None)), lost()]
    letters = dead_letters(records, [Reject(row, "bad-frame", "") for row in (2, 0, 1)], "worker")
    assert [letter.headers for letter in letters] == [[], [HEADER], []]
