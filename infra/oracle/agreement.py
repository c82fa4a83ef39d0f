"""Waiting for views and SQL to catch up with the ledger."""

import time
from collections.abc import Callable

from infra.oracle.judge import Verdict
from infra.oracle.sources import UnavailableError

_POLL_S = 1.0


def await_agreement(judge_once: Callable[[], Verdict], still_running: Callable[[], None], timeout_s: float) -> Verdict:
    """The verdict as soon as two in a row agree, else the last one before the deadline.

    Two, so that a record counted once more a moment later is not missed. Raises UnavailableError at the deadline when
    no judgement was possible, and what `still_running` raises.
    """
    deadline = time.monotonic() + timeout_s
    agreed_before = False
    while True:
        still_running()
        begun = time.monotonic()
        try:
            verdict = judge_once()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            agreed_before = False
        else:
            if (verdict.agree and agreed_before) or time.monotonic() > deadline:
                return verdict
            agreed_before = verdict.agree
        # A judgement costs the stack some work: leave it as much time to catch up.
        time.sleep(max(_POLL_S, time.monotonic() - begun))
