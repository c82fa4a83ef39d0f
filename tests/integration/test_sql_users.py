"""The SQL endpoint with users: logins, what each may take and see, sessions, streamed results, slow queries."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.integration.sql_gateway_client import ROWS, Server
from tests.integration.sql_users_client import (
    ADMIN,
    FOREVER,
    READER,
    SECRET,
    basic,
    open_query,
    slow,
    users_file,
    wait_for,
)

MANY = "SELECT number, toString(number) AS text FROM numbers(400000)"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return users_file(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, users: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("gateway"), users=str(users), slow_s=0.3, wait_s=0.5, threads=1)
    yield server
    assert server.stop() == 0


class TestLogin:
    @pytest.mark.parametrize("headers", [basic("reader", SECRET), READER], ids=["basic", "headers"])
    def test_by_headers(self, server: Server, headers: dict[str, str]) -> None:
        assert server.ask("SELECT 1", headers).text == "1\n"

    def test_by_parameters_and_by_a_client(self, server: Server) -> None:
        assert server.ask("SELECT 1", None, "/", user="reader", password=SECRET).text == "1\n"
        client = server.client("reader", SECRET)
        assert client.command("SELECT count() FROM samples") == ROWS
        client.close()
        with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
            server.client("reader", "wrong")

    @pytest.mark.parametrize(
        "headers",
        [
            basic("reader", "wrong"),
            basic("nobody", SECRET),
            basic("reader", ""),
            basic("reader", SECRET + "\0"),
            {"Authorization": "Basic !"},
            {"Authorization": f"Bearer {SECRET}"},
            {"X-ClickHouse-User": "reader"},
            {"X-ClickHouse-Key": SECRET},
            {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": "\xff\xfe"},
            {"X-ClickHouse-User": "\xff\xfe", "X-ClickHouse-Key": SECRET},
            {**READER, **basic("admin", SECRET)},
        ],
    )
    def test_a_wrong_one_is_refused_alike(self, server: Server, headers: dict[str, str]) -> None:
        reply = server.ask("SELECT 1", headers)
        assert (reply.status, reply.code) == (403, "516"), reply.text
        assert SECRET not in reply.text

    def test_nobody_is_asked_who_it_is(self, server: Server) -> None:
        reply = server.ask("SELECT 1")
        assert (reply.status, reply.code) == (401, "516")
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        assert server.ask(path="/-/slow").status == 401
        assert server.ask(path="/ping").text == "Ok.\n"

    def test_a_known_login_does_not_wait_for_the_slow_hash(self, server: Server) -> None:
        server.ask("SELECT 1", READER)
        began_s = time.monotonic()
        for _ in range(5):
            assert server.ask("SELECT 1", READER).status == 200
        right_s = time.monotonic() - began_s
        began_s = time.monotonic()
        for _ in range(5):
            assert server.ask("SELECT 1", basic("reader", "wrong")).status == 403
        assert time.monotonic() - began_s > right_s

    def test_another_password_counts_at_once_and_an_unusable_file_does_not(self, server: Server, users: Path) -> None:
        before = users.read_text(encoding="utf-8")
        try:
            users_file(users.parent, "changed-since")
            wait_for(lambda: server.ask("SELECT 1", basic("reader", "changed-since")).status == 200)
            assert server.ask("SELECT 1", READER).code == "516"
            users.chmod(0o644)
            changed = basic("reader", "changed-since")
            wait_for(
                lambda: server.ask("SELECT 1", changed).status == 200 and "everybody on this machine" in server.log
            )
            assert server.ask("SELECT 1", changed).status == 200
        finally:
            users.chmod(0o600)
            users.write_text(before, encoding="utf-8")
        wait_for(lambda: server.ask("SELECT 1", READER).status == 200)

    def test_no_password_is_in_the_log(self, server: Server) -> None:
        server.ask("SELECT 1", None, "/", user="reader", password="not-this-one")  # noqa: S106 - made up
        server.ask("SELEC", None, "/", user="reader", password=SECRET)
        assert "sql_login_refused" in server.log
        assert SECRET not in server.log
        assert "not-this-one" not in server.log
        assert "scrypt$" not in server.log


class TestLimitsOfAUser:
    def small(self, server: Server, sql: str, **asked: str) -> str | None:
        return server.ask(sql, basic("small", SECRET), "/", **asked).code

    def test_rows_read(self, server: Server) -> None:
        assert self.small(server, "SELECT sum(latency_us) FROM samples") == "158"
        assert self.small(server, "SELECT sum(latency_us) FROM samples", max_rows_to_read="0") == "158"
        assert self.small(server, "SELECT sum(latency_us) FROM samples", max_rows_to_read="100000") == "158"
        assert self.small(server, "SELECT sum(number) FROM numbers(900)") is None
        assert self.small(server, "SELECT sum(number) FROM numbers(900)", max_rows_to_read="10") == "158"

    def test_result(self, server: Server) -> None:
        sql = "SELECT repeat('x', 1000 + number) FROM numbers(900) FORMAT JSON"
        assert self.small(server, sql) == "396"
        assert server.ask(sql, READER).status == 200

    def test_time_and_queries_at_once(self, server: Server) -> None:
        def single(_: int) -> str | None:
            return server.ask(FOREVER, basic("single", SECRET), "/", max_execution_time="100").code

        with ThreadPoolExecutor(2) as pool:
            assert sorted(map(str, pool.map(single, range(2)))) == ["159", "202"]
        assert server.ask("SELECT 1", READER).text == "1\n"


class TestScopes:
    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT query FROM system.processes",
            "SELECT * FROM `system`.`processes`",
            'SELECT * FROM system /* . */ . "processes"',
            "SELECT 1 WHERE 'x' IN (SELECT query FROM system.processes)",
            "WITH p AS (SELECT * FROM system.processes) SELECT * FROM p",
            "DESCRIBE system.disks",
            "SHOW PROCESSLIST",
            "SHOW MERGES",
            "SELECT * FROM system.server_settings",
            "SELECT * FROM system.users",
            "SELECT * FROM view(SELECT * FROM system.disks)",
            "EXPLAIN SELECT * FROM system.metrics",
        ],
    )
    def test_a_reader_does_not_see_what_others_do(self, server: Server, sql: str) -> None:
        reply = server.ask(sql, READER)
        assert (reply.status, reply.code) == (403, "497"), reply.text

    def test_nor_by_another_way_to_name_it(self, server: Server) -> None:
        for sql, asked in (
            ("SELECT * FROM processes", {"database": "system"}),
            ("SELECT * FROM {t:Identifier}", {"param_t": "system.processes"}),
            ("SELECT * FROM {t:Identifier}", {"param_t": "processes", "database": "system"}),
            ("SELECT * FROM {d:Identifier}.processes", {"param_d": "system"}),
            ("SELECT * FROM {d:Identifier}.{t:Identifier}", {"param_d": "system", "param_t": "processes"}),
            ("SELECT * FROM {d:Identifier}.{t:Identifier}", {"param_d": "`system`", "param_t": "`processes`"}),
        ):
            reply = server.ask(sql, READER, "/", **asked)
            assert reply.code in {"497", "60", "81"}, (sql, reply.text)
        session = {"session_id": "place"}
        assert server.ask("USE system", READER, "/", **session).status == 200
        assert server.ask("SELECT * FROM processes", READER, "/", **session).code == "497"
        assert server.ask("SELECT * FROM one", READER, "/", **session).text == "0\n"

    def test_columns_may_be_called_like_them(self, server: Server) -> None:
        assert server.ask("SELECT 1 AS errors, 2 AS metrics, 3 AS system", READER).text == "1\t2\t3\n"
        assert int(server.ask("SELECT count() FROM system.columns", READER).text) > 0

    def test_an_administrator_sees_it(self, server: Server) -> None:
        assert "system.processes" in server.ask("SELECT query FROM system.processes", ADMIN).text


class TestSessions:
    def ask(self, server: Server, sql: str, name: str, headers: dict[str, str] = READER, **asked: str) -> str:
        reply = server.ask(sql, headers, "/", session_id=name, **asked)
        return reply.text if reply.status == 200 else f"{reply.code}"

    def test_what_was_set_stays_in_this_session_of_this_user(self, server: Server) -> None:
        sql = "SELECT getSetting('max_block_size'), getSetting('join_use_nulls')"
        assert self.ask(server, "SET max_block_size = 123, join_use_nulls = true;", "a") == ""
        assert self.ask(server, sql, "a") == "123\ttrue\n"
        assert self.ask(server, sql, "a", max_block_size="7") == "7\ttrue\n"
        assert self.ask(server, sql, "b") == "65409\tfalse\n"
        assert self.ask(server, sql, "a", ADMIN) == "65409\tfalse\n"

    @pytest.mark.parametrize(
        ("sql", "code"),
        [
            ("SET readonly = 0", "164"),
            ("SET max_execution_time = 100000", ""),  # no more than there is
            ("SET allow_ddl = 1", "452"),
            ("SET log_comment = 'x'", "452"),
            ("SET format_template_row = '/etc/passwd'", "452"),
            ("SET session_timezone = 'nowhere'", "36"),
            ("SET session_timezone = 'UTC\\', readonly = \\'0'", "164"),
            ("SET ROLE ALL", "164"),
            ("SET ROLE owner", "164"),
            ("SET DEFAULT ROLE ALL TO default", "164"),
            ("SET max_threads = 1, ROLE = 'owner'", "452"),
            ("SET max_threads = 1; SET readonly = 0", "62"),
            ("SET param_x = 1", "452"),
            ("CREATE TEMPORARY TABLE t (a Int8)", "164"),
            ("USE nothing", "81"),
            ("EXECUTE AS default SELECT 1", "164"),
        ],
    )
    def test_a_session_is_no_way_to_more(self, server: Server, sql: str, code: str) -> None:
        assert self.ask(server, sql, "more") == code
        assert self.ask(server, "SELECT getSetting('readonly'), getSetting('max_execution_time')", "more") == "1\t30\n"

    def test_without_a_session_there_is_nothing_to_set(self, server: Server) -> None:
        assert server.ask("SET max_threads = 1", READER).code == "164"

    def test_codes(self, server: Server) -> None:
        assert self.ask(server, "SELECT 1", "new", session_check="1") == "372"
        assert self.ask(server, "SELECT 1", "new") == "1\n"
        assert self.ask(server, "SELECT 1", "new", session_check="1") == "1\n"
        assert self.ask(server, "SELECT 1", "new", close_session="1") == "1\n"
        assert self.ask(server, "SELECT 1", "new", session_check="1") == "372"
        assert self.ask(server, "SELECT 1", "new", session_timeout="0") == "374"
        assert self.ask(server, "SELECT 1", "new", session_timeout="3601") == "374"
        assert self.ask(server, "SELECT 1", "short", session_timeout="1") == "1\n"
        time.sleep(1.1)
        assert self.ask(server, "SELECT 1", "short", session_check="1") == "372"

    def test_one_query_at_a_time(self, server: Server) -> None:
        with ThreadPoolExecutor(2) as pool:
            slow = pool.submit(self.ask, server, FOREVER, "one", max_execution_time="2")
            wait_for(lambda: "sipHash64" in server.ask("SELECT query FROM system.processes", ADMIN).text)
            assert self.ask(server, "SELECT 1", "one") == "373"
            assert slow.result() == "159"


class TestStreams:
    def test_millions_of_rows_in_little_memory(self, server: Server) -> None:
        connection = open_query(server, "SELECT number, toString(sipHash64(number)) FROM numbers(5000000)")
        response = connection.getresponse()
        before, most, size = server.tell("memory"), 0, 0
        while piece := response.read(1 << 20):
            size += len(piece)
            if size % (50 << 20) < 1 << 20:
                most = max(most, server.tell("memory"))
        connection.close()
        assert size > 125 << 20
        assert most - before < 120 << 20, f"{(most - before) >> 20} MiB more"

    @pytest.mark.parametrize(
        "output_format",
        ["TSV", "CSVWithNames", "TSVWithNamesAndTypes", "JSONEachRow", "JSONCompactEachRowWithNames",
         "RowBinary", "RowBinaryWithNamesAndTypes", "Native"],
    )  # fmt: skip
    def test_pieces_make_the_body_that_the_engine_makes(self, server: Server, output_format: str) -> None:
        # Sorted in one thread, so both have their rows in one order; 2 MiB and more go out in pieces.
        names = 'number, toString(number) AS `a "b"\n`'
        sql = f"SELECT {names} FROM numbers(300000) ORDER BY number FORMAT {output_format}"  # noqa: S608 - of ours
        streamed = server.ask(sql, READER)
        whole = server.ask(sql, READER, "/", wait_end_of_query="1")
        assert streamed.headers["Transfer-Encoding"] == "chunked"
        assert "Transfer-Encoding" not in whole.headers
        assert "X-ClickHouse-Exception-Tag" in streamed.headers
        if output_format == "Native":  # cut into blocks otherwise
            assert abs(len(streamed.body) - len(whole.body)) < 1_000
        else:
            assert streamed.body == whole.body

    def test_arrow(self, server: Server) -> None:
        reply = server.ask(MANY + " FORMAT ArrowStream", READER)
        assert reply.status == 200, reply.text
        table = pa.ipc.open_stream(reply.body).read_all()
        assert (table.num_rows, table.column_names) == (400_000, ["number", "text"])

    def test_no_rows_still_have_names(self, server: Server) -> None:
        for output_format, body in (
            ("CSVWithNames", b'"a","b ""c"""\n'),
            ("TSVWithNamesAndTypes", b'a\tb "c"\nUInt64\tString\n'),
            ("RowBinaryWithNames", b'\x02\x01a\x05b "c"'),
            ("JSONCompactEachRowWithNames", b'["a", "b \\"c\\""]\n'),
            ("TSV", b""),
        ):
            sql = f"SELECT number AS a, 'x' AS `b \"c\"` FROM numbers(0) FORMAT {output_format}"  # noqa: S608 - of ours
            assert server.ask(sql, READER).body == body

    def test_packed(self, server: Server) -> None:
        plain = server.ask(MANY, READER).body
        for encoding, unpack in (("gzip", gzip.decompress), ("lz4", lz4.frame.decompress)):
            reply = server.ask(MANY, {**READER, "Accept-Encoding": encoding}, "/", enable_http_compression="1")
            assert reply.headers["Content-Encoding"] == encoding
            assert unpack(reply.body) == plain

    def test_a_block_that_would_be_huge_as_text_is_stopped(self, server: Server) -> None:
        for output_format in ("TSV", "JSON"):
            sql = f"SELECT repeat('x', 1000000) FROM numbers(60000) FORMAT {output_format}"  # noqa: S608 - of ours
            assert server.ask(sql, READER).code in {"241", "396"}

    def test_totals_are_not_lost(self, server: Server) -> None:
        sql = "SELECT number % 2 AS n, count() FROM numbers(10) GROUP BY n WITH TOTALS ORDER BY n"
        assert server.ask(sql, READER).text == "0\t5\n1\t5\n\n0\t10\n"
        assert server.ask("SELECT number FROM numbers(3)", READER, "/", extremes="1").text == "0\n1\n2\n\n0\n2\n"

    def test_an_error_in_the_middle_ends_the_connection(self, server: Server) -> None:
        sql = "SELECT throwIf(number = 2900000), number FROM numbers(3000000)"
        connection = open_query(server, sql)
        response = connection.getresponse()
        assert response.status == 200
        tag = response.headers["X-ClickHouse-Exception-Tag"]
        with pytest.raises(IncompleteRead) as broken:
            response.read()
        connection.close()
        end = broken.value.partial[-2_000:].decode()
        assert f"__exception__\r\n{tag}\r\nCode: 395. DB::Exception: " in end
        assert end.endswith(f" {tag}\r\n__exception__\r\n")
        client = server.client("reader", SECRET)
        with pytest.raises(DatabaseError, match="395"):
            client.query(sql)
        client.close()

    @pytest.mark.parametrize("sql", [FOREVER, "SELECT number FROM numbers(1e12)"], ids=["before", "amid"])
    def test_who_leaves_takes_the_query_along(self, server: Server, sql: str) -> None:
        connection = open_query(server, sql)
        if sql != FOREVER:
            connection.getresponse().read(1000)
        running = f"SELECT count() FROM system.processes WHERE query = '{sql}'"  # noqa: S608 - of ours
        wait_for(lambda: server.ask(running, ADMIN).text == "1\n")
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        wait_for(lambda: server.ask(running, ADMIN).text == "0\n")
        wait_for(lambda: 'queries_total{outcome="cancelled"}' in server.tell("metrics"))


