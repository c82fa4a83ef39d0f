"""The trace of a run: one id in its result, in its log lines and in what it sends (W3C Trace Context)."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from schemas.traces import traceparent


@dataclass(frozen=True, slots=True)
class Trace:
    """`trace_id` has 32 hex digits, the second half of them not all zero; `sampled` tells others whether to record it.

    `propagates`: a probe that speaks a protocol with a place for it sends it along.
    """

    trace_id: str
    sampled: bool
    propagates: bool = True

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return traceparent(self.trace_id, sampled=self.sampled)


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """That of the run that goes on in this task or thread; None outside of runs."""
    return _CURRENT.get()


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Whatever is done meanwhile belongs to this run."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)
