"""Which event loop the agent runs on: asyncio's own, or uvloop, where that is installed and asked for.

uvloop is not brought along: a probe costs a twentieth less processor time with it (`fleetbeat bench agent`).
"""

import asyncio
from collections.abc import Callable

VARIABLE = "FLEETBEAT_LOOP"
ASYNCIO, UVLOOP = "asyncio", "uvloop"


class LoopError(ValueError):
    """There is no such event loop here."""


def loop_factory(name: str | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop that the variable names; None for asyncio's own. Raises LoopError."""
    if name in {None, "", ASYNCIO}:
        return None
    if name != UVLOOP:
        raise LoopError(f"{VARIABLE} {name!r}; expected {ASYNCIO} or {UVLOOP}")
    try:
        import uvloop  # noqa: PLC0415 - most installations do not have it
    except ModuleNotFoundError:
        raise LoopError(
            f"{VARIABLE} {UVLOOP!r}: it is not installed; expected {ASYNCIO}, or pip install uvloop"
        ) from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
