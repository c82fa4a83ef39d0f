"""README's commands are run against a live stack, and what they answer has the shape that README shows."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.local.check import report
from infra.local.children import fleetbeat
from infra.oracle.judge import Verdict
from infra.oracle.ledger import Ledger, Names, Results
from tests.integration.up_process import WELCOMED, Up, listens, processes_with, state_of, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GAP = "…"
# More than is promised for a node that dies: other tests run beside this one.
BESIDE_OTHERS_S = 60

_NO_NUMBERS, _NO_NAMES = np.empty(0, np.int64), Names(np.empty(0, np.int32), ())
_NO_RESULTS = Results(_NO_NUMBERS, _NO_NUMBERS, np.empty(0, np.bool_), *[_NO_NAMES] * 4)
NOTHING_SENT = Ledger(frozenset(), frozenset(), frozenset(), _NO_RESULTS, _NO_RESULTS, seed=0)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@dataclass(frozen=True)
class Fenced:
    """A fenced block: what it is, its lines, and the place after it."""

    kind: str
    text: str
    end: int


def fenced(kind: str, after: str = "") -> list[Fenced]:
    """README's blocks of a kind, in order, that come after a text."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    begin = README.index(after)
    return [Fenced(m[1], m[2], m.end()) for m in found if m[1] == kind and m.start() > begin]


@dataclass(frozen=True)
class Session:
    """A command and what README shows below it."""

    command: str
    shown: str


def sessions() -> list[Session]:
    blocks = [block.text.partition("\n") for block in fenced("console")]
    return [Session(command.removeprefix("$ "), shown) for command, _, shown in blocks]


CURLS = [session for session in sessions() if session.command.startswith("curl ")]


@dataclass(frozen=True)
class Live:
    """A running `fleetbeat up`, and the default addresses with the ones that it has."""

    up: Up
    addresses: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
        return done.stdout if done.returncode == 0 else f"status {done.returncode}\n{done.stdout}{done.stderr}"

    def here(self, text: str) -> str:
        for usual, actual in self.addresses.items():
            text = text.replace(usual, actual)
        return text


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    up = Up.start(tmp_path_factory.mktemp("readme"), "--nodes=100")
    try:
        usual = {"kafka": "127.0.0.1:19092", "worker": "127.0.0.1:8080", "sql": "127.0.0.1:8123"}
        yield Live(up, {usual[name]: f"127.0.0.1:{port}" for name, port in up.ports.items()})
    finally:
        up.process.send_signal(signal.SIGINT)
        up.process.wait(100)


def test_up_says_what_is_shown(live: Live) -> None:
    (shown, *_) = fenced("text", after="<!-- shown by: make up -->")
    begun, ready, welcome = shown.text.partition("ready in ")
    for line in begun.splitlines():  # a terminal shows a table, a log has one line a change
        name, state, *_ = line.split()
        assert f"{name}: {state}" in live.up.said
    said = live.up.said
    assert like(live.here(ready + welcome), said[said.index("ready in ") : said.index(WELCOMED) + len(WELCOMED)])


def test_there_are_commands_to_try() -> None:
    assert len(CURLS) == 3
    assert len(fenced("python")) == 1


@pytest.mark.parametrize("session", CURLS, ids=lambda session: session.command[:50])
def test_a_command_answers_in_the_shape_that_is_shown(live: Live, session: Session) -> None:
    command = live.here(session.command)
    until(lambda: live.run("bash", "-c", command), lambda said: like(session.shown, said))


def test_counts_of_the_view_are_plausible(live: Live) -> None:
    command = live.here(CURLS[0].command)
    answer = json.loads(until(lambda: live.run("bash", "-c", command), lambda said: like(CURLS[0].shown, said)))
    windows = answer["windows"]
    assert [window["window_s"] for window in windows] == [10, 60, 300, 3_600, 21_600, 86_400, 604_800, 2_419_200]
    totals = [window["total"] for window in windows]
    assert totals == sorted(totals)
    assert totals[-1] > 0
    for window in windows:
        assert 0 <= window["good"] <= window["total"]
        assert 0 <= window["late"] <= window["total"]
        if window["total"]:  # ten seconds may be empty on a busy machine
            assert window["attainment"] == window["good"] / window["total"]
            assert 0 < window["p50_us"] <= window["p90_us"] <= window["p99_us"]
        assert 0 <= window["to_ms"] - window["from_ms"] - window["window_s"] * 1_000 <= 3_600_000


