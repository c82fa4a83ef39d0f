"""The spool's store: whatever ends the process, and whatever the bytes on disk are."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
SOME = settings(max_examples=60, stateful_step_count=25)
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


# Found by random worlds, and then made as short as they go: what is done to a machine, one after the other.
Step = tuple[Callable[..., None], dict[str, Any]]
M = SpoolMachine
APPEND, SEND, DIES = M.append, M.send, M.is_about_to_die
WORLDS: dict[str, list[Step]] = {
    "a loss that was counted is given up by a full spool": [
        (APPEND, {"count": 3, "size": 58}),
        (DIES, {"calls": 4, "part": 0.85}),
        *((APPEND, {"count": 5, "size": size}) for size in (31, 45, 47)),
        (APPEND, {"count": 2, "size": 16}),
        (SEND, {"most": 8, "written": False, "answered": True}),
        (SEND, {"most": 5, "written": False, "answered": False}),
        (APPEND, {"count": 3, "size": 56}),
    ],
    "with nothing in flight, too": [
        (DIES, {"calls": 3, "part": 0.26}),
        (APPEND, {"count": 2, "size": 13}),
        *((APPEND, {"count": 6, "size": size}) for size in (39, 38)),
        (SEND, {"most": 6, "written": False, "answered": True}),
        (APPEND, {"count": 1, "size": 35}),
        *((APPEND, {"count": 5, "size": size}) for size in (31, 17)),
    ],
    "a shorter batch flies before a hole": [
        *((APPEND, {"count": count, "size": size}) for count, size in ((1, 48), (5, 33), (6, 53))),
        (SEND, {"most": 8, "written": False, "answered": False}),
        (APPEND, {"count": 6, "size": 58}),
        (DIES, {"calls": 3, "part": 0.34}),
        (APPEND, {"count": 4, "size": 9}),
        (SEND, {"most": 7, "written": False, "answered": True}),
        (APPEND, {"count": 2, "size": 39}),
        (SEND, {"most": 5, "written": False, "answered": False}),
        (APPEND, {"count": 1, "size": 49}),
    ],
    "a shorter batch flies before a hole, and a segment lies between": [
        (APPEND, {"count": 4, "size": 40}),
        (APPEND, {"count": 5, "size": 31}),
        (SEND, {"most": 7, "written": False, "answered": False}),
        *((APPEND, {"count": count, "size": size}) for count, size in ((4, 7), (5, 60), (6, 28))),
        (SEND, {"most": 2, "written": False, "answered": True}),
        (SEND, {"most": 1, "written": False, "answered": True}),
        (DIES, {"calls": 0, "part": 0.26}),
        (SEND, {"most": 3, "written": True, "answered": False}),
        (APPEND, {"count": 3, "size": 50}),
    ],
    "a hole over a gap is taken back": [
        *((APPEND, {"count": count, "size": size}) for count, size in ((2, 47), (6, 30))),
        (SEND, {"most": 6, "written": True, "answered": False}),
        *((APPEND, {"count": count, "size": size}) for count, size in ((5, 39), (1, 59))),
        (M.reboot, {}),
        *((APPEND, {"count": count, "size": size}) for count, size in ((2, 49), (5, 40))),
        (M.cut, {"seed": 20_322}),
        (APPEND, {"count": 2, "size": 46}),
        (SEND, {"most": 5, "written": True, "answered": True}),
        (SEND, {"most": 1, "written": False, "answered": False}),
        (APPEND, {"count": 2, "size": 58}),
        (SEND, {"most": 3, "written": False, "answered": True}),
        (APPEND, {"count": 3, "size": 59}),
    ],
    "a disk is full where the last segment has half a header": [
        (DIES, {"calls": 0, "part": 0.79}),
        *((APPEND, {"count": count, "size": size}) for count, size in ((5, 52), (3, 54), (2, 1), (5, 37))),
        (DIES, {"calls": 1, "part": 0.76}),
        (APPEND, {"count": 4, "size": 27}),
        (DIES, {"calls": 1, "part": 0.062}),
        (APPEND, {"count": 3, "size": 53}),
        (M.cut, {"seed": 40_304}),
        (M.disk_fills_up, {"part": 0.0}),
        (APPEND, {"count": 1, "size": 4}),
        (M.one_journal_slot_is_damaged, {}),
    ],
    "two damaged headers at the end": [
        (APPEND, {"count": 4, "size": 19}),
        (M.flip_a_byte, {"seed": 21_132}),
        (M.flip_a_byte, {"seed": 6_894}),
        (SEND, {"most": 7, "written": True, "answered": True}),
    ],
}


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


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_that_was_once_wrong(world: str) -> None:
    machine = SpoolMachine()
    for step, drawn in WORLDS[world]:
        step(machine, **drawn)
    machine.teardown()


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


@pytest.mark.parametrize("damage", [None, bytes(256)], ids=["deleted", "all zeros"])
def test_what_a_lost_journal_sends_again_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    store = Store(tmp_path, 1 << 20, ERA)
    store.open()
    for number in range(5):
        store.append(number, b"x")
    for _ in range(3):
        assert store.peek()
        store.advance()
    store.fly(Stamp(1, 0, 0, 0))
    store.settle()
    store.close()

    def begins() -> tuple[int, list[object]]:
        caplog.clear()
        again = Store(tmp_path, 1 << 20, ERA)
        again.open()
        again.close()
        return again.waiting, [getattr(line, "records", None) for line in caplog.records]

    assert begins() == (2, [])
    if damage is None:
        (tmp_path / "journal").unlink()
    else:
        (tmp_path / "journal").write_bytes(damage)
    assert begins() == (5, [5])
    assert begins() == (5, [])  # the new journal knows that nothing is settled


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
