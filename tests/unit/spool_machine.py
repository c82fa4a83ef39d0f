"""A spool, a broker that knows batches by their stamps, and everything that may happen to both in any order."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agents.spool.files import Files
from agents.spool.journal import Stamp
from agents.spool.journal import _read as read_slot
from agents.spool.layout import Era
from agents.spool.segments import SUFFIX
from agents.spool.store import JOURNAL, Store

SEGMENT_BYTES = 300
MAX_BYTES = 2_000
BOOTS = (Era(b"a" * 16, 1_000_000, 0), Era(b"b" * 16, 2_000_000, 500))


class Killed(BaseException):
    """The process ends at a system call."""


class DyingFiles(Files):
    """Ends the process at one of the next calls, a write after only a part of it; or the disk is full."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.part = 0.0
        self.full = False

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self._ends():
            super().write(descriptor, data[: int(len(data) * self.part)], offset)
            raise Killed
        if self.full and offset + len(data) > os.fstat(descriptor).st_size:
            if len(data) > 1 and self.part:
                self.part = 0.0
                return super().write(descriptor, data[: len(data) // 2], offset)
            raise OSError(28, "No space left on device")
        return super().write(descriptor, data, offset)

    def create(self, path: Path) -> int:
        if self._ends():
            raise Killed
        return super().create(path)

    def remove(self, path: Path) -> None:
        if self._ends():
            raise Killed
        super().remove(path)

    def _ends(self) -> bool:
        if self.calls_left is None:
            return False
        self.calls_left -= 1
        return self.calls_left < 0


@dataclass
class Spot:
    """Where a record's bytes are."""

    path: Path
    begin: int
    end: int


class Broker:
    """Appends a batch unless the last one of its stamp was the same, as Kafka does for an idempotent producer."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self._batches: dict[tuple[Stamp, int], list[int]] = {}

    def knows(self, stamp: Stamp) -> bool:
        return any(known == stamp for known, _ in self._batches)

    def append(self, stamp: Stamp, records: list[int]) -> None:
        before = self._batches.setdefault((stamp, len(records)), records)
        assert before == records, "another batch under the stamp of an old one: Kafka would drop it"
        if before is records:
            self.log += records


class SpoolMachine(RuleBasedStateMachine):
    """Records are numbers, 0 upwards as they are accepted; each is in the log once and in order, or accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool"))
        self.broker = Broker()
        self.era = BOOTS[0]
        self.files = DyingFiles()
        self.accepted = 0
        self.unsure: set[int] = set()
        """May be there or not: their append was cut off."""
        self.payloads: dict[int, bytes] = {}
        self.spots: dict[int, Spot] = {}
        self.damaged: set[int] = set()
        self.uncounted = 0
        self.dropped = 0
        self.dropped_unseen = 0
        self.doubt_was_damaged = False
        self.recounted = 0
        """Lost records that were counted by a process that ended before it could write that down."""
        self.corrupt = 0
        self.twice_allowed: set[int] = set()
        self.sequence = 0
        self.sent: tuple[Stamp, list[int]] | None = None
        self.store = self.opened()

    def teardown(self) -> None:
        try:
            self.check_all_arrives()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)

    def opened(self) -> Store:
        store = Store(self.folder, MAX_BYTES, self.era, self.files, SEGMENT_BYTES)
        store.open()
        return store

    @rule(count=st.integers(1, 6), size=st.integers(0, 60))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            payload = self.payloads[self.accepted] = b"%d." % self.accepted + b"x" * size
            if not self.make_room(len(payload)):
                return
            if not self.attempt(lambda payload=payload: self.store.append(1_000, payload)):  # type: ignore[misc]
                return
            path = max(self.folder.glob(f"*{SUFFIX}"))
            end = path.stat().st_size
            self.spots[self.accepted] = Spot(path, end - len(payload) - 30, end)
            self.accepted += 1

    def make_room(self, size: int) -> bool:
        while not self.store.fits(size):
            before, waiting = self.store.disk_bytes, self.store.waiting
            try:
                dropped = self.store.drop_oldest()
            except Killed:
                self.uncounted += waiting  # given up or not: nobody lived to count it
                self.dropped_unseen += waiting
                self.restart()
                return False
            self.dropped += dropped
            if not dropped and self.store.disk_bytes == before:
                return False
        return True

    def attempt(self, what: Callable[[], None]) -> bool:
        """False when the disk is full, or the process ended in it: then another one has begun."""
        try:
            what()
        except OSError:
            return False
        except Killed:
            self.unsure.add(self.accepted)
            self.uncounted += 1
            self.accepted += 1
            self.restart()
            return False
        return True

    @rule(most=st.integers(1, 8), written=st.booleans(), answered=st.booleans())
    def send(self, most: int, written: bool, answered: bool) -> None:  # noqa: FBT001 - drawn
        corrupt = self.store.corrupt
        try:
            self.send_batch(most, written=written, answered=answered)
        except Killed:
            self.recounted += self.store.corrupt - corrupt
            self.restart()

    def send_batch(self, most: int, *, written: bool, answered: bool) -> None:
        doubt = self.store.doubt
        records: list[int] = []
        while (doubt is not None or len(records) < most) and (seen := self.store.peek()) is not None:
            number = int(seen[1].split(b".")[0])
            assert self.payloads.get(number) == seen[1], "nobody has put this in"
            records.append(number)
            self.store.advance()
        if doubt is not None and not self.store.is_whole():
            assert self.damaged, "a batch in doubt came back in part, and nothing was damaged"
            self.twice_allowed |= set(records)
            self.doubt_was_damaged = True  # what is lost or given up of it is counted, and may be in Kafka
            self.store.give_up_doubt()
            return
        if not records:
            return
        stamp = doubt.stamp if doubt else Stamp(7, 0, 0, self.sequence)
        if doubt is None:
            self.sequence += len(records)
            self.store.fly(stamp)
        written = written or self.broker.knows(stamp)  # it does not refuse what it has
        if written:
            self.broker.append(stamp, records)
        if not answered:
            self.store.rewind(doubt=True)
        elif written:
            self.store.settle()
        else:
            self.store.rewind(doubt=False)

    @rule(calls=st.integers(0, 4), part=st.floats(0, 1))
    def is_about_to_die(self, calls: int, part: float) -> None:
        self.files.calls_left, self.files.part = calls, part

    @rule(part=st.sampled_from([0.0, 0.5]))
    def disk_fills_up(self, part: float) -> None:
        self.files.full, self.files.part = True, part

    @rule()
    def disk_has_room_again(self) -> None:
        self.files.full = False

    @rule()
    def kill(self) -> None:
        self.restart()

    @rule()
    def reboot(self) -> None:
        self.era = BOOTS[1] if self.era is BOOTS[0] else BOOTS[0]
        self.restart()

    def restart(self) -> None:
        self.corrupt += self.store.corrupt
        if (
            self.store.waiting
        ):  # a loss inside a batch that is not settled is found, and counted, by the next process too
            self.recounted += self.store.corrupt
        self.store.close()
        self.files = DyingFiles()
        self.store = self.opened()

    @rule(seed=st.integers(0, 1 << 16))
    def flip_a_byte(self, seed: int) -> None:
        """While no process runs."""
        rng = random.Random(seed)
        path, data = self.any_segment(rng)
        if not data:
            return
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        self.damaged |= {
            number for number, spot in self.spots.items() if spot.path == path and spot.begin <= at < spot.end
        }
        self.restart_with_damage()

    @rule(seed=st.integers(0, 1 << 16))
    def cut(self, seed: int) -> None:
        """Any segment, anywhere, while no process runs."""
        rng = random.Random(seed)
        path, data = self.any_segment(rng)
        size = rng.randrange(len(data) + 1)
        hit = {number for number, spot in self.spots.items() if spot.path == path and spot.end > size}
        with suppress(FileNotFoundError):
            os.truncate(path, size)
        self.damaged |= hit
        self.restart_with_damage()

    def restart_with_damage(self) -> None:
        """Of records at the end without a sound header nothing says how many there were: bytes are counted as one."""
        end = self.store._next
        self.restart()
        self.uncounted += max(0, end - self.store._next)

    @precondition(lambda self: self.store.doubt is None)
    @rule()
    def one_journal_slot_is_damaged(self) -> None:
        """The older one: a write was cut off by a loss of power."""
        journal = self.folder / JOURNAL
        data = bytearray(journal.read_bytes())
        slots = {place: read_slot(bytes(data[place : place + 512])) for place in (0, 512)}
        place = min(slots, key=lambda place: -1 if (slot := slots[place]) is None else slot[0])
        data[place + 20] ^= 0xFF
        journal.write_bytes(data)
        self.restart()

    def any_segment(self, rng: random.Random) -> tuple[Path, bytearray]:
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        if not paths:
            return self.folder / "none", bytearray()
        path = rng.choice(paths)
        return path, bytearray(path.read_bytes())

    @initialize()
    def nothing_yet(self) -> None:
        assert self.store.peek() is None

    def check_all_arrives(self) -> None:
        self.files.calls_left, self.files.full = None, False
        for _ in range(self.accepted + 20):
            self.send_batch(5, written=True, answered=True)
        assert (self.store.waiting, self.store.peek()) == (0, None), "something is stuck"
        log = self.broker.log
        assert all(0 <= number < self.accepted for number in log)
        once = [number for number in log if number not in self.twice_allowed]
        assert once == sorted(set(once)), f"out of order or twice: {log}"
        missing = self.accepted - len(set(log))
        counted = self.dropped + self.corrupt + self.store.corrupt
        assert missing - self.uncounted <= counted, (missing, self.uncounted, counted)
        if not self.doubt_was_damaged:
            assert counted <= missing + self.recounted, (missing, self.recounted, counted)
        lost = set(range(self.accepted)) - set(log) - self.damaged - self.unsure
        assert len(lost) <= self.dropped + self.dropped_unseen, f"lost without damage: {lost}"
