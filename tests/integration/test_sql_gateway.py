"""The embedded store behind its SQL gateway, each in a process of its own, asked by real clients over HTTP."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from lz4.block import decompress

from tests.integration.sql_attacks import REFUSED
from tests.integration.sql_gateway_client import ROWS, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "secret.csv").write_text("s3cret,1\n")
    server = Server(folder)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    client = server.client()
    yield client
    client.close()


class TestClickhouseConnect:
    def test_rows(self, client: Client) -> None:
        found = client.query("SELECT host, latency_us, maybe, labels FROM samples ORDER BY ts LIMIT 2")
        assert found.result_rows == [("h0", 0, None, {"k": "0"}), ("h1", 1, 1, {"k": "1"})]

    def test_parameters(self, client: Client) -> None:
        sql = "SELECT count() FROM samples WHERE host = {host:String} AND latency_us >= {least:UInt32}"
        assert client.query(sql, parameters={"host": "h1", "least": 25_000}).result_rows == [(5_000,)]
        assert client.query("SELECT {text:String}", parameters={"text": "a\tb\\c\n'é"}).result_rows == [
            ("a\tb\\c\n'é",)
        ]

    def test_settings(self, client: Client) -> None:
        sql = "SELECT getSetting('max_threads'), getSetting('max_block_size')"
        assert client.query(sql, settings={"max_threads": 1, "max_block_size": 777}).result_rows == [(1, 777)]

    def test_pandas_numpy_arrow(self, client: Client) -> None:
        assert client.query_df("SELECT host, max(latency_us) AS most FROM samples GROUP BY host").shape == (5, 2)
        assert client.query_np("SELECT latency_us FROM samples").shape == (ROWS, 1)
        table = client.query_arrow("SELECT ts, host, latency_us FROM samples")
        assert (table.num_rows, table.column_names) == (ROWS, ["ts", "host", "latency_us"])

    def test_no_rows_still_have_columns(self, client: Client) -> None:
        found = client.query(
            "SELECT ts, labels, maybe FROM samples WHERE host = {h:String} -- none", parameters={"h": "no"}
        )
        assert (found.result_rows, found.column_names) == ([], ("ts", "labels", "maybe"))
        assert [kind.name for kind in found.column_types] == [
            "DateTime64(3, 'UTC')",
            "Map(String, String)",
            "Nullable(UInt16)",
        ]
        assert client.query("SHOW TABLES LIKE 'none'").result_rows == []
        assert client.query("SELECT * FROM samples LIMIT 0").column_names[0] == "ts"
        assert client.query_df("SELECT host FROM samples WHERE 0").empty

    def test_streams(self, client: Client) -> None:
        with client.query_row_block_stream("SELECT ts, host FROM samples") as blocks:
            assert sum(len(block) for block in blocks) == ROWS
        with client.raw_stream("SELECT host FROM samples", fmt="CSV") as lines:
            assert lines.read().count(b"\n") == ROWS

    def test_other_formats_and_commands(self, client: Client) -> None:
        assert json.loads(client.raw_query("SELECT 1 AS one", fmt="JSON"))["data"] == [{"one": 1}]
        assert client.command("SELECT count() FROM samples") == ROWS

    def test_summary(self, client: Client) -> None:
        summary = client.query("SELECT count() FROM samples WHERE latency_us > 10").summary
        assert (summary["read_rows"], summary["result_rows"]) == (str(ROWS), "1")

    def test_writes_are_refused(self, client: Client) -> None:
        with pytest.raises(DatabaseError, match="READONLY"):
            client.insert("samples", [["h9", 1]], column_names=["host", "latency_us"])
        with pytest.raises(DatabaseError, match="READONLY"):
            client.command("DROP TABLE samples")
        assert client.command("SELECT count() FROM samples") == ROWS


class TestHttp:
    def test_get_and_post(self, server: Server) -> None:
        assert server.ask(query="SELECT count() FROM samples").text == f"{ROWS}\n"
        assert server.ask("SELECT count() FROM telemetry.samples").text == f"{ROWS}\n"
        assert server.ask("FROM samples", query="SELECT count()").text == f"{ROWS}\n"
        assert server.ask("SELECT dummy FROM one", database="system").text == "0\n"

    def test_curl(self, server: Server) -> None:
        command = ["curl", "-sS", f"http://{server.address}/", "-d", "SELECT count() FROM samples FORMAT JSONEachRow"]
        assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout) == {"count()": ROWS}

    @pytest.mark.parametrize("path", ["/ping", "/replicas_status", "/"])
    def test_it_is_alive(self, server: Server, path: str) -> None:
        assert server.ask(path=path).text == "Ok.\n"

    def test_format_by_clause_argument_or_header(self, server: Server) -> None:
        for reply in (
            server.ask("SELECT 1 AS a FORMAT CSVWithNames ;-- end"),
            server.ask("SELECT 1 AS a", default_format="CSVWithNames"),
            server.ask("SELECT 1 AS a", {"X-ClickHouse-Format": "CSVWithNames"}),
        ):
            assert (reply.text, reply.headers["X-ClickHouse-Format"]) == ('"a"\n1\n', "CSVWithNames")
        assert server.ask("SELECT 'FORMAT CSV'").text == "FORMAT CSV\n"

    def test_parameters_are_unescaped_once(self, server: Server) -> None:
        assert server.ask("SELECT length({x:String})", param_x=r"a\tb").text == "3\n"

    def test_headers(self, server: Server) -> None:
        headers = server.ask("SELECT 1", query_id="mine").headers
        assert headers["X-ClickHouse-Query-Id"] == "mine"
        assert json.loads(headers["X-ClickHouse-Summary"])["result_rows"] == "1"

    def test_compressed_frames(self, server: Server) -> None:
        frame = server.ask("SELECT repeat('x', 100)", compress="1").body
        assert frame[16] == 0x82
        assert decompress(frame[25:], uncompressed_size=int.from_bytes(frame[21:25], "little")) == b"x" * 100 + b"\n"

    def test_settings_is_also_a_name(self, server: Server) -> None:
        sql = "SELECT count() > 0 FROM system.settings WHERE name = 'readonly'"
        assert server.ask(sql).text == "1\n"
        assert server.ask("SELECT settings FROM (SELECT 1 AS settings) WHERE settings = 1").text == "1\n"
        assert server.ask("SELECT settings extremes FROM (SELECT 1 AS settings)").text == "1\n"
        assert server.ask("SELECT count() > 0 FROM system.settings s WHERE s.name = 'readonly'").text == "1\n"

    def test_gzip(self, server: Server) -> None:
        headers = {"Accept-Encoding": "gzip"}
        reply = server.ask("SELECT number FROM numbers(10000)", headers, enable_http_compression="1")
        assert reply.headers["Content-Encoding"] == "gzip"

    def test_clickhouse_go_says_hello(self, server: Server) -> None:
        hello = "SELECT displayName(), version(), revision(), timezone()"
        asked = {"default_format": "Native", "client_protocol_version": "54460"}
        assert server.ask(hello, None, "/", **asked).body.startswith(
            b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()"
        )

    def test_other_names_of_this_host_are_refused(self, server: Server) -> None:
        reply = server.ask("SELECT 1", {"Host": "attacker.example"})
        assert (reply.status, "expected one of" in reply.text) == (403, True)

    @pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 200), ("none", 200)])
    def test_web_pages_elsewhere_cannot_send_queries(self, server: Server, site: str, status: int) -> None:
        assert server.ask("SELECT 1", {"Sec-Fetch-Site": site}).status == status


class TestRefused:
    @pytest.mark.parametrize(("sql", "status", "code"), REFUSED)
    def test_statement(self, server: Server, sql: str, status: int, code: str) -> None:
        reply = server.ask(sql)
        assert (reply.status, reply.code) == (status, code), reply.text
        assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
        assert "s3cret" not in reply.text

    @pytest.mark.parametrize("name", ["t", "query"])
    def test_external_tables(self, server: Server, name: str) -> None:
        body = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="t"\r\n\r\n1\r\n--b--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert server.ask(body, headers, "/", query="SELECT * FROM t", t_structure="a Int8").code == "48"

    def test_nothing_was_written(self, server: Server) -> None:
        assert not list(Path(f"/proc/{server.process.pid}/cwd").resolve().glob("out*"))
        assert server.ask("SELECT count() FROM samples").text == f"{ROWS}\n"

    @pytest.mark.parametrize(
        ("asked", "status", "code"),
        [
            ({"readonly": "0"}, 403, "164"),
            ({"max_rows_to_transfer": "0"}, 403, "452"),
            ({"allow_ddl": "1"}, 403, "452"),
            ({"log_queries": "0"}, 403, "452"),
            ({"http_max_tries": "9"}, 403, "452"),
            ({"format_template_row": "secret.csv", "default_format": "Template"}, 403, "452"),
            ({"output_format_schema": "out.proto", "default_format": "Protobuf"}, 403, "452"),
            ({"role": "owner"}, 403, "452"),
            ({"database": "nothing"}, 404, "81"),
            ({"database": "x`; DROP TABLE telemetry.samples; --"}, 404, "81"),
            ({"session_timezone": "UTC', readonly = '0"}, 400, None),
            ({"decompress": "1"}, 501, "48"),
            ({"default_format": "Template"}, 404, "73"),
        ],
    )
    def test_argument(self, server: Server, asked: dict[str, str], status: int, code: str | None) -> None:
        reply = server.ask("SELECT getSetting('readonly')", None, "/", **asked)
        assert (reply.status, reply.code) == (status, code or reply.code), reply.text

    @pytest.mark.parametrize("name", ["file", "`file`", "secret.csv", "default.secret.csv"])
    def test_identifier_parameters_open_nothing(self, server: Server, name: str) -> None:
        for sql in ("SELECT * FROM {t:Identifier}", "SELECT {t:Identifier}('secret.csv')"):
            for database in ("telemetry", "default"):
                reply = server.ask(sql, param_t=name, database=database)
                assert reply.status >= 400, reply.text

    def test_a_text_that_was_let_through_is_no_way_for_other_parameters(self, server: Server) -> None:
        sql = "SELECT count() FROM {t:Identifier}"
        for name, status in (("samples", 200), ("samples", 200), ("file", 403), ("samples", 200)):
            assert server.ask(sql, param_t=name).status == status, name

    @pytest.mark.parametrize("setting", ["limit", "offset", "max_result_rows"])
    def test_settings_do_not_hide_a_text_from_the_gate(self, server: Server, setting: str) -> None:
        for _ in range(2):
            reply = server.ask(
                "SELECT file('secret.csv')", None, "/", **{setting: "1", "output_format_write_statistics": "0"}
            )
            assert (reply.status, reply.code) == (403, "497"), reply.text

    def test_connections_are_not_shared_by_those_who_ask_otherwise(self, server: Server) -> None:
        sql = (
            "SELECT getSetting('max_block_size'), currentDatabase(), getSetting('readonly'), getSetting('log_comment')"
        )
        seen = set()
        for _ in range(3):
            for size, database in (("777", "telemetry"), ("778", "telemetry"), ("778", "system")):
                found = server.ask(sql, None, "/", max_block_size=size, database=database).text.split("\t")
                assert found[:3] == [size, database, "1"]
                seen.add(found[3])
        assert len(seen) == 9  # each query has one of its own, by which alone it can be ended

    def test_default_means_the_telemetry(self, server: Server) -> None:
        assert server.ask("SELECT count() FROM samples", database="default").text == f"{ROWS}\n"
        assert server.ask("SELECT * FROM 'secret.csv'", database="default").code == "60"

    def test_no_one_learns_which_files_exist(self, server: Server) -> None:
        there, not_there = (
            server.ask(sql) for sql in ("DESCRIBE default.`secret.csv`", "DESCRIBE default.`other.csv`")
        )
        assert (there.status, there.text) == (not_there.status, not_there.text)

    def test_a_syntax_error_says_where(self, server: Server) -> None:
        text = server.ask("SELECT 1 FROM FROM x").text
        assert "failed at position 20" in text
        assert "formatQuery" not in text

    def test_a_query_id_is_no_way_to_write_headers(self, server: Server) -> None:
        reply = server.ask("SELECT 1", query_id="a\r\nSet-Cookie: b")
        assert reply.status == 200
        assert "Set-Cookie" not in reply.headers

    def test_data_in_the_body(self, server: Server) -> None:
        reply = server.ask(b"\xff\xfe\x00", query="INSERT INTO samples FORMAT Native")
        assert (reply.status, reply.code) == (403, "164")

    def test_a_long_query(self, server: Server) -> None:
        reply = server.ask("SELECT '" + "x" * 300_000 + "'")
        assert (reply.status, reply.code) == (413, "229")


class TestLimits:
    def test_time(self, server: Server) -> None:
        started_s = time.monotonic()
        reply = server.ask("SELECT count() FROM numbers(1e12) WHERE sipHash64(number) = 1", max_execution_time="1")
        assert (reply.status, reply.code) == (408, "159")
        assert time.monotonic() - started_s < 20, "the limit of the server is 30 s"

    def test_memory(self, server: Server) -> None:
        reply = server.ask("SELECT groupArray(number) FROM numbers(1e9)", max_memory_usage="50000000")
        assert reply.code == "241"

    def test_result(self, server: Server) -> None:
        reply = server.ask("SELECT number FROM numbers(1e6)", max_result_bytes="100000")
        assert reply.code == "396"

    def test_readers_cannot_raise_them(self, server: Server) -> None:
        reply = server.ask("SELECT getSetting('max_execution_time')", max_execution_time="100000")
        assert reply.text == "30\n"

    def test_too_many_at_once(self, start_gateway: Callable[..., Server]) -> None:
        server = start_gateway(running=1, waiting=1, wait_s=0.3)
        slow = "SELECT count() FROM numbers(1e12) WHERE sipHash64(number) = 1"
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: server.ask(slow, max_execution_time="6"), range(4)))
        assert sorted(reply.code or "" for reply in replies) == ["159", "202", "202", "202"]
        assert {reply.status for reply in replies if reply.code == "202"} == {503}
        assert server.ask("SELECT 1").text == "1\n"

    def test_eight_clients_in_parallel(self, server: Server) -> None:
        def count(n: int) -> int:
            client = server.client()
            try:
                sql = "SELECT count() FROM samples WHERE host = {h:String}"
                return int(client.query(sql, parameters={"h": f"h{n % 5}"}).result_rows[0][0])
            finally:
                client.close()

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(count, range(8))) == [ROWS // 5] * 8


def test_queries_run_while_the_same_process_inserts(start_gateway: Callable[..., Server]) -> None:
    server = start_gateway()
    client = server.client()
    counted, taken_ms = [0], []
    assert server.tell("insert") == "inserting"
    begun_s = time.monotonic()
    while (took_s := time.monotonic() - begun_s) < 3 or (len(set(counted)) <= 5 and took_s < 90):
        started_s = time.perf_counter()
        counted.append(client.query("SELECT count() FROM inserted").result_rows[0][0])
        client.query("SELECT node, count(), max(n) FROM inserted GROUP BY node ORDER BY node").result_rows  # noqa: B018
        taken_ms.append((time.perf_counter() - started_s) * 500)
    acknowledged = server.tell("stop")
    assert client.command("SELECT count() FROM inserted") == acknowledged > 0
    assert counted == sorted(counted)
    assert len(set(counted)) > 5
    print(
        f"\n{acknowledged / took_s:,.0f} rows/s in beside {len(taken_ms) * 2} queries, median {median(taken_ms):.1f} ms"
    )
    client.close()
