"""One run of a probe: whatever the steps do, an outcome comes out, in time."""

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.probes.base import Down, Outcome, Phase, Timeout, Up
from agents.probes.watch import MAX_DETAIL, ProbeFailedError, Watch, watched


def run(steps: Callable[[Watch], Awaitable[Outcome]], deadline_s: float = 5.0) -> Outcome:
    return asyncio.run(watched(steps, deadline_s))


def raising(cause: BaseException, phase: Phase = Phase.CONNECT) -> Callable[[Watch], Awaitable[Outcome]]:
    async def steps(watch: Watch) -> Outcome:
        watch.enter(phase)
        raise cause

    return steps


@pytest.mark.parametrize(
    ("cause", "reason", "detail"),
    [
        (ProbeFailedError("status", "500; expected 200"), "status", "500; expected 200"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), "refused", "connect: Connection refused"),
        (ConnectionResetError(errno.ECONNRESET, "no"), "reset", "connect: Connection reset by peer"),
        (TimeoutError(errno.ETIMEDOUT, "no"), "unreachable", "connect: Connection timed out"),
        (OSError(errno.ENETUNREACH, "no"), "unreachable", "connect: Network is unreachable"),
        (OSError(errno.EMFILE, "no"), "error", "connect: Too many open files"),
        (OSError("odd"), "error", "connect: odd"),
        (TimeoutError(), "error", "connect: TimeoutError"),
        (ZeroDivisionError("by zero"), "error", "ZeroDivisionError: by zero"),
    ],
)
def test_what_steps_raise_is_down_with_its_reason(cause: BaseException, reason: str, detail: str) -> None:
    outcome = run(raising(cause))
    assert isinstance(outcome, Down)
    assert (outcome.reason, outcome.detail) == (reason, detail)
    assert outcome.phases.connect_us is not None


def test_the_deadline_ends_what_hangs_and_names_the_phase() -> None:
    async def steps(watch: Watch) -> Outcome:
        watch.enter(Phase.TLS)
        await asyncio.sleep(60)
        return watch.up()

    outcome = run(steps, 0.05)
    assert isinstance(outcome, Timeout)
    assert (outcome.phase, outcome.latency_us) == (Phase.TLS, outcome.after_us)
    assert outcome.after_us >= 50_000


def test_the_deadline_wins_over_what_its_cancellation_breaks() -> None:
    async def steps(watch: Watch) -> Outcome:
        watch.enter(Phase.TRANSFER)
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionResetError(errno.ECONNRESET, "broken off")

    assert isinstance(run(steps, 0.05), Timeout)


def test_a_cancellation_from_outside_passes() -> None:
    async def main() -> None:
        running = asyncio.create_task(watched(lambda _: asyncio.sleep(60, Up(0)), 60.0))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_phases_are_summed_and_never_more_than_the_whole() -> None:
    async def steps(watch: Watch) -> Outcome:
        for phase in (Phase.RESOLVE, Phase.CONNECT, Phase.RESOLVE, Phase.WORK):
            watch.enter(phase)
            await asyncio.sleep(0.01)
        return watch.up()

    outcome = run(steps)
    phases = outcome.phases
    assert phases.resolve_us is not None
    assert phases.connect_us is not None
    assert phases.resolve_us >= 20_000
    assert phases.resolve_us + phases.connect_us <= outcome.latency_us - 10_000
    assert (phases.tls_us, phases.first_byte_us, phases.transfer_us) == (None, None, None)


@given(st.text())
def test_details_and_notes_are_one_printable_line_of_bounded_length(text: str) -> None:
    watch = Watch()
    watch.note(text)
    down = watch.down("x", text)
    for shown in (down.detail, *down.notes):
        assert shown.isprintable()
        assert len(shown) <= MAX_DETAIL
