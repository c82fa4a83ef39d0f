"""The spool's store: whatever ends the process, and whatever the bytes on disk are."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agents.spool import layout
from agents.spool.journal import Journal, Settled, Stamp
from agents.spool.layout import Era
from agents.spool.segments import Segment
from agents.spool.store import Store
from tests.unit.spool_machine import SpoolMachine

ROOT = Path(__file__).parents[2]
ERA = Era(b"e" * 16, 1_000, 0)
SOME = settings(max_examples=120, stateful_step_count=25)
UNTIL_FOUND = settings(
    max_examples=1_000, stateful_step_count=25, phases=[Phase.generate], report_multiple_bugs=False, database=None
)
# Appends numbers and says each one that is in; sends the oldest three now and then, and says what was settled.
CHILD = """
import sys
from pathlib import Path
from agents.spool.journal import Stamp
from agents.spool.layout import Era
from agents.spool.store import Store
store = Store(Path(sys.argv[1]), 1 << 24, Era(b"e" * 16, 1_000, 0), segment_bytes=2_000)
store.open()
for number in range(int(sys.argv[2]), 1 << 30):
    store.append(number, b"%d" % number)
    print("in", number, flush=True)
    if number % 5 == 0 and store.doubt is None:
        sent = []
        while len(sent) < 3 and (seen := store.peek()) is not None:
            sent.append(int(seen[1]))
            store.advance()
        store.fly(Stamp(1, 0, 0, number))
        print("fly", *sent, flush=True)
        store.settle()
        print("settled", *sent, flush=True)
"""


def opened(folder: Path, max_bytes: int = 1 << 24, segment_bytes: int = 2_000) -> Store:
    store = Store(folder, max_bytes, ERA, segment_bytes=segment_bytes)
    store.open()
    return store


def all_of(store: Store) -> list[bytes]:
    found = []
    while (seen := store.peek()) is not None:
        found.append(seen[1])
        store.advance()
    return found


def test_each_record_is_in_kafka_once_and_in_order_or_is_counted_whatever_happens() -> None:
    run_state_machine_as_test(SpoolMachine, settings=SOME)


def test_without_checksums_damaged_records_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "checksum", lambda _: 0)
    with pytest.raises((AssertionError, ValueError)):
        run_state_machine_as_test(SpoolMachine, settings=UNTIL_FOUND)


def test_without_the_journal_records_are_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(_: Journal, __: Settled) -> None:
        pass

    monkeypatch.setattr(Journal, "write", forgets)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(SpoolMachine, settings=UNTIL_FOUND)


def test_kill_9_costs_nothing_that_was_taken_and_sends_again_only_what_was_on_its_way(tmp_path: Path) -> None:
    rng = random.Random()
    taken: set[int] = set()
    settled: set[int] = set()
    for _ in range(3):
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(max(taken, default=-1) + 2)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [child.stdout.readline()]
            time.sleep(rng.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
            said += child.stdout.readlines()
        flying: set[int] = set()
        for what, *numbers in (line.split() for line in said if line.endswith("\n")):
            if what == "in":
                taken |= set(map(int, numbers))
            flying = set(map(int, numbers)) if what == "fly" else flying
            settled |= set(map(int, numbers)) if what == "settled" else set()
        store = opened(tmp_path)
        if store.doubt is not None:
            again = [int(payload) for payload in all_of(store)]
            assert store.is_whole()
            assert not flying or set(again) == flying or min(again) > max(flying)
            settled |= set(again)
            store.settle()
            flying = set()
        left = [int(payload) for payload in all_of(store)]
        settled |= flying - set(left)  # it was, and the child did not get to say so
        assert left == sorted(left)
        assert taken - settled - set(left) == set()
        assert not set(left) & settled - flying
        assert store.corrupt == 0
        store.close()


def test_a_record_cut_in_the_middle_is_one_loss_and_the_start_reads_two_segments_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    for number in range(200):
        store.append(number, b"%d" % number)
    store.close()
    *others, last = sorted(tmp_path.glob("*.segment"))
    assert len(others) > 2
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size - 2)
    store = Store(tmp_path, 1 << 24, ERA, segment_bytes=2_000)
    read, looked = [], store._segments._read

    def noted(segment: Segment, offset: int, most: int | None = None) -> bytes:
        read.append(segment.path)
        return looked(segment, offset, most)

    monkeypatch.setattr(store._segments, "_read", noted)
    store.open()
    assert set(read) <= {others[0], last}  # the first one for its oldest record
    store.append(200, b"new")
    assert all_of(store) == [b"%d" % number for number in range(199)] + [b"new"]
    assert store.corrupt == 1
    store.close()


def test_what_is_given_up_while_a_batch_flies_is_not_sent_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(200):
        store.append(number, b"%d" % number)
    for _ in range(3):
        assert store.peek()
        store.advance()
    store.fly(Stamp(1, 0, 0, 0))
    assert store.expire(50) == 47
    store.close()
    store = opened(tmp_path)
    assert (store.waiting, store.unsent) == (153, 150)
    assert all_of(store) == [b"0", b"1", b"2"]
    store.settle()
    assert all_of(store)[0] == b"50"
    assert store.corrupt == 0
    store.close()
