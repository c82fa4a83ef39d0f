"""Who runs where: the prober has a core to itself, and whoever it talks to has the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import psutil

_ALL = os.sched_getaffinity(0)
ONE_CORE = {max(_ALL)}
OTHER_CORES = _ALL - ONE_CORE or ONE_CORE


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Holds this process to these cores meanwhile; children that it starts, and their threads, stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time (s) and memory (MB) of a process."""

    cpu_s: float
    rss_mb: float
    pss_mb: float

    @classmethod
    def by(cls, pid: int) -> Self:
        """So far, of all its threads."""
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_full_info()
        return cls(times.user + times.system, round(memory.rss / 1e6, 1), round(memory.pss / 1e6, 1))
