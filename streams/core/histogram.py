"""Log-bucket histogram of microseconds: γ = 1.02, so a quantile is within 1 % of the true value.

The buckets are the contract's (`schemas.buckets`), in which services count too.
"""

import numpy as np
import numpy.typing as npt

from schemas.buckets import BOUNDS_US, GAMMA

Longs = npt.NDArray[np.int64]

NO_BUCKET = -1  # counts without a histogram
BOUNDS = np.array(BOUNDS_US, dtype=np.int64)


def buckets_of(latency_us: Longs) -> npt.NDArray[np.int16]:
    """The bucket of each latency, elementwise; 0 ≤ latency_us ≤ MAX_LATENCY_US."""
    return np.searchsorted(BOUNDS, latency_us, side="left").astype(np.int16)


def value_of(bucket: int) -> float:
    """The value, in µs, that stands for a bucket: within 1 % of everything in it."""
    if bucket <= 0:
        return 0.0
    gamma = float(GAMMA)
    return 2.0 * gamma ** (bucket - 1) / (gamma + 1.0)


def quantile(buckets: npt.NDArray[np.int16], counts: Longs, permille: int) -> float | None:
    """The nearest-rank quantile in µs; `buckets` ascending, shapes (n,); None for an empty histogram."""
    total = int(counts.sum())
    if total == 0:
        return None
    rank = -(-total * permille // 1000)
    return value_of(int(buckets[np.searchsorted(np.cumsum(counts), max(rank, 1), side="left")]))
