"""Runs that were not up: counted by whether there was an answer at all, and logged when that changes."""

import logging
from collections import Counter

from agents.config import ProbeSpec
from agents.probes.base import Down, Failure, Outcome, Timeout, Up

TIMED_OUT = "timeout"
MAX_REASONS = 256
OTHER = "other"

log = logging.getLogger(__name__)


class Failures:
    """Runs that were not up, by (kind, reason): answers that a validator refused, and answers that never came."""

    def __init__(self) -> None:
        self.validation: Counter[tuple[str, str]] = Counter()
        self.transport: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, outcome: Outcome) -> None:
        """Counts one; a plugin that makes up reasons gets no more than MAX_REASONS of them."""
        match outcome:
            case Up():
                return
            case Down(reason=reason, failure=failure):
                counts = self.validation if failure is Failure.VALIDATION else self.transport
            case Timeout():
                reason, counts = TIMED_OUT, self.transport
        if (kind, reason) not in counts and len(counts) >= MAX_REASONS:
            reason = OTHER
        counts[kind, reason] += 1


def log_change(spec: ProbeSpec, outcome: Outcome) -> None:
    """A probe began to fail, or works again: the detail stands nowhere else."""
    which = {"probe": spec.name, "kind": spec.kind, "service": spec.service, "endpoint": spec.endpoint}
    match outcome:
        case Up():
            log.info("a probe is up again", extra=which)
        case Down(reason=reason, detail=detail, failure=failure):
            log.info("a probe is down", extra=which | {"reason": reason, "failure": str(failure), "detail": detail})
        case Timeout(phase=phase):
            log.info("a probe timed out", extra=which | {"phase": str(phase)})
