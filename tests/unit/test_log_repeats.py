"""A broker that is away does not fill the log, and whoever reads it knows that something was left out."""

import json
import logging
import subprocess
import sys
import time

import pytest

from streams.log_repeats import FEW, WINDOW_S, Repeats


def record(name: str, text: str, *quoted: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, text, quoted, None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_few_are_told_then_none_and_later_how_many_there_were(clock: list[float]) -> None:
    repeats = Repeats()
    records = [record("aiokafka.client", "no %s", number) for number in range(50)]
    told = [each for each in records if repeats.filter(each)]
    assert told == records[:FEW]
    assert vars(told[-1])["muted_s"] == WINDOW_S
    clock[0] += WINDOW_S
    later = record("aiokafka.client", "no %s", 50)
    assert repeats.filter(later)
    assert vars(later)["left_out"] == 45
    clock[0] += WINDOW_S
    again = record("aiokafka.client", "no %s", 51)
    assert repeats.filter(again)
    assert not hasattr(again, "left_out")


def test_other_messages_and_our_own_are_told(clock: list[float]) -> None:
    repeats = Repeats()
    assert clock
    for number in range(20):
        assert repeats.filter(record("streams.archive", "ours"))
        assert repeats.filter(record("aiokafkaesque", "of somebody else"))
        assert repeats.filter(record("aiokafka.client", f"another one each time: {number}"))


def test_what_is_remembered_is_bounded(clock: list[float]) -> None:
    repeats = Repeats()
    assert clock
    for number in range(5_000):
        repeats.filter(record("mode", str(number)))
    assert len(repeats._seen) <= 1_000


def test_a_process_logs_so() -> None:
    program = (
        "import logging; from streams.logs import configure_logs; configure_logs(); "
        "log = logging.getLogger('aiokafka.client'); [log.error('no %s', n) for n in range(100)]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == [f"no {number}" for number in range(FEW)]
    assert 0 < lines[-1]["muted_s"] <= WINDOW_S
