"""One million increments of a thousand counters by eight writers: a lock and a dict, and whole batches at once.

The operations are the same for all: each writer has 125,000 (label, latency) in an order drawn beforehand, and
afterwards every counter holds how many there were and the sum of their latencies. What differs is the step: an event at
a time into a shared dict under a lock; an event at a time into a dict of the writer's own, added up at the end; or a
batch of columns, counted by numpy where labels are numbers already, or by polars where they are texts, as the worker
does it with a decoded block. To make columns of events is not in it: in the worker, decoding does that.
`fleetbeat bench counters --json` prints only the last line.
"""

import gc
import json as json_format
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

OPERATIONS = 1_000_000
WRITERS = 8
COUNTERS = 1_000
# What one step of the worker is given at most.
BATCH = 20_000
RUNS = 5
Longs = npt.NDArray[np.int64]
Counted = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Share:
    """What one writer counts, in the shapes that the ways of counting take; all of them the same operations."""

    numbers: Longs
    latency_us: Longs
    events: Sequence[tuple[str, int]]
    frame: pl.DataFrame


def main(*, json: bool = False) -> int:
    """The last line is the result as JSON."""
    names = [f"service-{number:03d}" for number in range(COUNTERS)]
    shares = _shares(names)
    ways: dict[str, Callable[[], Counted]] = {
        "lock_and_dict": lambda: locked(shares),
        "own_dicts": lambda: apart(shares),
        "numpy_batches": lambda: by_number(shares, names),
        "polars_batches": lambda: by_label(shares),
    }
    expected = locked(shares)
    figures: dict[str, Any] = {"operations": OPERATIONS, "writers": WRITERS, "counters": COUNTERS}
    equal = True
    for name, way in ways.items():
        times, collections = [], []
        for _ in range(RUNS):
            before, begun = _collections(), time.perf_counter()
            counted = way()
            times.append((time.perf_counter() - begun) * 1_000)
            collections.append(_collections() - before)
            equal &= counted == expected
        figures |= {f"{name}_ms": round(statistics.median(times), 1), f"{name}_gc_runs": max(collections)}
    ratios = {name: round(figures["lock_and_dict_ms"] / figures[f"{name}_ms"], 1) for name in ways}
    del ratios["lock_and_dict"]
    if not json:
        for name in ways:
            print(f"{name:<16}{figures[f'{name}_ms']:>8.1f} ms for {OPERATIONS:,} operations by {WRITERS} writers")
    print(json_format.dumps({"name": "counters", "figures": figures, "ratios": ratios, "floors": {}, "holds": equal}))
    return 0


def _shares(names: Sequence[str]) -> list[Share]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(WRITERS):
        numbers = rng.integers(0, COUNTERS, OPERATIONS // WRITERS)
        latency_us = rng.integers(1, 200_000, len(numbers))
        labels = [names[number] for number in numbers.tolist()]
        frame = pl.DataFrame({"label": labels, "latency_us": latency_us})
        found.append(Share(numbers, latency_us, list(zip(labels, latency_us.tolist(), strict=True)), frame))
    return found


def locked(shares: Sequence[Share]) -> Counted:
    """An event at a time: one dict, one lock."""
    counted: dict[str, list[int]] = {}
    lock = threading.Lock()

    def write(share: Share) -> None:
        for label, latency_us in share.events:
            with lock:
                entry = counted.setdefault(label, [0, 0])
                entry[0] += 1
                entry[1] += latency_us

    _all_at_once(write, shares)
    return {label: (n, sum_us) for label, (n, sum_us) in counted.items()}


def apart(shares: Sequence[Share]) -> Counted:
    """An event at a time, without a lock: a dict for each writer, added up at the end."""
    dicts: list[dict[str, list[int]]] = []

    def write(share: Share) -> None:
        counted: dict[str, list[int]] = {}
        for label, latency_us in share.events:
            entry = counted.setdefault(label, [0, 0])
            entry[0] += 1
            entry[1] += latency_us
        dicts.append(counted)

    _all_at_once(write, shares)
    sums: dict[str, tuple[int, int]] = {}
    for counted in dicts:
        for label, (n, sum_us) in counted.items():
            known = sums.get(label, (0, 0))
            sums[label] = (known[0] + n, known[1] + sum_us)
    return sums


def by_number(shares: Sequence[Share], names: Sequence[str]) -> Counted:
    """A batch at a time, where labels are numbers already: the lock is taken once a batch."""
    n, sum_us = np.zeros(COUNTERS, np.int64), np.zeros(COUNTERS, np.int64)
    lock = threading.Lock()

    def write(share: Share) -> None:
        for start in range(0, len(share.numbers), BATCH):
            batch = slice(start, start + BATCH)
            counts = np.bincount(share.numbers[batch], minlength=COUNTERS)
            # Sums of a batch are far below 2^53, so floats hold them exactly.
            sums = np.bincount(share.numbers[batch], weights=share.latency_us[batch], minlength=COUNTERS)
            with lock:
                n[:] += counts
                sum_us[:] += sums.astype(np.int64)

    _all_at_once(write, shares)
    return dict(zip(names, zip(n.tolist(), sum_us.tolist(), strict=True), strict=True))


def by_label(shares: Sequence[Share]) -> Counted:
    """A batch at a time, where labels are texts, as the rollup gets them."""
    parts: list[pl.DataFrame] = []

    def write(share: Share) -> None:
        for start in range(0, share.frame.height, BATCH):
            batch = share.frame[start : start + BATCH]
            parts.append(batch.group_by("label").agg(n=pl.len(), sum_us=pl.col("latency_us").sum()))

    _all_at_once(write, shares)
    sums = pl.concat(parts).group_by("label").agg(pl.col("n", "sum_us").sum())
    return {label: (n, sum_us) for label, n, sum_us in sums.rows()}


def _all_at_once(write: Callable[[Share], None], shares: Sequence[Share]) -> None:
    threads = [threading.Thread(target=write, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv))
