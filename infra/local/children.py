"""One child process of the stack: started on a leash, its output in a log file, watched until it is ready."""

import os
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import infra
from infra import InfraError
from infra.leash import Leashed, leashed

POLL_S = 0.15
LOG_LINES = 12
_HTTP_TIMEOUT_S = 2.0


class ChildFailedError(InfraError):
    """A process ended, or did not get ready in time; the message has the end of its log."""


class Child:
    """A running process and its log file, which keeps what earlier runs wrote."""

    def __init__(self, name: str, command: Sequence[str | Path], log_path: Path, grace_s: float = 15.0) -> None:
        """Starts it. Raises ChildFailedError when there is no such program."""
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._leash: Leashed = leashed(command, env=child_environment(), stdout=log, grace_s=grace_s)
            except OSError as cause:
                raise ChildFailedError(f"{name} could not be started: {cause}") from cause

    @property
    def pid(self) -> int:
        """Of the process itself, not of its holder."""
        return self._leash.pid

    def poll(self) -> int | None:
        """The exit status once it has ended."""
        return self._leash.poll()

    def stop(self) -> int:
        """Asks it to stop, waits, kills it after its grace; returns the exit status."""
        return self._leash.stop()

    def terminate(self) -> None:
        """Asks it to stop and does not wait."""
        self._leash.terminate()

    def kill(self) -> None:
        """Ends it at once, by kill -9."""
        self._leash.kill()

    def ended(self) -> ChildFailedError:
        """The sentence for a process that is no longer there."""
        code = self.poll()
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        return ChildFailedError(f"{self.name} {how}; {self._last_words()}")

    def await_ready(self, unready: Callable[[], str | None], timeout_s: float) -> None:
        """Returns when `unready` has nothing to say. Raises ChildFailedError at the deadline, or when it ended."""
        deadline = time.monotonic() + timeout_s
        while (reason := unready()) is not None:
            if self.poll() is not None:
                raise self.ended()
            if time.monotonic() > deadline:
                raise ChildFailedError(
                    f"{self.name} was not ready after {timeout_s:.0f} s ({reason}); {self._last_words()}"
                )
            time.sleep(POLL_S)

    def await_end(self, timeout_s: float) -> None:
        """Returns when it has ended well. Raises ChildFailedError for any other end, or at the deadline."""
        try:
            code = self._leash.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildFailedError(f"{self.name} still ran after {timeout_s:.0f} s; {self._last_words()}") from None
        if code != 0:
            raise self.ended()

    def _last_words(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-16_384:].decode(errors="replace").splitlines()[-LOG_LINES:]
        return (
            "\n  ".join([f"the end of {self.log_path}:", *lines]) if lines else f"it wrote nothing to {self.log_path}"
        )


def fleetbeat(*arguments: str | Path) -> list[str | Path]:
    """A command of this very installation, whatever lies in the folder where the user stands (-P)."""
    return [sys.executable, "-P", "-m", "fleetbeat", *arguments]


def child_environment() -> dict[str, str]:
    """This environment; run from a checkout that is not installed, with the checkout on the path."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    root = str(Path(infra.__file__).resolve().parents[1])
    if root not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{inherited}" if inherited else root
    return environment


def unready(url: str) -> str | None:
    """Why a GET does not give 200 right now, in the server's words when it has some; None when it does."""
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT_S):  # noqa: S310 - http on loopback, built by us
            return None
    except urllib.error.HTTPError as refusal:
        return f"{url} says {refusal.code}: {refusal.read(200).decode(errors='replace').strip()}"
    except OSError as cause:  # refused, reset or timed out
        return f"{url} does not answer: {cause}"
