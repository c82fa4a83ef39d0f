"""The library of drill-down queries on an hour whose answers are known, by `fleetbeat sql`; and docs/drill-down.md.

`UPDATE_DRILL_DOWN=1` writes the answers into the page instead of comparing them.
"""

import csv
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import fleetbeat
from streams.sql.client import Endpoint
from streams.sql.completion import candidates, read_words
from streams.sql.library import library
from streams.sql.prompt import Prompt, Suggestions
from tests.integration.drill_down_world import FAILED, FROM, TO, fill
from tests.integration.sql_gateway_client import Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "drill-down.md"
SESSION = re.compile(r"^```console\n\$ (?P<command>.+)\n(?P<shown>(?:.*\n)*?)```$", re.MULTILINE)
HOUR = (f"since={FROM}", f"until={TO}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("drill-down"))
    try:
        fill(server)
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETBEAT_SQL", f"http://{server.address}")


@pytest.fixture
def rows(capfd: pytest.CaptureFixture[str]) -> "Ask":
    return Ask(capfd)


class Ask:
    """`ask(name, "key=value", …)`: the rows of a query of the library, by column."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, name: str, *params: str) -> list[dict[str, str]]:
        options = [part for param in params for part in ("--param", param)]
        status = fleetbeat.main(["sql", "--name", name, "--format", "CSVWithNames", *options])
        told = self._capfd.readouterr()
        assert status == 0, told.err
        return list(csv.DictReader(io.StringIO(told.out)))


def test_the_fastest_burn_comes_first(rows: Ask) -> None:
    checkout, search = rows("burning_slos", *HOUR)
    assert (checkout["slo"], checkout["results"], checkout["bad"]) == ("checkout-answers", "14400", str(FAILED))
    assert float(checkout["burn_rate"]) == round(FAILED / 14_400 / 0.005, 2)
    assert (checkout["worst_minute"], checkout["worst_bad_percent"]) == ("2026-03-02 10:41:00.000", "2.5")
    assert (search["slo"], search["bad"], search["attainment"]) == ("search-answers", "0", "1")
    assert len(rows("burning_slos", *HOUR, "slo=search-answers")) == 1


def test_the_worst_series(rows: Ask) -> None:
    found = rows("worst_series", *HOUR)
    assert len(found) == 6
    worst = found[0]
    assert [worst[name] for name in ("service", "endpoint", "region", "kind")] == ["checkout", "/pay", "eu", "http"]
    assert [worst[name] for name in ("results", "bad", "failed", "bad_nodes", "nodes")] == [
        "3600", str(FAILED), str(FAILED), "1", "10"
    ]  # fmt: skip
    assert {series["bad"] for series in found[1:]} == {"0"}


def test_a_threshold_makes_slow_results_bad(rows: Ask, server: Server) -> None:
    (slowest,) = rows("worst_series", *HOUR, "service=search", "region=us", "latency_us_le=100000")
    raw = server.ask(
        "SELECT countIf(latency_us > 100000) FROM probe_results WHERE service = 'search' AND region = 'us'"
    )
    assert 0 < int(slowest["bad"]) == int(raw.text)
    assert slowest["failed"] == "0"


def test_the_worst_node(rows: Ask) -> None:
    (node,) = rows("worst_nodes", *HOUR)
    assert (node["node_id"], node["bad"], node["of_all_bad_percent"]) == ("eu-07", str(FAILED), "100")
    assert (node["results"], node["errors"]) == (str(3 * 360), "timeout")
    assert node["first_bad"].startswith("2026-03-02 10:40:20")
    assert rows("worst_nodes", *HOUR, "region=us") == []


def test_a_nodes_hour_shows_silence_loss_load_and_states(rows: Ask) -> None:
    sick = rows("node_hour", "node=eu-07", *HOUR)
    assert len(sick) == 60
    assert sum(int(minute["lost"]) for minute in sick) == 22
    assert [minute["memory_percent"] for minute in sick] == ["41"] * 38 + ["98.5"] * 22
    assert [minute["failed"] for minute in sick] == ["0"] * 40 + ["4"] + ["6"] * 19
    assert [minute["states"] for minute in sick[40:43]] == ["", "LATE, UP", ""]
    silent = rows("node_hour", "node=us-10", *HOUR)
    assert [minute["heartbeats"] for minute in silent] == ["6"] * 20 + ["0"] * 10 + ["6"] * 30
    assert [int(minute["lost"]) for minute in silent if minute["lost"] != "0"] == [60]
    assert [minute["results"] for minute in rows("node_hour", "node=nobody", *HOUR)] == ["0"] * 60


def test_the_first_failure_before_an_alert(rows: Ask) -> None:
    found = rows("first_failure", "service=checkout", "alert_at=2026-03-02 10:45:00", "rows=3")
    assert [row["ts"] for row in found] == [f"2026-03-02 10:40:{second}.301" for second in (20, 30, 40)]
    assert found[0]["before_alert_s"] == "279.7"
    assert {(row["node_id"], row["endpoint"], row["error"]) for row in found} == {("eu-07", "/pay", "timeout")}
    assert all(re.fullmatch("[0-9a-f]{32}", row["trace_id"]) for row in found)
    # 2.5 % of a minute are bad: with that as usual there is nothing to show; before it, nothing was bad.
    assert rows("first_failure", "service=checkout", "alert_at=2026-03-02 10:45:00", "quiet_percent=3") == []
    assert rows("first_failure", "service=checkout", "alert_at=2026-03-02 10:40:00") == []
    # No quiet minute within the lookback: all of it.
    (first,) = rows(
        "first_failure", "alert_at=2026-03-02 10:50:00", "lookback_s=300", "region=eu", "endpoint=/pay", "rows=1"
    )
    assert first["ts"] == "2026-03-02 10:45:00.301"


def test_phases_by_region(rows: Ask) -> None:
    eu, us = rows("phases_by_region", *HOUR, "service=checkout", "endpoint=/pay")
    assert (eu["region"], eu["results"], eu["failed"], eu["got_to_connect"]) == (
        "eu",
        "3600",
        str(FAILED),
        str(3600 - FAILED),
    )
    assert [(region["connect_p50"], region["connect_p99"]) for region in (eu, us)] == [("8", "8"), ("12", "12")]
    assert [(region["tls_p50"], region["resolve_p99"]) for region in (eu, us)] == [("16", "2"), ("24", "2")]
    assert eu["all_p99"] == "2000"


def test_who_went_silent_together(rows: Ask) -> None:
    (group,) = rows("silent_together", *HOUR)
    assert (group["nodes"], group["back"], group["zones"]) == ("3", "2", "us/c")
    assert group["first_five"] == "us-08, us-09, us-10"
    assert [found["nodes"] for found in rows("silent_together", *HOUR, "least=1")] == ["3", "1"]
    assert [found["nodes"] for found in rows("silent_together", *HOUR, "least=1", "apart_s=3600")] == ["4"]
    assert [found["nodes"] for found in rows("silent_together", *HOUR, "least=1", "apart_s=1")] == ["2", "1", "1"]


def test_an_event_by_its_trace(rows: Ask) -> None:
    (first,) = rows("first_failure", "service=checkout", "alert_at=2026-03-02 10:45:00", "rows=1")
    for spelled in (first["trace_id"], first["trace_id"].upper()):
        (event,) = rows("event_by_trace", f"trace_id={spelled}")
        assert (event["ts"], event["node_id"], event["success"]) == (first["ts"], "eu-07", "false")
        assert event["labels"] == "{'rack':'r1'}"
    assert rows("event_by_trace", "trace_id=nothing") == []


def test_the_tables_p99_is_within_one_percent_of_the_exact_one(rows: Ask, server: Server) -> None:
    found = rows("exact_p99", *HOUR, "slo=checkout-answers", "service=checkout")
    assert len(found) == 60
    assert {(row["results"], row["raw_results"]) for row in found} == {("240", "240")}
    assert max(abs(float(row["off_percent"])) for row in found) <= 1.0
    assert len({row["off_percent"] for row in found}) > 10
    # The smallest latency that at least 99 % of 240 do not exceed is the 238th.
    minute = "SELECT latency_us FROM probe_results WHERE service = 'checkout' AND toStartOfMinute(ts) = {m:DateTime}"
    raw = server.ask(f"{minute} ORDER BY latency_us LIMIT 1 OFFSET 237", param_m="2026-03-02 10:50:00")
    assert float(found[50]["exact_p99_ms"]) == int(raw.text) / 1_000
    gone = rows("exact_p99", *HOUR, "slo=checkout-answers", "service=none")
    assert {(row["raw_results"], row["exact_p99_ms"], row["off_percent"]) for row in gone} == {("0", "\\N", "\\N")}


def test_every_query_of_the_library_is_tested_and_on_the_page() -> None:
    tests, page = Path(__file__).read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")
    assert [name for name in library() if f'rows("{name}"' not in tests] == []
    assert [name for name in library() if f"--name {name} " not in page] == []


def test_the_page_shows_what_the_queries_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    answered = page
    assert len(SESSION.findall(page)) == len(library())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)  # the page shows what a terminal does
    for session in SESSION.finditer(page):
        assert fleetbeat.main(shlex.split(session["command"])[1:]) == 0
        said = capfd.readouterr().out
        answered = answered.replace(session[0], f"```console\n$ {session['command']}\n{said}```")
    if os.environ.get("UPDATE_DRILL_DOWN"):
        PAGE.write_text(answered, encoding="utf-8")
    assert answered == page


class TestCommand:
    def test_a_statement_from_stdin_and_its_parameters(self, server: Server) -> None:
        command = [
            sys.executable,
            "-m",
            "fleetbeat",
            "sql",
            "--param",
            "node=a\tb\\'é",
            "--url",
            f"http://{server.address}",
        ]
        done = subprocess.run(
            command, input="SELECT {node:String}, 1\n;", capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "a\\tb\\\\\\'é\t1\n", "")

    def test_a_time_is_read_in_ones_own_statement_too(self, capfd: pytest.CaptureFixture[str]) -> None:
        for kind, said in (("DateTime64(3, 'UTC')", "10:00:00.500"), ("DateTime('Asia/Shanghai')", "18:00:00")):
            at = "at=2026-03-02T12:00:00.5+02:00"
            assert fleetbeat.main(["sql", "--query", f"SELECT {{at:{kind}}}", "--param", at]) == 0
            assert capfd.readouterr().out == f"2026-03-02 {said}\n"

    def test_an_error_has_its_code_and_status_1(self, capfd: pytest.CaptureFixture[str]) -> None:
        for sql, said in (("SELECT * FROM nothing", "Code: 60."), ("DROP TABLE heartbeats", "Code: 164.")):
            assert fleetbeat.main(["sql", "--query", sql]) == 1
            told = capfd.readouterr()
            assert told.err.startswith(said)
            assert told.out == ""

    def test_a_reader_that_leaves_early_is_no_error(self, server: Server) -> None:
        sql = "SELECT number FROM numbers(2000000)"
        ask = f"{sys.executable} -m fleetbeat sql --url http://{server.address} --query '{sql}'"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {ask} | head -1"], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")

    def test_it_completes_what_the_endpoint_has(self, server: Server) -> None:
        words = read_words(Endpoint.parse(f"http://{server.address}"))
        told = [candidate.text for candidate in candidates(words, library(), "SELECT max(cpu_p")]
        assert told == ["cpu_permille"]
        assert "heartbeats" in [candidate.text for candidate in candidates(words, library(), "SELECT 1 FROM he")]
        assert "uniqExact(" in [candidate.text for candidate in candidates(words, library(), "SELECT uniqEx")]


class TestPrompt:
    def test_it_answers_goes_on_after_an_error_and_remembers(
        self, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        asked = [
            "SELECT 40",
            " + 2;",
            "SELECT * FROM nothing;",
            "\\format CSV",
            "\\run node_hour node=eu-07",
            "\\tables",
        ]
        with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
            typed.send_text("".join(f"{line}\r" for line in [*asked, "\\run nowhere", "\\help", "exit"]))
            prompt = Prompt(Endpoint.parse(f"http://{server.address}"), "TabSeparated", tmp_path / "state" / "history")
            assert prompt.run() == 0
        told = capfd.readouterr()
        answers = told.out.splitlines()
        assert answers[0] == "42"
        assert len([line for line in answers if line.startswith('"20')]) in {60, 61}, "an hour's minutes"
        assert '"probe_results",21600,""' in answers
        assert "\\library" in told.out
        assert told.err.startswith("Code: 60.")
        assert "no query 'nowhere'; expected one of: burning_slos" in told.err
        history = (tmp_path / "state" / "history").read_text()
        assert "+SELECT 40\n+ + 2;\n" in history
        assert (tmp_path / "state" / "history").stat().st_mode & 0o077 == 0

    def test_it_answers_where_nothing_can_be_written(self, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
        with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
            typed.send_text("SELECT 42;\rexit\r")
            prompt = Prompt(Endpoint.parse(f"http://{server.address}"), "TabSeparated", Path("/dev/null/state/history"))
            assert prompt.run() == 0
        told = capfd.readouterr()
        assert told.out == "42\n"
        assert told.err == "/dev/null/state/history: Not a directory; what is asked is not kept\n"

    def test_a_table_is_completed(self, server: Server) -> None:
        suggestions = Suggestions(read_words(Endpoint.parse(f"http://{server.address}")))
        found = suggestions.get_completions(Document("SELECT count() FROM request_c"), CompleteEvent())
        assert [(completion.text, completion.start_position) for completion in found] == [("request_counts", -9)]

    def test_nobody_there(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        assert fleetbeat.main(["sql", "--url", "http://127.0.0.1:1"]) == 3
        assert "no answer" in capfd.readouterr().err
