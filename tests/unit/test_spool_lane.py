"""The lane on disk: what a full spool and a full disk cost, and what a process that ends leaves to the next one."""

import errno
import os
import random
from pathlib import Path

import pytest

from agents.app import CannotStartError, _lanes
from agents.clock import SystemClock
from agents.config import load_agent
from agents.lane import MemoryLane
from agents.publish import Drop
from agents.spool.files import Files
from agents.spool.journal import Stamp
from agents.spool.lane import SpoolLane, SpoolLimits
from agents.spool.layout import Era
from agents.spool.place import SpoolError, SpoolPlace
from agents.spool.store import Store
from tests.unit.spool_machine import DyingFiles

ERA = Era(b"e" * 16, 1_000, 0)
STAMP = Stamp(5, 0, 0, 0)


def lane(folder: Path, files: Files | None = None, when_full: str = "drop_oldest", max_bytes: int = 4_000) -> SpoolLane:
    store = Store(folder, max_bytes, ERA, files, segment_bytes=500)
    store.open()
    limits = SpoolLimits(max_bytes, 60, when_full, 10, memory_records=3)  # type: ignore[arg-type]
    return SpoolLane(store, limits, random.Random(1))


def hand_over(one: SpoolLane, most: int = 1_000) -> list[bytes]:
    got: list[bytes] = []

    def accepts(value: bytes) -> bool:
        if len(got) == most:
            return False
        got.append(value)
        return True

    one.hand_over(accepts)
    return got


def test_a_full_spool_gives_up_the_oldest_or_refuses_the_newest_or_has_no_room(tmp_path: Path) -> None:
    for policy in ("drop_oldest", "drop_newest", "block"):
        folder = tmp_path / policy
        folder.mkdir()
        one = lane(folder, when_full=policy, max_bytes=40_000)
        values = [b"%4d" % number * 100 for number in range(150)]
        refused = [one.offer(value, 1.0) for value in values].count(Drop.BUFFER_FULL)
        figures, got = one.figures(), hand_over(one)
        assert figures.disk_bytes <= 40_000
        if policy == "drop_oldest":
            assert got == values[-len(got) :]
            assert figures.dropped == {Drop.EVICTED: 150 - len(got)}
        else:
            assert got == values[: len(got)]
            assert figures.dropped == {Drop.BUFFER_FULL: refused}
            assert refused == 150 - len(got)
        assert one.has_room() == (policy != "block")
        one.close()


def test_a_full_disk_costs_nothing_that_fits_into_memory_and_keeps_the_order(tmp_path: Path) -> None:
    files = DyingFiles()
    one = lane(tmp_path, files)
    assert one.offer(b"0", 1.0) is None
    files.full = True
    assert [one.offer(b"%d" % number, 1.0) for number in (1, 2, 3, 4)] == [None, None, None, Drop.DISK_FAILED]
    assert (one.figures().in_memory, len(one)) == (3, 4)
    files.full = False
    assert one.offer(b"5", 3.0) is None
    assert one.figures().in_memory == 0
    one.close()
    again = lane(tmp_path)
    assert hand_over(again) == [b"0", b"1", b"2", b"3", b"5"]
    again.close()


def test_while_the_disk_is_full_kafka_still_gets_all_in_order(tmp_path: Path) -> None:
    files = DyingFiles()
    one = lane(tmp_path, files)
    one.offer(b"0", 1.0)
    files.full = True
    one.offer(b"1", 1.0)
    for value in (b"0", b"1"):
        assert hand_over(one) == [value]
        one.fly(STAMP)
        one.lose_sight()
        assert one.doubt is not None
        assert hand_over(one) == [value]
        assert one.fly(STAMP)
        one.acknowledge()
    assert (len(one), one.figures().acknowledged) == (0, 2)
    one.close()


def test_what_is_not_on_its_way_leaves_memory_when_the_disk_takes_it_while_kafka_is_away(tmp_path: Path) -> None:
    files = DyingFiles()
    one = lane(tmp_path, files)
    files.full = True
    for value in (b"0", b"1", b"2"):
        one.offer(value, 1.0)
    assert hand_over(one, 1) == [b"0"]
    one.fly(STAMP)
    files.full = False
    one.expire(3.0)
    assert (one.figures().in_memory, len(one)) == (1, 3)
    assert one.offer(b"3", 3.0) is None
    one.lose_sight()
    assert hand_over(one) == [b"0"]
    assert one.fly(STAMP)
    one.acknowledge()
    one.close()
    again = lane(tmp_path)
    assert hand_over(again) == [b"1", b"2", b"3"]
    again.close()


