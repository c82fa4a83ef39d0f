"""How threads of one process share its cores."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

# Against 0 of the others: about a tenth of a core that others want too, and all of one that nobody wants.
BACKGROUND_NICE = 10

ResultT = TypeVar("ResultT")


def step_back() -> None:
    """From now on this thread leaves the cores to others; where threads have no priority of their own, nothing happens.

    On Linux a thread's number is one that priorities can be set by. While it holds the interpreter's lock, those who
    wait for that do not run either, so it soon gets on.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICE)


async def in_a_thread(step: Callable[[], ResultT]) -> ResultT:
    """Run a step that may wait for long, such as for an answer, on a thread that no exit of the process waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ResultT] = loop.create_future()

    def settle(result: ResultT | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where the step returns it

    def run() -> None:
        step_back()
        result: ResultT | None = None
        failed: BaseException | None = None
        try:
            result = step()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="waiting", daemon=True).start()
    return await done
