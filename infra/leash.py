"""Child processes that end with their parent, however the parent ends.

Between the parent and each child stands a small holder process: this file, run by path. It reads a pipe whose other end
only the parent has, so the parent's death, kill -9 included, is an end of file there: the holder then asks the child to
stop and kills it after a grace. The child itself asks the kernel to be killed when its holder dies. (It cannot ask that
for the parent: the kernel watches the *thread* that started a child, and threads of the parent may end at any time.)

Holder and child are sessions and process groups of their own. A terminal's Ctrl-C reaches the parent alone, which stops
its children in the order it wants.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

_STOP, _KILL = b"s", b"k"  # what the parent writes; end of file means _STOP
_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_EXIT_CANNOT_START = 127


class Leashed:
    """A running child on its leash; made by `leashed`, for any thread. Dropping every reference leaves it running."""

    def __init__(self, holder: subprocess.Popen[bytes], pid: int, control: int, grace_s: float) -> None:
        self.pid = pid
        self.grace_s = grace_s
        self.holder_pid = holder.pid
        self._holder = holder
        self._control: int | None = control
        self._guard = threading.Lock()  # two threads that poll must not close the same number twice

    @property
    def stdout(self) -> IO[bytes] | None:
        """The child's output when it was started with a pipe."""
        return self._holder.stdout

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: the exit status, minus the signal, or None while it was not seen to end."""
        return self._holder.returncode

    def poll(self) -> int | None:
        """The exit status once child and holder have ended."""
        code = self._holder.poll()
        if code is not None:
            self._close()
        return code

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the end. Raises subprocess.TimeoutExpired."""
        code = self._holder.wait(timeout_s)
        self._close()
        return code

    def terminate(self) -> None:
        """Asks the child to stop; after `grace_s` its holder kills it."""
        self._say(_STOP)

    def kill(self) -> None:
        """Kills the child and what is left of its process group, at once."""
        self._say(_KILL)

    def stop(self) -> int:
        """Asks, waits, and returns the exit status; takes little more than `grace_s`."""
        self.terminate()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._holder.stdout is not None:
            self._holder.stdout.close()

    def _say(self, word: bytes) -> None:
        with self._guard:
            if self._control is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended by itself
                    os.write(self._control, word)

    def _close(self) -> None:
        with self._guard:
            if self._control is not None:
                os.close(self._control)
                self._control = None


def leashed(  # noqa: PLR0913 - the knobs of a process
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = subprocess.STDOUT,
    grace_s: float = 10.0,
    hold_fds: Sequence[int] = (),
) -> Leashed:
    """Starts the command so that it ends with this process.

    `hold_fds` stay open in the holder until the child has ended, so a file lock taken here is given up neither before
    the child is gone nor when this process dies first. Raises OSError when the command cannot be started.
    """
    watched, control = os.pipe()
    answer, report = os.pipe()
    words = [os.fspath(word) for word in command]
    try:
        holder = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(watched), str(report), str(grace_s), *words],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(watched, report, *hold_fds),
            start_new_session=True,
        )
    except BaseException:
        os.close(control)
        os.close(answer)
        raise
    finally:
        os.close(watched)
        os.close(report)
    with os.fdopen(answer, "rb") as reader:
        text = reader.read().decode()
    if text.isdecimal():
        return Leashed(holder, int(text), control, grace_s)
    os.close(control)
    code = holder.wait()
    if holder.stdout is not None:
        holder.stdout.close()
    number = int(text[1:]) if text[1:].isdecimal() else 0
    raise OSError(number, os.strerror(number) if number else f"its holder ended with status {code}", words[0])


def _main(arguments: list[str]) -> int:
    """The holder's life: start the child, report its pid, hold it, end as it ended."""
    control, report, grace_s, command = int(arguments[0]), int(arguments[1]), float(arguments[2]), arguments[3:]
    signals, wake = os.pipe()
    os.set_blocking(signals, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    try:
        # The holder has one thread, so running code between fork and exec is safe.
        child = subprocess.Popen(command, process_group=0, preexec_fn=_dies_with(os.getpid()))  # noqa: PLW1509
    except (OSError, subprocess.SubprocessError) as cause:
        os.write(report, f"!{getattr(cause, 'errno', '')}".encode())
        return _EXIT_CANNOT_START
    os.write(report, str(child.pid).encode())
    os.close(report)
    _hold(child.pid, control, signals, grace_s)
    return child.wait()


def _hold(pid: int, control: int, signals: int, grace_s: float) -> None:
    """Returns when the child has ended and its process group is swept; the child is not reaped yet."""
    kill_at: float | None = None
    watched = [control, signals]
    while not _has_ended(pid):
        timeout_s = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout_s)
        words = os.read(control, 64) if control in ready else b""
        if control in ready and not words:  # the parent is gone
            watched.remove(control)
            words = _STOP
        if signals in ready and set(os.read(signals, 64)) & set(_STOP_SIGNALS):
            words += _STOP
        if _KILL in words or (kill_at is not None and time.monotonic() >= kill_at):
            os.killpg(pid, signal.SIGKILL)
        elif _STOP in words and kill_at is None:
            kill_at = time.monotonic() + grace_s
            os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):  # most children leave nobody behind
        os.killpg(pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether the child is a zombie; it stays one, so that its number cannot come to mean another process."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _dies_with(holder_pid: int) -> Callable[[], None]:
    """What the child does before it becomes the command: on Linux, tie its life to its holder's."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def tie() -> None:
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != holder_pid:  # it died before the call above
            os._exit(_EXIT_CANNOT_START)

    return tie


def _end_like(code: int) -> None:
    """Leaves with the child's exit status, or by the signal that ended it."""
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
    number = signal.Signals(-code)
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    _end_like(_main(sys.argv[1:]))