def test_nothing_is_synced_before_a_record_has_waited_and_then_once_in_a_while(tmp_path: Path) -> None:
    one = lane(tmp_path)
    one.offer(b"0", 100.0)
    assert one.unsynced(105.0) == set()
    assert {path.name for path in one.unsynced(111.0)} >= {"journal"}
    one.offer(b"1", 111.5)
    assert one.unsynced(112.0) == set()
    assert one.unsynced(122.0)
    hand_over(one)
    one.fly(STAMP)
    one.acknowledge()
    assert one.unsynced(999.0) == set()
    one.close()


class Unsyncable(Files):
    """A disk that fails to sync, until it is mended."""

    def __init__(self) -> None:
        self.broken = True
        self.synced: list[str] = []
        self.written: list[str] = []

    def open(self, path: Path) -> int:
        self.written.append(path.name)
        return super().open(path)

    def sync(self, path: Path) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(path.name)


def test_what_the_disk_failed_to_sync_is_written_and_synced_again(tmp_path: Path) -> None:
    files = Unsyncable()
    one = lane(tmp_path, files)
    one.offer(b"0", 100.0)
    paths = one.unsynced(111.0)
    failed = one.sync(paths)
    assert failed == paths
    one.sync_failed(failed)
    assert one.unsynced(111.5) == set(), "not at once"
    assert files.written == []
    files.broken = False
    journal = (tmp_path / "journal").read_bytes()
    again = one.unsynced(122.0)
    assert again == paths
    segment = f"{0:020d}.segment"
    assert files.written == [segment], "a kernel holds for clean what it failed to write: it is written anew"
    assert (tmp_path / "journal").read_bytes() != journal
    assert one.sync(again) == set()
    assert set(files.synced) == {"journal", segment, tmp_path.name}
    assert one.unsynced(999.0) == set()
    one.close()
    after = lane(tmp_path)
    assert hand_over(after) == [b"0"]
    after.close()


def test_a_file_that_is_gone_needs_no_sync(tmp_path: Path) -> None:
    one = lane(tmp_path)
    one.offer(b"0", 100.0)
    paths = one.unsynced(111.0)
    hand_over(one)
    one.fly(STAMP)
    one.acknowledge()
    assert one.sync({*paths, tmp_path / "gone.segment"}) == set()
    one.close()


def test_what_waits_for_too_long_is_dropped_and_a_stop_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    one = lane(tmp_path)
    for second in (0.0, 30.0, 90.0):
        one.offer(b"%d" % second, second)
    one.expire(100.0)
    assert one.figures().dropped == {Drop.EXPIRED: 2}
    assert one.give_up() == 0
    one.close()
    again = lane(tmp_path)
    assert (len(again), again.oldest_s(), hand_over(again)) == (1, 90.0, [b"90"])
    again.close()


def test_a_first_start_on_a_full_disk_keeps_records_in_memory_and_any_other_trouble_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(f"node: {{id: web-17}}\nspool: {{dir: {tmp_path / 'spool'}}}\n")

    def fails(code: int) -> None:
        def create(_: Files, path: Path) -> int:
            raise OSError(code, os.strerror(code), str(path))

        monkeypatch.setattr(Files, "create", create)

    fails(errno.ENOSPC)
    place, lanes = _lanes(load_agent(config), SystemClock(), random.Random(1))
    assert place is None
    assert {type(one) for one in lanes.values()} == {MemoryLane}
    fails(errno.EROFS)
    with pytest.raises(CannotStartError, match="read-only file system"):
        _lanes(load_agent(config), SystemClock(), random.Random(1))


def test_a_boot_is_later_than_the_one_before_also_when_the_clock_was_set_back(tmp_path: Path) -> None:
    one = SpoolPlace(tmp_path, "web-17")
    hour_ms = 3_600_000
    assert [one.boot_ts(at) for at in (5 * hour_ms, 4 * hour_ms, 4 * hour_ms, 6 * hour_ms)] == [
        5 * hour_ms,
        5 * hour_ms + 1,
        5 * hour_ms + 2,
        6 * hour_ms,
    ]
    (one.folder / "boot").write_text("torn\0")
    assert one.boot_ts(7) == 7
    (one.folder / "boot").unlink()
    (one.folder / "boot").mkdir()
    assert one.boot_ts(8) == 8, "what cannot be kept is no reason not to start"


def test_a_node_has_a_folder_of_its_own_for_one_agent(tmp_path: Path) -> None:
    first = SpoolPlace(tmp_path, "web-17")
    assert SpoolPlace(tmp_path, "web-18").folder != first.folder
    with pytest.raises(SpoolError, match="another agent uses it; expected one agent for each node"):
        SpoolPlace(tmp_path, "web-17")
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="not a directory"):
        SpoolPlace(tmp_path / "file", "web-17")
