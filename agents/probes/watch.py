"""One run of a probe: phases are timed, notes kept, and whatever goes wrong becomes an outcome before the deadline."""

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable

from agents.probes.base import Down, Failure, Outcome, Phase, Phases, Timeout, Up

MAX_DETAIL = 300
_NS_PER_US = 1_000
_TIMED = frozenset(Phase) - {Phase.WORK}

_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.ETIMEDOUT: "unreachable",
}


def explain(cause: OSError) -> tuple[str, str]:
    """(tag, text) of what the kernel says; `error` is the tag of what is no answer of the network."""
    if cause.errno is None:
        return "error", str(cause) or type(cause).__name__
    return _REASONS.get(cause.errno, "error"), os.strerror(cause.errno)


class ProbeFailedError(Exception):
    """Ends a run as Down: `reason` is a tag, the message its detail."""

    failure = Failure.TRANSPORT

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ProbeInvalidError(ProbeFailedError):
    """Ends a run as Down because an answer is not the expected one: `reason` names the validator."""

    failure = Failure.VALIDATION


class Watch:
    """The phase that goes on now, the time of those before, and notes; turns them into outcomes."""

    def __init__(self) -> None:
        self.phase = Phase.WORK
        self.status_code: int | None = None
        self.cert_expires_ms: int | None = None
        self._began_ns = self._entered_ns = time.perf_counter_ns()
        self._spent_ns: dict[Phase, int] = {}
        self._notes: list[str] = []
        self._task = _current_task()
        self._cancelled_before = 0 if self._task is None else self._task.cancelling()

    def heed(self) -> None:
        """Raises CancelledError when somebody swallowed one, as asyncio.wait_for() does up to Python 3.11."""
        if self._task is not None and self._task.cancelling() > self._cancelled_before:
            raise asyncio.CancelledError

    def enter(self, phase: Phase) -> None:
        """Ends the phase that goes on and begins this one; a phase entered twice is summed."""
        self.heed()
        self._begin(phase)

    def _begin(self, phase: Phase) -> None:
        now_ns = time.perf_counter_ns()
        self._spent_ns[self.phase] = self._spent_ns.get(self.phase, 0) + now_ns - self._entered_ns
        self.phase, self._entered_ns = phase, now_ns

    def note(self, text: str) -> None:
        """Keeps a line for whoever asks how it went."""
        self._notes.append(_printable(text))

    def up(self) -> Up:
        """It works."""
        latency_us, phases = self._stop()
        return Up(latency_us, phases, self.status_code, self.cert_expires_ms, tuple(self._notes))

    @property
    def spent_us(self) -> int:
        """How long the run has taken so far."""
        return (time.perf_counter_ns() - self._began_ns) // _NS_PER_US

    def down(self, reason: str, detail: str, failure: Failure = Failure.TRANSPORT) -> Down:
        """It does not; control characters of `detail` are escaped and what is too long is cut."""
        latency_us, phases = self._stop()
        notes = tuple(self._notes)
        status, expires_ms = self.status_code, self.cert_expires_ms
        return Down(reason, _printable(detail), latency_us, phases, status, expires_ms, notes, failure)

    def invalid(self, validator: str, detail: str) -> Down:
        """There was an answer, and the validator of this name said no to it."""
        return self.down(validator, detail, Failure.VALIDATION)

    def timeout(self) -> Timeout:
        """It took too long, and this phase was going on."""
        phase = self.phase
        latency_us, phases = self._stop()
        return Timeout(latency_us, phase, phases, self.status_code, tuple(self._notes))

    def _stop(self) -> tuple[int, Phases]:
        self._begin(Phase.WORK)
        spent_us = {f"{phase}_us": ns // _NS_PER_US for phase, ns in self._spent_ns.items() if phase in _TIMED}
        return (self._entered_ns - self._began_ns) // _NS_PER_US, Phases(**spent_us)


async def watched(steps: Callable[[Watch], Awaitable[Outcome]], deadline_s: float) -> Outcome:
    """Runs the steps of a probe for at most `deadline_s` seconds; raises nothing but CancelledError.

    The steps enter phases, and return an outcome of their watch or raise: ProbeFailedError and OSError become the Down
    that they describe, anything else is a fault of the probe itself, Down with reason `error`.
    """
    watch = Watch()
    try:
        async with asyncio.timeout(deadline_s) as limit:
            outcome = await steps(watch)
            watch.heed()
            return outcome
    except ProbeFailedError as cause:
        return watch.down(cause.reason, str(cause), cause.failure)
    except OSError as cause:  # TimeoutError is one: the deadline's, or the kernel's own after many retries
        if limit.expired():
            return watch.timeout()
        reason, text = explain(cause)
        return watch.down(reason, f"{watch.phase}: {text}")
    except Exception as cause:  # noqa: BLE001 - a faulty probe, perhaps a plugin's, must not end the agent
        return watch.down("error", f"{type(cause).__name__}: {cause}")


def _current_task() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop: nobody can cancel
        return None


def _printable(text: str) -> str:
    """Text of a stranger, fit for a log: one line, nothing that a terminal obeys."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown if len(shown) <= MAX_DETAIL else shown[: MAX_DETAIL - 1] + "…"
