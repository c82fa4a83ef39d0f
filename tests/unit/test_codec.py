"""One record ⇄ bytes: what cannot be read is refused with a reason and never decoded by half."""

import pytest

from schemas.codec import MAX_VALUE_BYTES, DecodeError, decode, encode, frame, split_frame, writer_of
from schemas.records import Heartbeat, Label, ProbeResult

PROBE = ProbeResult("n1", 1, "b1", 0, "p", "http", "checkout", "/pay", "eu-1", success=True, latency_us=5)
VALUE = encode(PROBE)


def test_a_value_is_a_zero_byte_the_schema_id_in_big_endian_and_the_body() -> None:
    assert VALUE[:5] == bytes([0, 0, 0, 0, 2])
    assert split_frame(VALUE) == (2, VALUE[5:])
    assert frame(0x01020304, b"x") == bytes([0, 1, 2, 3, 4]) + b"x"


def test_a_record_comes_back_with_its_type_and_its_labels() -> None:
    beat = Heartbeat("n", 2, "b", 1, 0, 5_000, "DRAINING", "r", "z", "0", health=97, labels=(Label("k", "v"),))
    assert decode(encode(beat)) == beat


def test_a_record_that_is_not_what_the_schema_says_is_not_written() -> None:
    with pytest.raises(ValueError, match="ASLEEP"):
        encode(Heartbeat("n", 2, "b", 1, 0, 5_000, "ASLEEP", "r", "z", "0"))


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "empty", "the record has no value; expected a framed Avro record"),
        (b"", "bad-frame", "starts with nothing; expected 00 and a 4-byte schema id"),
        (b"\0\0\0\0", "bad-frame", "starts with 00000000; expected 00 and a 4-byte schema id"),
        (b'{"node_id":1}', "bad-frame", "starts with 7b226e6f64; expected 00 and a 4-byte schema id"),
        (
            b"\0\0\0\0\x63" + VALUE[5:],
            "unknown-schema",
            "schema id 99; expected one of [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13]",
        ),
        (VALUE[:5], "truncated", "the body of 0 bytes ends inside a field"),
        (VALUE[:-1], "truncated", f"the body of {len(VALUE) - 6} bytes ends inside a field"),
        (VALUE + b"\0", "trailing-bytes", f"the record ends at byte {len(VALUE) - 5} of {len(VALUE) - 4}"),
        (b"\0" * (MAX_VALUE_BYTES + 1), "too-large", "1048577 bytes; expected at most 1048576"),
    ],
)
def test_a_value_that_cannot_be_read_says_why(value: bytes | None, reason: str, detail: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    assert str(caught.value) == f"{reason}: {detail}"


def test_a_name_that_is_not_utf8_is_undecodable() -> None:
    with pytest.raises(DecodeError, match=r"^undecodable: UnicodeDecodeError: "):
        decode(VALUE.replace(b"checkout", b"\xff" * 8))


def test_every_prefix_of_a_record_is_refused() -> None:
    for length in range(len(VALUE)):
        with pytest.raises(DecodeError):
            decode(VALUE[:length])


def test_an_id_names_its_topic_and_version() -> None:
    topic, version = writer_of(2)
    assert (topic.name, version.version) == ("probe-results", 1)
