"""How threads of one process share its cores."""

import contextlib
import os
import threading

# Against 0 of the others: about a tenth of a core that others want too, and all of one that nobody wants.
BACKGROUND_NICE = 10


def step_back() -> None:
    """From now on this thread leaves the cores to others; where threads have no priority of their own, nothing happens.

    On Linux a thread's number is one that priorities can be set by. While it holds the interpreter's lock, those who
    wait for that do not run either, so it soon gets on.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICE)
