"""Free ports for the servers of tests. What is chosen long before it is bound must not be chosen by anyone else."""

import itertools
import os
import random

from infra import state

# As xdist sets them in each of its processes.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = max(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), _WORKER + 1)
# Ports that code under test picks for itself are others than those of `free_port`.
_FOR_TESTS = range(24_000 + _WORKER, 32_768, _WORKERS)
_FOR_CODE = range(20_000 + _WORKER, 24_000, _WORKERS)
_turns = itertools.cycle(random.SystemRandom().sample(_FOR_TESTS, len(_FOR_TESTS)))


def free_port() -> int:
    """One that is free, below those that clients get, and given to no other test for long."""
    return next(port for port in itertools.islice(_turns, len(_FOR_TESTS)) if state.is_free(port))


def keep_apart() -> None:
    """From now on `pick_port` in this process picks none that a test or another process of xdist may have picked."""
    state._FREE_PORTS = _FOR_CODE
