"""A letter taken apart: what can be read, where it stops, and nothing that a terminal would obey."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.dlq.dissect import MAX_FIELDS, dissect, name_of
from infra.dlq.log import LetterAt, Notes
from infra.dlq.show import as_json, as_lines
from infra.dlq.words import hex_dump, plain
from schemas.catalog import load_catalog
from schemas.codec import encode, frame, split_frame
from schemas.dead_letters import Origin, dead_letter
from schemas.records import Heartbeat, Label, ProbeResult
from tests.contract.strategies import TOPICS, records

RESULT = replace(
    ProbeResult(
        "n", 1_767_225_600_123, "b", 0, "p", "http", "checkout", "/pay", "eu-1", success=True, latency_us=1_000
    ),
    status_code=200,
    labels=(Label("a", "b"),),
)
GOOD = encode(RESULT)


@pytest.mark.parametrize("topic", TOPICS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_record_is_read_to_its_last_byte(topic: str, data: st.DataObject) -> None:
    record = data.draw(records(topic))
    found = dissect(topic, encode(record))
    assert found.stop is None
    assert found.schema == load_catalog().topic(topic).latest
    read = {field.path.split("[")[0].split(".")[0] for field in found.fields}
    assert read == set(asdict(record))


@settings(deadline=None)
@given(cut=st.integers(0, len(GOOD) - 1))
def test_a_record_that_was_cut_is_read_up_to_the_cut(cut: int) -> None:
    whole, found = dissect("probe-results", GOOD), dissect("probe-results", GOOD[:cut])
    assert found.fields == whole.fields[: len(found.fields)]
    assert found.stop is not None
    assert found.stop.at <= cut


@settings(deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_to_the_end_or_to_a_stop_within_them(body: bytes) -> None:
    value = frame(2, body)
    found = dissect("probe-results", value)
    places = [field.at for field in found.fields]
    assert places == sorted(places)
    assert (len(value) if found.stop is None else found.stop.at) >= max(places, default=0)
    assert found.stop is None or found.stop.at <= len(value)


@pytest.mark.parametrize(
    ("value", "at", "path", "why"),
    [
        (b'{"node_id": "n"}', 0, "", "starts with 7b226e6f64; expected 00 and a 4-byte schema id"),
        (frame(901, b"abc"), 1, "", "schema id 901; expected one of"),
        (frame(2, b"\x03abc"), 5, "node_id", "a length of -2"),
        (frame(2, b"\x06ab"), 6, "node_id", "the value ends 2 bytes further on; expected 3 bytes"),
        (frame(2, b"\x02\xff"), 5, "node_id", "text that is not UTF-8"),
        (frame(2, b"\xff" * 11), 5, "node_id", "a number of more than 10 bytes"),
        (GOOD + b"more", len(GOOD), "", "the record ends here; 4 bytes more follow"),
        (frame(2, split_frame(GOOD)[1].replace(b"\x01\xd0\x0f", b"\x07\xd0\x0f")), 42, "success", "a boolean of 7"),
    ],
)
def test_the_place_where_it_stops_is_named(value: bytes, at: int, path: str, why: str) -> None:
    stop = dissect("probe-results", value).stop
    assert stop is not None
    assert (stop.at, stop.path) == (at, path)
    assert why in stop.why


def test_an_unknown_schema_id_is_read_with_the_schema_of_the_topic_that_fits() -> None:
    beat = Heartbeat("n", 1, "b", 1, 0, 10_000, "UP", "eu", "a", "1")
    found = dissect("heartbeats", frame(77, split_frame(encode(beat))[1]))
    assert (found.schema_id, found.guessed, found.stop) == (77, True, None)
    assert found.schema is not None
    assert name_of(found.schema) == "heartbeats v3"


def test_a_count_of_items_that_no_value_can_hold_ends_soon() -> None:
    fields_before_labels = split_frame(GOOD)[1].removesuffix(b"\x02\x02a\x02b\x00")
    endless = frame(2, fields_before_labels + b"\xfe" + b"\xff" * 8 + b"\x01" + b"\0" * 4_000)
    found = dissect("probe-results", endless)
    assert len(found.fields) == MAX_FIELDS
    assert found.stop is not None
    assert found.stop.why == f"only the first {MAX_FIELDS} fields are shown"


def test_a_letter_in_full() -> None:
    recorded = Origin("probe-results", 3, 1_200, 1_767_225_600_123, b"n", GOOD[:40])
    letter = dead_letter(recorded, "truncated", "the body of 35 bytes ends inside a field", "worker")
    assert as_lines(LetterAt(letter, 0, 5, 1_767_225_601_000), Notes()) == [
        "probe-results/3/1200",
        "  reason    truncated: the body of 35 bytes ends inside a field",
        "  appended  2026-01-01 00:00:00.123Z",
        "  detected  2026-01-01 00:00:01.000Z by worker",
        "  key       n",
        "  value     40 bytes",
        "  schema    id 2, probe-results v1",
        "  replay    not yet",
        "  fields",
        "    node_id   n",
        "    ts        1767225600123 (2026-01-01 00:00:00.123Z)",
        "    boot_id   b",
        "    seq       0",
        "    probe     p",
        "    kind      http",
        "    service   checkout",
        "    endpoint  /pay",
        "  stops at byte 38 in region: the value ends 2 bytes further on; expected 4 bytes",
        "    00000010  02 70 08 68 74 74 70 10 63 68 65 63 6b 6f 75 74  .p.http.checkout",
        "    00000020  08 2f 70 61 79 08 65 75                          ./pay.eu",
        " " * 32 + "^^",
        "  to replay it: no way: the body of 35 bytes ends inside a field",
    ]


def test_nothing_of_a_letter_commands_a_terminal() -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e\r\n"
    record = encode(ProbeResult(evil, 1, evil, 0, "p", "http", evil, evil, "eu", success=True, latency_us=1))
    letter = dead_letter(Origin("probe-results", 3, 1, 1, evil.encode(), record + b"\x1b[2J"), evil, evil, evil)
    text = "\n".join(as_lines(LetterAt(letter, 0, 0, 1), Notes()))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.count("\n") + 1 == len(as_lines(LetterAt(letter, 0, 0, 1), Notes()))
    told = json.dumps(as_json(LetterAt(letter, 0, 0, 1), Notes()))
    assert told.isprintable()


@given(text=st.text())
def test_an_escaped_text_is_printable_and_can_be_taken_back(text: str) -> None:
    escaped = plain(text)
    assert escaped.isprintable()
    if escaped.isascii():
        assert escaped.encode().decode("unicode_escape") == text


def test_a_dump_shows_the_line_before_and_two_after_with_a_caret() -> None:
    assert hex_dump(bytes(range(64, 128)), 33) == [
        "00000010  50 51 52 53 54 55 56 57 58 59 5a 5b 5c 5d 5e 5f  PQRSTUVWXYZ[\\]^_",
        "00000020  60 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 6e 6f  `abcdefghijklmno",
        " " * 13 + "^^",
        "00000030  70 71 72 73 74 75 76 77 78 79 7a 7b 7c 7d 7e 7f  pqrstuvwxyz{|}~.",
    ]
    assert hex_dump(b"", 0) == ["00000000", " " * 10 + "^^"]