class TestSlowQueries:
    def test_they_are_kept_without_their_literals(self, server: Server) -> None:
        sql = "SELECT count() FROM numbers(1e12) WHERE toString(number) = 'do not tell'"
        assert server.ask(sql, READER, "/", max_execution_time="1", query_id="mine").code == "159"
        server.ask(sql, ADMIN, "/", max_execution_time="1")
        told = slow(server, ADMIN)
        assert [query["user"] for query in told[:2]] == ["admin", "reader"]
        mine = next(query for query in told if query["query_id"] == "mine")
        assert mine["query"] == "SELECT count() FROM numbers(?) WHERE toString(number) = ?"
        assert (mine["code"], mine["user"]) == (159, "reader")
        assert mine["duration_ms"] >= 900
        logged = [json.loads(line) for line in server.log.splitlines() if "sql_query_slow" in line]
        assert any(line["query_id"] == "mine" and line["level"] == "warning" for line in logged)
        assert "do not tell" not in server.log

    def test_a_reader_sees_its_own(self, server: Server) -> None:
        assert {query["user"] for query in slow(server, READER)} <= {"reader"}

    def test_metrics(self, server: Server) -> None:
        told = server.tell("metrics")
        for series in (
            'fleetbeat_sql_read_rows_total{user="reader"}',
            'fleetbeat_sql_slow_queries_total{user="reader"}',
            "fleetbeat_sql_logins_refused_total",
            "fleetbeat_sql_sessions",
            "fleetbeat_sql_running_queries 0.0",
        ):
            assert series in told
