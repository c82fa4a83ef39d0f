"""Children end with their parent, and their ends are told as they were."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.leash import Leashed, leashed

DEADLINE_S = 60.0
# Says that it is ready, then ignores polite requests.
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = """
import sys, time
from infra.leash import leashed
child = leashed(sys.argv[2:], grace_s=float(sys.argv[1]))
print(child.pid, child.holder_pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # it may end between open and read
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_python(code: str, grace_s: float) -> Leashed:
    child = leashed([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, grace_s=grace_s)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.parametrize(
    ("command", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)]
)
def test_the_exit_status_passes_through(command: str, status: int) -> None:
    with leashed(["sh", "-c", command]) as child:
        assert child.wait(DEADLINE_S) == status
        assert child.poll() == status


def test_output_and_environment_and_folder_are_the_childs(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo $COLOUR; pwd"]
    with leashed(command, env={"COLOUR": "blue"}, cwd=tmp_path, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.read().decode().splitlines() == ["blue", str(tmp_path)]


def test_a_program_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        leashed(["no-such-program"])


def test_a_child_is_asked_first_and_killed_after_the_grace() -> None:
    with start_python(STUBBORN, grace_s=0.3) as child:
        begun = time.monotonic()
        assert child.stop() == -signal.SIGKILL
        assert time.monotonic() - begun >= 0.3


def test_kill_does_not_ask() -> None:
    with start_python(STUBBORN, grace_s=600) as child:
        child.kill()
        assert child.wait(DEADLINE_S) == -signal.SIGKILL


def test_a_terminals_interrupt_does_not_reach_the_child() -> None:
    with leashed(["sleep", "600"]) as child:
        assert os.getsid(child.pid) != os.getsid(0)
        assert os.getpgid(child.pid) != os.getpgrp()


def test_grandchildren_end_with_the_child() -> None:
    with leashed(["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert child.wait(DEADLINE_S) == 0
        wait_until(lambda: not runs(grandchild))


@pytest.mark.parametrize(
    "command", [["sleep", "600"], [sys.executable, "-S", "-c", STUBBORN]], ids=["mild", "stubborn"]
)
def test_kill_9_of_the_parent_ends_the_child(command: list[str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "0.3", *command], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        # The child may say that it is ready before its parent says its number.
        numbers = next(line for line in parent.stdout if line != b"ready\n")
        child, holder = map(int, numbers.split())
        assert runs(child)
        parent.kill()
    wait_until(lambda: not runs(child) and not runs(holder))


def test_kill_9_of_the_holder_ends_the_child() -> None:
    with start_python(STUBBORN, grace_s=600) as child:
        os.kill(child.holder_pid, signal.SIGKILL)
        assert child.wait(DEADLINE_S) == -signal.SIGKILL
        wait_until(lambda: not runs(child.pid))


def test_a_held_descriptor_stays_open_as_long_as_the_child() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with leashed(["sleep", "600"], hold_fds=[writer]) as child:
        os.close(writer)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        child.stop()
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_threads_that_see_the_end_together_close_the_leash_once() -> None:
    child = leashed(["sh", "-c", "exit 3"])
    child.wait(DEADLINE_S)
    for _ in range(50):  # what poll does when it sees the end; without the guard one in a few closes a foreign number
        child._control = os.open(os.devnull, os.O_WRONLY)
        together = threading.Barrier(8)

        def see(together: threading.Barrier = together) -> int | None:
            together.wait()
            return child.poll()

        with ThreadPoolExecutor(8) as pool:
            assert [one.result() for one in [pool.submit(see) for _ in range(8)]] == [3] * 8
