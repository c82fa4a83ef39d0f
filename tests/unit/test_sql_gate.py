"""The parts of the SQL gateway that need no engine: settings, parameters, wire bytes, addresses."""

import pytest
from lz4.block import decompress

from streams.archive import wire
from streams.archive.gate import RefusedError
from streams.archive.settings import admit_params, admit_settings
from streams.archive.sql_http import _encoding
from streams.archive.sql_limits import Limits
from streams.archive.sql_listen import host_of

LIMITS = {"max_execution_time": 30, "max_threads": 2}


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({}, "30"),
        ({"max_execution_time": "5"}, "5"),
        ({"max_execution_time": "0"}, "30"),
        ({"max_execution_time": "1e9"}, "30"),
        ({"max_execution_time": "0.5"}, "1"),
        ({"max_execution_time": "-1"}, "30"),
    ],
)
def test_a_limit_can_only_be_lowered(asked: dict[str, str], seconds: str) -> None:
    assert admit_settings(asked, LIMITS)["max_execution_time"] == seconds


def test_output_settings_pass() -> None:
    asked = {"output_format_json_quote_64bit_integers": "1", "join_use_nulls": "1"}
    assert admit_settings(asked, {}) == asked


def test_settings_of_inserts_are_dropped() -> None:
    assert admit_settings({"async_insert": "0", "wait_for_async_insert": "1", "extremes": "1"}, {}) == {"extremes": "1"}


@pytest.mark.parametrize("value", ["1", "2"])
def test_asking_for_readonly_is_no_change(value: str) -> None:
    assert admit_settings({"readonly": value}, {}) == {}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("readonly", "0", 164),
        ("format_template_row", "/etc/hostname", 452),  # reads that file
        ("output_format_schema", "/tmp/x", 452),  # writes that file  # noqa: S108
        ("format_schema", "x", 452),
        ("format_avro_schema_registry_url", "http://192.0.2.1", 452),
        ("dialect", "kusto", 452),
        ("allow_experimental_eval_table_function", "1", 452),
        ("output_format_x = 1, readonly", "0", 452),
        ("max_threads", "many", 36),
        ("max_threads", "inf", 36),
        ("max_threads", "nan", 36),
    ],
)
def test_a_setting_that_could_open_something_is_refused(name: str, value: str, code: int) -> None:
    with pytest.raises(RefusedError, match=name.partition(" ")[0]) as refused:
        admit_settings({name: value}, LIMITS)
    assert refused.value.code == code


def test_a_parameter_must_have_a_name() -> None:
    assert admit_params({"host": "h1"}) == {"host": "h1"}
    with pytest.raises(RefusedError, match="expected letters"):
        admit_params({"a b": "1"})


def test_queries_together_cannot_take_more_than_half_of_the_memory() -> None:
    limits = Limits(running=3)
    assert limits.settings(6_000)["max_memory_usage"] * limits.running <= 3_000


@pytest.mark.parametrize(("number", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_varint(number: int, encoded: bytes) -> None:
    assert wire.varint(number) == encoded


def test_an_empty_block_names_its_columns() -> None:
    assert wire.empty_block([("a", "UInt8"), ("ü", "String")]) == b"\x02\x00\x01a\x05UInt8\x02\xc3\xbc\x06String"


def test_the_hello_block_answers_revision_zero() -> None:
    block = wire.hello_block("26.9.2.1", "UTC")
    assert block.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00")
    assert b"\x06UInt32\x00\x00\x00\x00\x00" in block
    assert block.endswith(b"\x03UTC")


@pytest.mark.parametrize("size", [1, 100, (1 << 20) + 17])
def test_compressed_frames_hold_the_data(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    stream, found = b"".join(wire.compressed(data)), b""
    while stream:
        assert stream[16] == 0x82
        packed, plain = (int.from_bytes(stream[at : at + 4], "little") for at in (17, 21))
        found += decompress(stream[25 : 16 + packed], uncompressed_size=plain)
        stream = stream[16 + packed :]
    assert found == data


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("gzip, deflate", "gzip"), ("lz4", "lz4"), ("lz4;q=1", "lz4"), ("lz4,br,gzip", ""), ("", "")],
)
def test_encoding_of_a_body(accepted: str, encoding: str) -> None:
    assert _encoding(accepted) == encoding


def test_nothing_compresses_to_nothing() -> None:
    assert b"".join(wire.compressed(b"")) == b""


@pytest.mark.parametrize(
    ("code", "status"), [(62, 400), (60, 404), (164, 403), (497, 403), (202, 503), (159, 408), (229, 413), (241, 500)]
)
def test_codes_have_their_status(code: int, status: int) -> None:
    assert wire.http_status(code) == status


@pytest.mark.parametrize(
    ("output_format", "kind"),
    [
        ("JSON", "application/json; charset=UTF-8"),
        ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
        ("Native", "application/octet-stream"),
        ("TSVWithNames", "text/tab-separated-values; charset=UTF-8"),
        ("Pretty", "text/plain; charset=UTF-8"),
    ],
)
def test_content_types(output_format: str, kind: str) -> None:
    assert wire.content_type(output_format) == kind


@pytest.mark.parametrize(
    ("header", "host"), [("127.0.0.1:8123", "127.0.0.1"), ("[::1]:8123", "::1"), ("LocalHost", "localhost")]
)
def test_host_of_a_header(header: str, host: str) -> None:
    assert host_of(header) == host
