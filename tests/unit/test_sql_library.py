"""The library's files and how parameters are filled in; what the prompt completes; addresses of endpoints."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fleetbeat
from streams.sql.client import AddressError, Endpoint
from streams.sql.completion import Words, candidates
from streams.sql.library import LibraryError, NamedQuery, Parameter, fill, find, library, parse
from streams.sql.prompt import is_whole

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 2, 11, 0, 0, 250_000, tzinfo=UTC)
WORDS = Words(
    {
        "heartbeats": [("node_id", "String"), ("spooled", "Int64")],
        "probe_results": [("node_id", "String"), ("probe", "String")],
    },
    ("node", "now", "round"),
)


@pytest.mark.parametrize("query", library().values(), ids=lambda query: query.name)
class TestFiles:
    def test_the_header_names_the_parameters_of_the_statement(self, query: NamedQuery) -> None:
        used = dict(re.findall(r"\{(\w+):(.+?)\}", query.sql))
        assert {parameter.name: parameter.kind for parameter in query.parameters} == used

    def test_it_says_what_it_answers(self, query: NamedQuery) -> None:
        assert len(query.answers) > 20
        assert not query.sql.endswith(";")

    def test_defaults_fill_in_what_is_not_given(self, query: NamedQuery) -> None:
        needed = {parameter.name: "x" for parameter in query.parameters if parameter.default is None}
        assert query.fill(needed, NOW).keys() == {parameter.name for parameter in query.parameters}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("now", "2026-03-02 11:00:00.250"),
        ("-90s", "2026-03-02 10:58:30.250"),
        ("-1h", "2026-03-02 10:00:00.250"),
        ("-2d", "2026-02-28 11:00:00.250"),
        ("2026-03-02", "2026-03-02 00:00:00.000"),
        ("2026-03-02 10:00:00.5", "2026-03-02 10:00:00.500"),
        ("2026-03-02T12:00:00+02:00", "2026-03-02 10:00:00.000"),
        ("2026-03-29T02:30:00", "2026-03-29 02:30:00.000"),  # an hour that Europe's clocks do not show
        ("0001-01-01", "0001-01-01 00:00:00.000"),
    ],
)
def test_a_time(text: str, read: str) -> None:
    assert Parameter("since", "DateTime64(3, 'UTC')", None, "").read(text, NOW) == read
    assert Parameter("node", "String", None, "").read(text, NOW) == text


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("nothing", {}, "no query 'nothing'; expected one of: burning_slos, "),
        ("node-hour", {}, "query node_hour: parameter node (String) is missing; expected --param node=VALUE"),
        ("node_hour", {"nod": "x"}, "query node_hour: no parameter 'nod'; expected one of: node, since, until"),
        ("node_hour", {"node": "x", "since": "1h"}, "parameter since: value '1h'; expected a time such as"),
        ("node_hour", {"node": "x", "since": "-999999999d"}, "parameter since: value '-999999999d'; expected a time"),
        (
            "node_hour",
            {"node": "x", "since": "0001-01-01T00:00+01:00"},
            "parameter since: value '0001-01-01T00:00+01:00'",
        ),
        (
            "node_hour",
            {"node": "x", "since": "now", "until": "-1h"},
            "query node_hour: since 2026-03-02 11:00:00.250 until 2026-03-02 10:00:00.250: expected a time",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(name: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(LibraryError) as refused:
        find(name).fill(given, NOW)
    assert str(refused.value).startswith(said)


def test_times_of_ones_own_statement_are_read_as_those_of_the_library() -> None:
    sql = "SELECT {a:DateTime64(3, 'Asia/Shanghai')}, {b: DateTime('UTC')}, {c:Nullable(DateTime)}, {text:String}"
    assert fill(
        sql, {"a": "-90s", "b": "now", "c": "2026-03-02T12:00:00.7+02:00", "text": "now", "more": "-1h"}, NOW
    ) == {
        "a": "1772449110.250",
        "b": "1772449200",
        "c": "1772445600",
        "text": "now",
        "more": "-1h",
    }
    assert fill("{a:DateTime}", {"a": "1772445600"}, NOW) == {"a": "1772445600"}, "as ClickHouse itself takes it"
    assert fill("{a:DateTime}", {"a": "-999999999d"}, NOW) == {"a": "-999999999d"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1", "no line `-- Parameters:`"),
        ("-- What.\n-- Parameters:\n--   node\nSELECT 1", "'node'; expected NAME TYPE"),
    ],
)
def test_a_file_with_another_header_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse("odd", text)


@pytest.mark.parametrize(
    ("before", "completed"),
    [
        ("SELECT * FROM ", ["heartbeats", "probe_results"]),
        ("SELECT * FROM telemetry.pro", ["probe_results"]),
        ("SELECT * FROM heartbeats WHERE s", ["spooled", "SELECT", "SHOW TABLES"]),
        ("SELECT * FROM heartbeats WHERE no", ["node_id", "NOT", "node(", "now("]),
        ("SELECT pro", ["probe", "probe_results"]),
        ("sel", ["SELECT"]),
        ("\\ru", ["\\run"]),
        ("\\run node_", ["node_hour"]),
        ("\\run node_hour no", ["node="]),
        ("\\run node_hour node=x ", ["node=", "since=", "until="]),
        ("\\run nothing no", []),
    ],
)
def test_completion(before: str, completed: list[str]) -> None:
    assert [candidate.text for candidate in candidates(WORDS, library(), before)][:5] == completed


@pytest.mark.parametrize(
    ("text", "whole"),
    [("SELECT 1", False), ("SELECT 1;", True), ("SELECT\n1 ; ", True), ("\\tables", True), ("", True), ("quit", True)],
)
def test_a_statement_ends_with_a_semicolon(text: str, *, whole: bool) -> None:
    assert is_whole(text) is whole


def test_addresses() -> None:
    assert Endpoint.parse("http://127.0.0.1:8123") == Endpoint("http", "127.0.0.1", 8123)
    assert Endpoint.parse("https://me:p%40ss@ch1/telemetry") == Endpoint(
        "https", "ch1", 8443, "telemetry", "me", "p@ss"
    )
    for wrong in ("127.0.0.1:8123", "ftp://me:secret@ch1", "http://me:secret@ch1:port", "http://me:secret@ch1?x=1"):
        with pytest.raises(AddressError) as refused:
            Endpoint.parse(wrong)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("--name nothing", 2, "no query 'nothing'"),
        ("--name node_hour --param node", 2, "parameter 'node': expected KEY=VALUE"),
        ("--name node_hour --param node=a --param node=b", 2, "parameter node: 'a' and 'b'; expected it once"),
        ("--name node_hour --query x", 2, "--name and --query: expected one of them"),
        ("--query x\udcff", 2, "byte 0xff at character 2; expected UTF-8"),
        ("--name node_hour --param node=\udcfe", 2, "byte 0xfe at character 6; expected UTF-8"),
        ("--query x --url http://me:sec@ret@h:port", 2, "url http://…@h:port: "),
        ("--query x --url nowhere", 2, "url 'nowhere': expected http://HOST:PORT"),
        ("--query x --url http://127.0.0.1:1", 3, "http://127.0.0.1:1: no answer: "),
    ],
)
def test_what_cannot_be_done_has_its_status(
    arguments: str, status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fleetbeat.main(["sql", *arguments.split()]) == status
    told = capfd.readouterr()
    assert said in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_what_cannot_be_written_is_said() -> None:
    command = [sys.executable, "-m", "fleetbeat", "sql", "--library"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (1, "fleetbeat: stdout: No space left on device\n")


def test_the_library_is_listed_without_an_endpoint(capfd: pytest.CaptureFixture[str]) -> None:
    assert fleetbeat.main(["sql", "--library", "--url", "nowhere"]) == 0
    listed = capfd.readouterr().out
    assert "node_hour\n  One node's last hour, minute by minute" in listed
    assert re.search(r"^    node +String +needed$", listed, re.MULTILINE)
