"""Slices of one second, when they are sealed, and the tiers that keep them. Lateness is a function of the log alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

SLICE_MS = 1_000
LATENESS_MS = 10_000
ON_TIME = -1  # the `late` of a cell that is not late; a late one carries the append second


@dataclass(frozen=True, slots=True)
class Tier:
    """Sealed slices summed to `step_s`, kept for `keep_s`, stored in chunks of `chunk_s` seconds of event time."""

    name: str
    step_s: int
    keep_s: int
    chunk_s: int


SECONDS = Tier("1s", 1, 600, 10)
MINUTES = Tier("1m", 60, 23_400, 600)
# Counts without histograms, and only of series whose names ask for it (streams.core.objectives).
COUNTS = Tier("1m-counts", 60, 35 * 86_400, 21_600)
HOURS = Tier("1h", 3_600, 35 * 86_400, 86_400)
TIERS = (SECONDS, MINUTES, COUNTS, HOURS)
PLAIN_TIERS = (SECONDS, MINUTES)  # of series that are no objective's; their minutes have counts only


def is_slice(length_s: int) -> bool:
    """Whether time slices may be so long: whole minutes, and whole parts of what is stored together."""
    return length_s >= COUNTS.step_s and length_s % COUNTS.step_s == 0 and COUNTS.chunk_s % length_s == 0


def held_since(tier: Tier, now_s: int) -> int:
    """The first second of the oldest chunk of a tier that is not over when the greatest frontier is at `now_s`."""
    return -(-(now_s - tier.keep_s - tier.chunk_s) // tier.chunk_s) * tier.chunk_s


def frontiers(before: int, append_ms: Longs) -> Longs:
    """The frontier at each record: the greatest append time up to and with it, `before` included; shape (n,)."""
    return np.maximum(np.maximum.accumulate(append_ms), before)


def lateness_of(slice_s: Longs, frontier_ms: Longs) -> Longs:
    """For each event ON_TIME, or its append second when its slice was sealed at its own record."""
    sealed = (slice_s + 1) * SLICE_MS + LATENESS_MS <= frontier_ms
    return np.where(sealed, frontier_ms // SLICE_MS, ON_TIME)


def seal_ms(slice_s: Longs, late_s: Longs) -> Longs:
    """The frontier at which each cell is sealed: slice end + lateness, or the end of its append second when late."""
    return np.where(late_s == ON_TIME, (slice_s + 1) * SLICE_MS + LATENESS_MS, (late_s + 1) * SLICE_MS)
