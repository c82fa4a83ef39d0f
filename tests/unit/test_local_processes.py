"""Watching a child process of the stack: ready, ended too early, too slow, stopped; with commands of two lines."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.check import FLEET_STARTS_S, MINUTE_SETTLES_S, SHORTEST_S, lasts_s
from infra.local.children import Child, ChildFailedError, child_environment, unready
from infra.local.figures import Figures, status_line, total
from infra.local.signals import StopAskedError, StopSwitch

Start = Callable[[str], Child]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def child(program: str) -> Child:
        return Child("helper", [sys.executable, "-c", program], tmp_path / "logs" / "helper.log", grace_s=1.0)

    return child


def test_is_ready_when_it_says_so(start: Start, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    child = start(f"open({str(sign)!r}, 'w'); import time; time.sleep(60)")
    try:
        child.await_ready(lambda: None if sign.exists() else "no sign", timeout_s=60)
        assert child.poll() is None
    finally:
        child.stop()
    assert child.poll() == -signal.SIGTERM


def test_one_that_ends_while_waited_for_is_reported_at_once_with_its_last_words(start: Start, tmp_path: Path) -> None:
    begun = time.monotonic()
    child = start("print('no such topic'); raise SystemExit(3)")
    with pytest.raises(ChildFailedError) as caught:
        child.await_ready(lambda: "waiting", timeout_s=100)
    assert time.monotonic() - begun < 50
    assert str(caught.value) == f"helper ended with status 3; the end of {tmp_path}/logs/helper.log:\n  no such topic"


def test_one_that_never_gets_ready_is_reported_at_the_deadline(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    try:
        with pytest.raises(ChildFailedError, match=r"helper was not ready after 0 s \(waiting\); it wrote nothing to"):
            child.await_ready(lambda: "waiting", timeout_s=0.2)
    finally:
        child.stop()


def test_last_words_are_of_this_run_and_not_of_the_one_before(start: Start, tmp_path: Path) -> None:
    start("print('old words')").await_end(60)
    with pytest.raises(ChildFailedError) as caught:
        start("raise SystemExit(1)").await_end(60)
    assert "old words" not in str(caught.value)
    assert (tmp_path / "logs" / "helper.log").read_text(encoding="utf-8") == "old words\n"


def test_a_signal_that_ended_it_is_named(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildFailedError, match="helper was ended by signal 9"):
        child.await_end(60)


def test_a_program_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ChildFailedError, match=r"helper could not be started: .*No such file"):
        Child("helper", ["/nowhere/at/all"], tmp_path / "helper.log")


def test_nothing_listens_is_not_ready() -> None:
    reason = unready("http://127.0.0.1:1/-/ready")
    assert reason is not None
    assert reason.startswith("http://127.0.0.1:1/-/ready does not answer: ")


def test_children_import_fleetbeat_from_where_this_process_did() -> None:
    import infra

    root = str(Path(infra.__file__).parents[1])
    assert "site-packages" in root or child_environment()["PYTHONPATH"].split(os.pathsep)[0] == root


def test_the_first_signal_asks_to_stop_and_later_ones_only_hurry() -> None:
    hurried: list[bool] = []
    with StopSwitch() as switch:
        with pytest.raises(StopAskedError):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # while it unwinds: nothing is raised
        switch.stopping(lambda: hurried.append(True))
        os.kill(os.getpid(), signal.SIGINT)
    assert hurried == [True]


@pytest.mark.parametrize("second", [0, 10, 30, 56, 57, 58, 59.9])
def test_a_check_lasts_until_a_minute_of_its_events_is_over_and_settled(second: float) -> None:
    begins = 1_700_000_040 + second  # a whole minute and some seconds
    fleet_starts, ends = begins + FLEET_STARTS_S, begins + lasts_s(begins)
    minute_end = (fleet_starts // 60 + 1) * 60
    assert lasts_s(begins) >= SHORTEST_S
    assert ends >= minute_end + MINUTE_SETTLES_S
    assert lasts_s(begins) <= 60 + FLEET_STARTS_S + MINUTE_SETTLES_S


def test_figures_are_sums_over_the_series_of_a_metric() -> None:
    text = '# HELP rows x\nrows_total{topic="a"} 3\nrows_total{topic="b"} 1e3\nrows_total_x 9\nplain 7\n'
    assert (total(text, "rows_total"), total(text, "plain"), total(text, "absent")) == (1_003, 7, 0)


def test_the_status_line_shows_rates() -> None:
    before, now = Figures(1.0, 6, 6, 0, 0, 100, 0, 90, 0), Figures(3.0, 6, 5, 6_000, 12, 500, 3, 1_090, 10)
    assert status_line(before, now) == (
        "5 of 6 SLOs kept · 1,090 nodes up, 10 down · 3,000 events/s counted (lag 12) · 200 rows/s stored (lag 3)"
    )
    assert status_line(None, now) == (
        "5 of 6 SLOs kept · 1,090 nodes up, 10 down · 6,000 events counted (lag 12) · 500 rows stored (lag 3)"
    )
    assert "does not answer" in status_line(before, None)
