"""Signed records that come again: within a boot `seq` only goes up. A function of the log, with bounded memory.

A signature is good for a minute on either side of the append time (`streams.core.signing`). So whatever comes again
while it is good comes within two minutes of the log's own time, and no more of the past has to be known.

The time of a partition (its frontier, see `streams.core.slices`) is cut into periods of a minute. A record *comes
again* when an earlier one of its node and boot, in its period or one of the two before, had its number or a greater
one. All well signed records count for that, those that come again too, so a reader that begins two periods earlier
finds the same of each: a worker's commit is held back so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.signatures import MAX_AGE_MS
from streams.core.rollup import SourceBatch
from streams.core.slices import frontiers

Longs = npt.NDArray[np.int64]

PERIOD_MS = 60_000
# Both records are at most MAX_AGE_MS away from when they were signed.
KEPT_PERIODS = -(-2 * MAX_AGE_MS // PERIOD_MS)

Boot: TypeAlias = tuple[str, str]  # node id, boot id
# (period, greatest seq in it), the newest first, each older one greater: what counts while the newer ones are there.
_Greatest: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Log:
    """One partition. `begins`: (period, offset, frontier before it) of the first record of each period.

    The first of them is where reading began, perhaps inside its period: what it held before that is not known.
    """

    frontier_ms: int
    begins: list[tuple[int, int, int]]
    applied: int = -1
    greatest: dict[Boot, _Greatest] = field(default_factory=dict)


class Replays:
    """What was seen of the assigned partitions of one topic. Not thread-safe."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}

    def open(self, partition: int, offset: int, frontier_ms: int) -> None:
        """Begin with a partition: the first record is at `offset` or behind it, with the frontier before it."""
        self._logs[partition] = _Log(frontier_ms, [(frontier_ms // PERIOD_MS, offset, frontier_ms)])

    def find(
        self, batches: Sequence[SourceBatch], rows: Longs, boots: Sequence[Boot], seqs: Sequence[int]
    ) -> list[int]:
        """Which of the records come again, as indexes into `rows`.

        `batches`: all records, in log order; `rows`: those of them that are well signed, ascending, whose boot and
        number are in `boots` and `seqs`. Records that were looked at before are in nobody's way.
        """
        found: list[int] = []
        begin = 0
        for batch in batches:
            log = self._logs[batch.partition]
            first, after = np.searchsorted(rows, (begin, begin + len(batch.offsets))).tolist()
            places = rows[first:after] - begin
            begin += len(batch.offsets)
            periods = _advance(log, batch)
            fresh = batch.offsets[places] > log.applied
            for number, period, is_fresh in zip(
                range(first, after), periods[places].tolist(), fresh.tolist(), strict=True
            ):
                if is_fresh and _comes_again(log.greatest, boots[number], period, seqs[number]):
                    found.append(number)
            log.applied = max(log.applied, int(batch.offsets[-1]))
        return found

    def held_back(self, partition: int, offset: int, frontier_ms: int) -> tuple[int, int]:
        """From where a reader has to begin to find the same of every record from `offset` on: never behind it.

        `frontier_ms` is the frontier before `offset`. Offsets never go back from call to call.
        """
        log = self._logs.get(partition)
        if log is None:
            return offset, frontier_ms
        first_needed = frontier_ms // PERIOD_MS - KEPT_PERIODS
        begins = log.begins
        if first_needed > begins[0][0]:
            # The period of the frontier has begun with some record, so there is one.
            del begins[: next(place for place, (period, *_) in enumerate(begins) if period >= first_needed)]
        _, begin, before_ms = begins[0]
        return min((begin, before_ms), (offset, frontier_ms))


def _advance(log: _Log, batch: SourceBatch) -> Longs:
    """The period of each record; notes where periods begin, and lets go of what no later record is compared with."""
    at = frontiers(log.frontier_ms, batch.append_ms)
    periods: Longs = at // PERIOD_MS
    last = log.frontier_ms // PERIOD_MS
    before = np.concatenate(([log.frontier_ms], at[:-1]))
    for place in np.flatnonzero(periods > before // PERIOD_MS).tolist():
        log.begins.append((int(periods[place]), int(batch.offsets[place]), int(before[place])))
    log.frontier_ms = int(at[-1])
    if int(periods[-1]) > last:
        oldest = int(periods[0]) - KEPT_PERIODS
        log.greatest = {boot: known for boot, known in log.greatest.items() if known[0][0] >= oldest}
    return periods


def _comes_again(greatest: dict[Boot, _Greatest], boot: Boot, period: int, seq: int) -> bool:
    known = greatest.get(boot)
    if known is None or (len(known) == 1 and known[0][1] < seq):
        greatest[boot] = ((period, seq),)
        return False
    known = tuple(each for each in known if each[0] >= period - KEPT_PERIODS)
    again = any(number >= seq for _, number in known)
    if not known or known[0][0] < period or known[0][1] < seq:
        known = ((period, seq), *(each for each in known if each[1] > seq))
    greatest[boot] = known
    return again
