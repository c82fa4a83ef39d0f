"""Probes of this host, and the threads that keep what blocks away from everything else."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agents.probes.base import Down, Outcome, Phase, Timeout, Up
from agents.probes.disk import DiskConfig, DiskProbe
from agents.probes.process import ProcessConfig, ProcessProbe
from agents.probes.threads import SideThread
from agents.probes.watch import Watch, watched


def disk(path: Path, **config: object) -> Outcome:
    return asyncio.run(DiskProbe(DiskConfig.model_validate({"path": path, **config})).run(60.0))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"min_free_percent": 0, "min_free_inodes_percent": 0}, None),
        ({"min_free_percent": 0, "min_free_inodes_percent": 0, "min_free": "1 KiB"}, None),
        ({"min_free_percent": 100, "min_free_inodes_percent": 0}, "disk-full"),
        ({"min_free_percent": 0, "min_free_inodes_percent": 0, "min_free": "8 EiB"}, "disk-full"),
        ({"min_free_percent": 0, "min_free_inodes_percent": 100}, "no-inodes"),
    ],
)
def test_a_disk_has_enough_or_not(config: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    if reason == "no-inodes" and not os.statvfs(tmp_path).f_files:
        pytest.skip("this file system counts no inodes")
    outcome = disk(tmp_path, **config)
    assert (outcome.reason if isinstance(outcome, Down) else None) == reason, outcome
    assert outcome.notes[0].startswith("free: ")


def test_a_path_that_is_not_there_is_down(tmp_path: Path) -> None:
    outcome = disk(tmp_path / "gone")
    assert isinstance(outcome, Down)
    assert (outcome.reason, outcome.detail) == ("no-file-system", f"{tmp_path}/gone: No such file or directory")


def test_a_process_is_counted_by_its_name_and_command_line() -> None:
    mark = f"fleetbeat-test-{os.getpid()}"
    ask = ProcessProbe(ProcessConfig(cmdline_contains=mark))
    assert _reason(asyncio.run(ask.run(60.0))) == "too-few-processes"
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", mark]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert _reason(asyncio.run(ask.run(60.0))) is None
        none_allowed = ProcessProbe(ProcessConfig(cmdline_contains=mark, min_count=0, max_count=0))
        assert _reason(asyncio.run(none_allowed.run(60.0))) == "too-many-processes"
        other_name = ProcessProbe(ProcessConfig(name="nobody", cmdline_contains=mark))
        assert _reason(asyncio.run(other_name.run(60.0))) == "too-few-processes"
        child.kill()
        deadline = time.monotonic() + 60
        while _reason(asyncio.run(ask.run(60.0))) is None:  # a zombie, since nobody has waited for it, does not count
            assert time.monotonic() < deadline
    finally:
        child.kill()
        child.communicate()


def _reason(outcome: Outcome) -> str | None:
    assert not isinstance(outcome, Timeout)
    return outcome.reason if isinstance(outcome, Down) else None


def test_the_process_that_probes_does_not_count_itself() -> None:
    code = (
        "import asyncio, sys; from agents.probes.process import ProcessConfig, ProcessProbe\n"
        "print(asyncio.run(ProcessProbe(ProcessConfig(cmdline_contains=sys.argv[1])).run(60.0)))"
    )
    command = [sys.executable, "-c", code, f"only-me-{os.getpid()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("Down(reason='too-few-processes'"), done.stdout


class Mount:
    """A file system that hangs until it is mended."""

    def __init__(self) -> None:
        self.mended = threading.Event()
        self.calls = 0

    def look(self) -> int:
        self.calls += 1
        assert self.mended.wait(60)
        return self.calls


def test_a_call_that_hangs_is_a_timeout_and_costs_one_thread_however_often_it_is_probed() -> None:
    mount = Mount()
    side = SideThread(mount.look)

    async def steps(watch: Watch) -> Outcome:
        watch.note(f"call {await side.call()}")
        return watch.up()

    async def main() -> Outcome:
        before = threading.active_count()
        for _ in range(5):
            outcome = await watched(steps, 0.02)
            assert isinstance(outcome, Timeout)
            assert outcome.phase is Phase.WORK
        assert threading.active_count() == before + 1
        assert mount.calls == 1
        mount.mended.set()
        return await watched(steps, 60.0)

    outcome = asyncio.run(main())
    assert isinstance(outcome, Up), outcome
    assert outcome.notes == ("call 2",)


def test_a_call_that_hangs_does_not_keep_the_process_from_ending() -> None:
    code = (
        "import asyncio, threading\nfrom agents.probes.threads import SideThread\n"
        "async def main():\n"
        "    try:\n        await asyncio.wait_for(SideThread(threading.Event().wait).call(), 0.05)\n"
        "    except TimeoutError:\n        print('stopped')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_what_a_call_raises_is_raised_and_heard_of_only_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "gone")

    async def main() -> None:
        side = SideThread(fail)
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                await side.call()

    asyncio.run(main())
    assert caplog.records == []
