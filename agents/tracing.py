"""Which runs have their trace id in the record: each run has one, and most of them are not worth storing."""

import random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.probes.base import Outcome, Up
from agents.probes.trace import Trace, current_trace

Keep = Literal["always", "failures", "never"]

# As OpenTelemetry's TraceIdRatioBased does: the low 56 bits of the id are random, and decide.
_RANDOM_BITS = 56


class TraceFile(BaseModel):
    """Which results carry their trace id: those that are not up, and beside them a share `ratio` of all.

    A stored id costs the archive some 20 bytes. `propagate`: http probes send the header `traceparent`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    keep: Keep = "failures"
    ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    propagate: bool = True


class Tracer:
    """Draws an id for each run, and says afterwards whether the record shall have it."""

    def __init__(self, settings: TraceFile, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random(random.SystemRandom().getrandbits(128))  # noqa: S311 - ids, not secrets
        self.change(settings)

    def change(self, settings: TraceFile) -> None:
        """From the next run on."""
        self._keep = settings.keep
        self._propagate = settings.propagate
        share = {"always": 1.0, "failures": settings.ratio, "never": 0.0}[settings.keep]
        self._below = round(share * (1 << _RANDOM_BITS))

    def begin(self) -> Trace:
        """The trace of a run that begins. It is sampled when its record will have the id whatever it finds."""
        number = self._rng.getrandbits(64) << 64 | (self._rng.getrandbits(64) or 1)
        sampled = number & ((1 << _RANDOM_BITS) - 1) < self._below
        return Trace(f"{number:032x}", sampled, self._propagate)

    def kept(self, outcome: Outcome) -> str | None:
        """The id for the record of the run that goes on; None when it is not to be stored."""
        trace = current_trace()
        if trace is None or self._keep == "never":
            return None
        return trace.trace_id if trace.sampled or not isinstance(outcome, Up) else None
