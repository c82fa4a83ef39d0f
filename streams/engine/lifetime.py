"""Faust's start and stop, and the end of a process that has been told to end.

Faust waits without a limit for brokers, for polls in hand and for commits, and goes on when it is cancelled meanwhile;
threads that stand still are waited for by Python itself. So a process ends where it stands when its time is over.
Nothing of what is kept depends on another end: this one is like a kill -9.
"""

import asyncio
import os
import sys
import threading
import traceback

import structlog

from streams.engine.app import App

FAILED = 1
# So long Faust has to leave its group, and so long all of an end may take: less than a service manager waits.
STOP_APP_S = 15.0
END_S = 45.0
_FRAMES = 6

log = structlog.get_logger("fleetbeat.worker")


async def start_app(app: App, stop: asyncio.Event) -> bool:
    """Whether it has started before `stop` was set. Raises whatever its start does.

    If not, what there is of it may hold the process, which ends within END_S.
    """
    starting, stopped = asyncio.create_task(app.start()), asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done() and starting.exception() is None:
        return True
    end_within(END_S)
    starting.cancel()
    if starting.done():
        await starting
    return False


async def stop_app(app: App) -> None:
    """Returns when it has stopped; when it does not, the process ends here."""
    stopping = asyncio.create_task(app.stop())
    await asyncio.wait([stopping], timeout=STOP_APP_S)
    if not stopping.done():
        end_within(0, "Faust does not stop: ending where it stands")
    elif (error := stopping.exception()) is not None:
        log.warning("Faust has not stopped well", error=repr(error))


def end_within(patience_s: float, why: str = "did not end in time: ending where it stands") -> None:
    """So long from now the process ends with status 1, unless it has ended before; the log says where it stood."""
    timer = threading.Timer(patience_s, _end, (why,))
    timer.daemon = True
    timer.start()


def _end(why: str) -> None:
    try:
        log.error(why, threads=_threads())
    finally:
        os._exit(FAILED)


def _threads() -> dict[str, list[str]]:
    """The innermost frames of each other thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, str(ident)): traceback.format_stack(frame)[-_FRAMES:]
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - Python's only way
        if ident != threading.get_ident()
    }