def test_the_last_minute_adds_up_by_the_millisecond(live: Live) -> None:
    view = f"curl -s {live.here('127.0.0.1:8080')}/api/v1/slos/checkout-latency/live"

    def asked(query: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(live.run("bash", "-c", f"{view}'?{query}'"))
        return answer

    def both() -> tuple[dict[str, Any], ...]:
        to_ms = int(time.time() * 1_000)
        return tuple(asked(f"step_ms={step}&width_ms=30000&to_ms={to_ms}") for step in (30_000, 1))

    # An event may come in between two questions.
    _, fine = until(both, lambda said: 0 < said[0].get("total", 0) == said[1].get("total"))
    assert len(fine["totals"]) == 30_000
    assert (sum(fine["totals"]), sum(fine["goods"])) == (fine["total"], fine["good"])
    assert max(fine["totals"]) < fine["total"]


def test_counts_of_sql_are_plausible(live: Live) -> None:
    command = live.here(CURLS[2].command)
    table = until(lambda: live.run("bash", "-c", command), lambda said: like(CURLS[2].shown, said))
    rows = re.findall(r"│ ([\w-]+) +│ +(\d+) │ +(\d+) │ +(\d+) │", table)
    assert len(rows) == len(table.strip().splitlines()) - 2
    for service, results, failed, p99_ms in rows:
        assert 0 <= int(failed) <= int(results)
        if not service.startswith(
            "fleetbeat-"
        ):  # of its own few: each may fail here, and reading a disk takes no millisecond
            assert int(failed) < int(results)
            assert int(p99_ms) > 0


def test_the_python_client_answers_in_the_shape_that_is_shown(live: Live) -> None:
    (block,) = fenced("python")
    shown = fenced("text", after=block.text)[0]
    code = block.text.replace("port=8123", f"port={live.addresses['127.0.0.1:8123'].rpartition(':')[2]}")
    until(lambda: live.run(sys.executable, "-c", code), lambda said: like(shown.text, said))


def test_the_examples_that_ask_get_answers(live: Live) -> None:
    views, sql = (f"http://{live.addresses[usual]}" for usual in ("127.0.0.1:8080", "127.0.0.1:8123"))
    tells(
        lambda: live.run(sys.executable, "examples/query.py", views, sql),
        r"^checkout-latency +97\.00% +[\d.]+% +\d+ +-?[\d.]+% +\d+$",
        r"^  \S+ +\w\w-1 +P99 +\d+(\.\d+)? ms, \d+ of \d+ failed$",
    )
    tells(
        lambda: live.run("env", f"VIEWS={views}", f"SQL={sql}", "bash", "examples/curl.sh"),
        r'\{"ready": true, "reason": ""\}',
        r"window_start\tfinal\ttotal\tgood\tlate",
        r'^fleetbeat_rollup_events_total\{topic="probe-results"\} [\d.e+]+$',
    )


def test_what_up_offers_can_be_tried(live: Live) -> None:
    commands = re.findall(r"^  ((?:curl|kcat) .*)$", live.up.said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        tells(partial(live.run, "bash", "-c", command), r"\A(?!status )", "checkout|ProbeResult|node-")


def test_a_second_one_is_told_who_runs_here(live: Live) -> None:
    told = live.run(*map(str, fleetbeat("up", "--state", live.up.state)))
    assert told.startswith("status 1\n")
    assert f"another fleetbeat (pid {live.up.process.pid}) runs in {live.up.state}" in told


def test_a_killed_agent_is_down_within_three_intervals_and_up_goes_on(live: Live) -> None:
    page, pid = live.up.host
    until(lambda: state_of(page), lambda state: state == "UP")
    os.kill(pid, signal.SIGKILL)
    until(lambda: state_of(page), lambda state: state == "DOWN", 3 * 5 + 2 + BESIDE_OTHERS_S)
    assert live.up.process.poll() is None


def test_ctrl_c_stops_all_of_it(live: Live) -> None:
    """The last test that asks it anything."""
    live.up.process.send_signal(signal.SIGINT)
    assert live.up.process.wait(100) == 0, live.up.log.read_text(encoding="utf-8")
    assert processes_with(str(live.up.state)) == []
    assert [port for port in live.up.ports.values() if listens(port)] == []


def test_the_line_of_a_check_has_the_fields_that_are_shown() -> None:
    # tests/integration/test_up.py runs the command; here is what README says about its answer.
    (session,) = [session for session in sessions() if session.command.endswith("up --check")]
    *_, line = session.shown.splitlines()
    shown = json.loads(line)
    assert list(shown) == list(report(Verdict(), NOTHING_SENT, 0.0))
    assert shown["agree"] is True
    assert shown["events"] == shown["heartbeats"] + shown["results"]
    assert shown["p99_worst_relative_error"] <= 0.01
    assert shown["differences"] == shown["missing"] + shown["doubled"] + shown["foreign"] == len(shown["mismatches"])


@pytest.mark.parametrize("paper", ["README.md", "docs/performance.md"])
def test_every_make_target_that_is_shown_exists(paper: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make (\w+)", (ROOT / paper).read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


def tells(ask: Callable[[], str], *patterns: str) -> None:
    """Asks until each pattern is in what is said: at once on a machine that does nothing else."""
    until(ask, lambda said: all(re.search(pattern, said, re.MULTILINE) for pattern in patterns))


def like(shown: str, said: str) -> bool:
    """Whether both have the same lines but for numbers and the width of columns; a line … stands for any lines."""
    pattern = [".*" if line == GAP else re.escape(shape(line)) for line in shown.strip("\n").splitlines()]
    return re.fullmatch("\n".join(pattern), "\n".join(map(shape, said.strip("\n").splitlines())), re.DOTALL) is not None


def shape(line: str) -> str:
    """The line with # for each number or null, and runs of blanks or rules as one."""
    numberless = re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?|\bnull\b", "#", line)
    return re.sub(r"\s+", " ", re.sub(r"─+", "─", numberless)).strip()
