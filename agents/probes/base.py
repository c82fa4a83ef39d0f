"""What a probe is: its phases, its outcomes, and the contract between a probe and the agent that runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

FORBIDDEN_TARGET = "forbidden-target"
"""The reason of a refusal: an address that no probe may connect to."""


class Phase(StrEnum):
    """What a probe spends its time on; WORK is everything that is not a conversation over the network."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    FIRST_BYTE = "first_byte"
    TRANSFER = "transfer"
    WORK = "work"


@dataclass(frozen=True, slots=True)
class Phases:
    """Microseconds spent in each phase, summed over redirects; None for a phase that was not entered.

    The phase in which a probe failed or timed out counts up to that moment.
    """

    resolve_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    first_byte_us: int | None = None
    transfer_us: int | None = None


NO_PHASES = Phases()


class Failure(StrEnum):
    """What kind of no it is, so that answers that are wrong are counted apart from answers that never came."""

    TRANSPORT = "transport"
    """There was no answer to judge: nobody there, broken off, no such name, or the probe could not ask."""
    VALIDATION = "validation"
    """There was an answer, and it is not the expected one; the reason names the validator."""


@dataclass(frozen=True, slots=True)
class Up:
    """It works. `cert_expires_ms` is UTC; `notes` say, for a person, what happened on the way."""

    latency_us: int
    phases: Phases = NO_PHASES
    status_code: int | None = None
    cert_expires_ms: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Down:
    """It does not work: `reason` is one of a few tags (refused, status, …), `detail` a sentence without secrets.

    With failure `VALIDATION` the reason is the name of the validator that said no.
    """

    reason: str
    detail: str
    latency_us: int
    phases: Phases = NO_PHASES
    status_code: int | None = None
    cert_expires_ms: int | None = None
    notes: tuple[str, ...] = ()
    failure: Failure = Failure.TRANSPORT


@dataclass(frozen=True, slots=True)
class Timeout:
    """No answer after `after_us`, when `phase` was going on."""

    after_us: int
    phase: Phase
    phases: Phases = NO_PHASES
    status_code: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def latency_us(self) -> int:
        """How long it was waited for."""
        return self.after_us


Outcome = Up | Down | Timeout


class Probe(Protocol):
    """One configured check. The agent calls `run` again and again, never twice at the same time."""

    async def run(self, deadline_s: float) -> Outcome:
        """The outcome, at most `deadline_s` seconds from now.

        Raises nothing but CancelledError, and has let go of sockets and files when it ends, also when cancelled. It
        never blocks the event loop: what can block goes through `agents.probes.threads`.
        """
        ...


class Settings(BaseModel):
    """Base of a kind's config: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ProbeKind(Generic[ConfigT]):
    """A kind of probe: its key in the agent's config, what may stand there, and how a probe is made of that.

    `build` is cheap and touches neither network nor files; it raises ValueError for a config that cannot work.
    """

    name: str
    config: type[ConfigT]
    build: Callable[[ConfigT], Probe]
