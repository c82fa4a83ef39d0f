"""The SQL endpoint and HTTP itself: old versions, HEAD, unreadable bodies and headers, and a process that ends."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.sql_gateway_client import ROWS, Server

LARGE = "SELECT number FROM numbers(400000)"
LARGE_BYTES = sum(len(str(number)) + 1 for number in range(400_000))
# One call of one function for one row, which the engine cannot leave.
ENDLESS = (
    "SELECT arrayMap(x -> levenshteinDistance(repeat('a', 60000) || toString(x), repeat('b', 60000)), range(1000))"
)
IN_NO_CHARSET = (
    b'--b\r\nContent-Disposition: form-data; name="query"\r\nContent-Type: text/plain; charset=none\r\n\r\nSELECT 1\r\n'
    b"--b--\r\n"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("http"))
    yield server
    assert server.stop() == 0


def tell(server: Server, request: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_http_1_0_gets_a_large_result_in_one_body(server: Server) -> None:
    path = f"/?query={LARGE.replace(' ', '+')}".encode()
    head, _, body = tell(server, b"GET " + path + b" HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert f"Content-Length: {LARGE_BYTES}".encode() in head
    assert (len(body), body[:4], body[-7:]) == (LARGE_BYTES, b"0\n1\n", b"399999\n")


def test_head_has_no_body_however_large_the_result(server: Server) -> None:
    connection = HTTPConnection(server.address, timeout=60)
    connection.request("HEAD", f"/?query={LARGE.replace(' ', '+')}")
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Length"]) == (200, str(LARGE_BYTES))
    response.read()
    connection.request("POST", "/", "SELECT 1")  # on the same connection, where a body would be taken for the answer
    assert connection.getresponse().read() == b"1\n"
    connection.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": "gzip"}, b"SELECT 1"),
        ({"Content-Encoding": "deflate"}, b"SELECT 1"),
        ({"Content-Type": "multipart/form-data"}, b"SELECT 1"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"SELECT 1"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\nSELECT 1\r\n--b--\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\nnonsense\r\n\r\nSELECT 1\r\n--b--\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, IN_NO_CHARSET),
    ],
)
def test_a_body_that_cannot_be_read_is_the_clients_fault(server: Server, headers: dict[str, str], body: bytes) -> None:
    reply = server.ask(body, headers)
    assert (reply.status, reply.code) == (400, "36"), reply.text
    assert reply.text.startswith("Code: 36. DB::Exception: The body cannot be read: ")
    assert "Error handling request" not in server.log


def test_an_address_may_be_as_long_as_a_query(server: Server) -> None:
    assert server.ask("SELECT length({x:String})", None, "/", param_x="y" * 200_000).text == "200000\n"
    assert server.ask(query="SELECT length('" + "x" * 100_000 + "')").text == "100000\n"
    assert server.ask("SELECT 1", None, "/", param_x="y" * 300_000).status == 400


def test_a_packed_body_is_read(server: Server) -> None:
    assert server.ask(gzip.compress(b"SELECT 1"), {"Content-Encoding": "gzip"}).text == "1\n"


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"X-ClickHouse-Database", b"404"), (b"X-ClickHouse-Format", b"404"), (b"X-ClickHouse-Key", b"200")],
)
def test_bytes_in_headers_that_are_no_text(server: Server, header: bytes, status: bytes) -> None:
    request = (
        b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + header + b": \xff\xfe\r\n\r\n"
    )
    assert tell(server, request).split(b" ")[1] == status


def test_a_header_that_is_not_read_here_does_not_break_a_large_result(server: Server) -> None:
    sql = "SELECT number, [number] AS list FROM numbers(200000) ORDER BY number FORMAT RowBinaryWithNamesAndTypes"
    asked = {"output_format_binary_encode_types_in_binary_format": "1"}
    assert server.ask(sql, None, "/", **asked).body == server.ask(sql, None, "/", wait_end_of_query="1", **asked).body


def test_names_of_hosts_have_no_case(server: Server) -> None:
    assert server.ask("SELECT 1", {"Host": "LocalHost"}).text == "1\n"


def test_use_default_means_the_telemetry_too(server: Server) -> None:
    assert server.ask("USE default", None, "/", session_id="a").status == 200
    assert server.ask("SELECT count() FROM samples", None, "/", session_id="a").text == f"{ROWS}\n"


def test_what_failed_is_logged_without_what_was_asked(server: Server) -> None:
    for sql, asked in (
        ("SELECT toUInt8('do not log')", {}),
        ("SELECT {x:UInt8}", {"param_x": "do not log"}),
        ("SELECT 'do not log' FROM nothing", {}),
    ):
        assert server.ask(sql, None, "/", query_id="mine", **asked).status >= 400
    told = [json.loads(line) for line in server.log.splitlines() if "sql_query_failed" in line]
    mine = [(line["code"], line["reason"]) for line in told if line["query_id"] == "mine"]
    assert mine == [(6, "CANNOT_PARSE_TEXT"), (457, "BAD_QUERY_PARAMETER"), (60, "UNKNOWN_TABLE")]
    assert "do not log" not in server.log


@pytest.mark.parametrize("stays", [True, False], ids=["who-asked-waits", "who-asked-left"])
def test_a_query_that_does_not_stop_does_not_keep_the_process(tmp_path: Path, stays: bool) -> None:  # noqa: FBT001 - a column
    server = Server(tmp_path)
    connection = HTTPConnection(server.address, timeout=60)
    connection.request("POST", "/", ENDLESS)
    running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT arrayMap%'"
    until_s = time.monotonic() + 60
    while server.ask(running).text != "1\n":
        assert time.monotonic() < until_s, "it never ran"
    if not stays:
        connection.close()
    assert server.stop() == 0
    assert "sql_queries_left_behind" in server.log
    connection.close()
    again = Server(tmp_path)
    assert again.ask("SELECT count() FROM samples").text == f"{ROWS}\n"
    assert again.stop() == 0
