"""Threads of a real engine: those that merge are in SCHED_IDLE while they give way, all others and afterwards none."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streams.archive import merge_threads
from streams.archive.embedded import EmbeddedStore
from streams.archive.merge_threads import MANY_PARTS, MergeThreads, giving_way, why_not
from streams.archive.metrics import ArchiveMetrics

if sys.platform != "linux":
    pytest.skip("only Linux has SCHED_IDLE", allow_module_level=True)

NOBODY = 65_534

need_it = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """Its engine has threads that merge: they have merged."""
    with EmbeddedStore(tmp_path_factory.mktemp("merges") / "store", memory_cap_bytes=1 << 30) as opened:
        with opened.handle() as handle:
            handle.query("CREATE TABLE telemetry.merged (n UInt64) ENGINE = MergeTree ORDER BY n")
            for _ in range(12):
                handle.query("INSERT INTO telemetry.merged SELECT number FROM numbers(100)")
        yield opened


def policies() -> dict[int, tuple[str, int]]:
    """Name and scheduling class of each thread of this process."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            found[int(task.name)] = (task / "comm").read_text().strip(), os.sched_getscheduler(int(task.name))
        except OSError:
            continue  # it has ended
    return found


def merging() -> set[int]:
    """The classes of threads that merge, of which there must be some."""
    found = {policy for name, policy in policies().values() if name == "MergeMutate"}
    assert found, f"no thread MergeMutate, so nothing is tested: {policies()}"
    return found


def others() -> set[int]:
    return {policy for name, policy in policies().values() if name != "MergeMutate"}


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, policies()
        time.sleep(0.02)


@contextmanager
def bystander(policy: int) -> Iterator[None]:
    """Meanwhile there is a thread in this scheduling class that does not merge."""
    done = threading.Event()

    def wait() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        done.wait(60)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        until(lambda: policy in others())
        yield
    finally:
        done.set()
        thread.join()


@need_it
def test_threads_that_merge_are_idle_and_normal_again_and_no_other_is_touched(store: EmbeddedStore) -> None:
    assert (merging(), others()) == ({os.SCHED_OTHER}, {os.SCHED_OTHER})
    with bystander(os.SCHED_BATCH):
        threads = MergeThreads()
        untouched = {os.SCHED_OTHER, os.SCHED_BATCH}
        for _ in range(2):
            threads.place(idle=True)
            assert (merging(), others()) == ({os.SCHED_IDLE}, untouched)
            with store.handle() as handle:
                assert handle.query("OPTIMIZE TABLE telemetry.merged FINAL").data == b""
            threads.place(idle=False)
            assert (merging(), others()) == ({os.SCHED_OTHER}, untouched)
        threads.place(idle=True)
        threads.end()
        threads.place(idle=True)  # it was on its way
        assert (merging(), others()) == ({os.SCHED_OTHER}, untouched)


@need_it
@pytest.mark.usefixtures("store")
def test_a_thread_that_merges_no_more_is_taken_out_too() -> None:
    threads = MergeThreads()
    with bystander(os.SCHED_IDLE):
        try:
            threads.place(idle=True)
            assert (merging(), others()) == ({os.SCHED_IDLE}, {os.SCHED_OTHER})
        finally:
            threads.end()


@need_it
def test_while_it_runs_the_engines_parts_decide(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_threads, "_PLACE_EVERY_S", 0.02)
    monkeypatch.setattr(merge_threads, "_ASK_EVERY_S", 0.05)
    metrics = ArchiveMetrics()

    def figure(name: str) -> float:
        return metrics.registry.get_sample_value(f"fleetbeat_archive_{name}") or 0

    async def run() -> None:
        with store.handle() as handle:
            async with giving_way(store, metrics):
                await asyncio.to_thread(until, lambda: merging() == {os.SCHED_IDLE} and figure("merges_give_way") == 1)
                handle.query("SYSTEM STOP MERGES telemetry.merged")
                handle.query(
                    "INSERT INTO telemetry.merged SELECT number FROM numbers(150)"
                    " SETTINGS max_block_size = 1, min_insert_block_size_rows = 1, max_insert_threads = 1"
                )
                await asyncio.to_thread(until, lambda: merging() == {os.SCHED_OTHER} and figure("merges_give_way") == 0)
                assert figure("parts") >= MANY_PARTS
                handle.query("SYSTEM START MERGES telemetry.merged")
                handle.query("OPTIMIZE TABLE telemetry.merged FINAL")
                await asyncio.to_thread(until, lambda: merging() == {os.SCHED_IDLE} and figure("merges_give_way") == 1)
        assert merging() == {os.SCHED_OTHER}
        assert figure("merges_give_way") == 0

    with capture_logs() as logs:
        asyncio.run(run())
    assert logs == []


def test_where_they_may_not_threads_are_left_alone(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_threads, "_PLACE_EVERY_S", 0.01)
    metrics = ArchiveMetrics()
    before, seen = merging(), set()

    async def run() -> None:
        async with giving_way(store, metrics, lambda: "no"):
            for _ in range(20):
                await asyncio.sleep(0.02)
                seen.update(merging())

    asyncio.run(run())
    assert seen == before != {os.SCHED_IDLE}
    assert (metrics.registry.get_sample_value("fleetbeat_archive_parts") or 0) > 0, "it has not asked"


@need_it
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("limit", "answer"), [(0, "Operation not permitted"), (20, "None")])
def test_what_a_process_without_rights_needs(limit: int, answer: str) -> None:
    code = (
        "import os, resource, sys\n"
        "from streams.archive.merge_threads import why_not\n"
        "try:\n"
        f"    resource.setrlimit(resource.RLIMIT_NICE, ({limit}, {limit}))\n"
        "except ValueError:\n"
        "    sys.exit(77)\n"
        f"os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        "print(why_not(), os.sched_getscheduler(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200)
    if done.returncode == 77:
        pytest.skip(f"even root may not set RLIMIT_NICE to {limit} here")
    assert done.stderr == ""
    assert answer in done.stdout
    assert done.stdout.endswith(f" {os.SCHED_OTHER}\n")
