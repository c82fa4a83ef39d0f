"""What the kernel tells of a file, and that nobody looks at the file as long as it tells nothing."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents import file_events, file_watch
from agents.file_events import FileEvents, way_to
from agents.file_watch import LOOK_EVERY_S, watch
from schemas.file_signature import Signature, signature

HEARD_S, UNHEARD_S = 20.0, 0.2


@contextmanager
def listening(path: Path) -> Iterator[FileEvents]:
    events = FileEvents(path)
    try:
        if not events.listen():
            pytest.skip(f"{path}: the kernel does not tell of every change on this file system")
        yield events
    finally:
        events.close()


def hears(events: FileEvents, seconds: float) -> bool:
    began_s = time.monotonic()
    events.wait(seconds)
    return time.monotonic() - began_s < seconds


def write(path: Path) -> None:
    path.write_text("new")


def replace(path: Path) -> None:
    (path.parent / "another").write_text("new")
    (path.parent / "another").replace(path)


def point_elsewhere(path: Path) -> None:
    """As kubelet does it: ..data is a link to the folder of this version."""
    folder = path.parent / "..2"
    folder.mkdir()
    (folder / "agent.yaml").write_text("new")
    (path.parent / "..next").symlink_to("..2")
    (path.parent / "..next").replace(path.parent / "..data")


def replace_folder(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.parent / "old")
    folder.mkdir()
    path.write_text("new")


def write_through_another_name(path: Path) -> None:
    """As when the file alone is mounted: nothing happens in its folder."""
    (path.parent.parent / "elsewhere" / "same").write_text("new")


@pytest.mark.parametrize("change", [write, replace, replace_folder, Path.unlink, os.utime, write_through_another_name])
def test_whatever_makes_it_another_is_heard(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "agent.yaml"
    path.parent.mkdir()
    path.write_text("old")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "same").hardlink_to(path)
    with listening(path) as events:
        assert not hears(events, UNHEARD_S)
        change(path)
        assert hears(events, HEARD_S)


def test_a_link_on_the_way_that_leads_elsewhere_is_heard(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "agent.yaml").write_text("old")
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "agent.yaml"
    path.symlink_to("..data/agent.yaml")
    with listening(path) as events:
        point_elsewhere(path)
        assert hears(events, HEARD_S)


def test_one_that_comes_back_is_heard_though_its_folder_was_gone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "agent.yaml"
    with listening(path) as events:
        path.parent.mkdir()
        assert hears(events, HEARD_S)
        assert events.listen()
        write(path)
        assert hears(events, HEARD_S)


def test_what_is_written_beside_it_is_not_heard(tmp_path: Path) -> None:
    path, beside = tmp_path / "agent.yaml", tmp_path / "agent.log"
    path.write_text("old")
    beside.write_text("old")
    with listening(path) as events:
        beside.write_text("new")
        assert not hears(events, UNHEARD_S)


def test_the_way_goes_over_links_and_up_again(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "b" / "file").touch()
    (root / "a" / "link").symlink_to("../b/./file")
    way = way_to(root / "a" / "link")
    assert {*way} == {*map(str, (*root.parents, root, root / "a", root / "b", root / "b" / "file"))}
    assert way[str(root / "a")] == way[str(root / "b")] > way[str(root)] == way["/"]
    (root / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        way_to(root / "loop")


def looks_in(path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[int, bool]:
    """How often the file was looked at in a time in which nothing happens; whether a write after it was told."""
    looks = 0

    def counted(what: Path) -> Signature | None:
        nonlocal looks
        looks += 1
        return signature(what)

    async def case() -> tuple[int, bool]:
        monkeypatch.setattr(file_watch, "signature", counted)
        told = asyncio.Event()
        watch(path, signature(path), told.set)
        await asyncio.sleep(seconds)
        before = looks
        write(path)
        async with asyncio.timeout(HEARD_S):
            await told.wait()
        return before, told.is_set()

    return asyncio.run(case())


def test_nobody_looks_while_the_kernel_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("old")
    with listening(path):
        assert looks_in(path, monkeypatch, 4 * LOOK_EVERY_S) == (1, True)


@pytest.mark.parametrize("why", ["file system", "too many"])
def test_where_the_kernel_cannot_tell_the_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("old")
    if why == "file system":
        monkeypatch.setattr(file_events, "_SEEN_BY_THE_KERNEL", frozenset())
    else:

        def refuse(*_: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(FileEvents, "_call", refuse)
    assert not FileEvents(path).listen()
    looks, told = looks_in(path, monkeypatch, 4 * LOOK_EVERY_S)
    assert looks > 1
    assert told


def test_the_thread_ends_with_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"

    async def case() -> None:
        watch(path, None, lambda: None)
        await asyncio.sleep(0)

    before = {*threading.enumerate()}
    asyncio.run(case())
    (thread,) = {*threading.enumerate()} - before
    path.write_text("new")
    thread.join(HEARD_S)
    assert not thread.is_alive()
