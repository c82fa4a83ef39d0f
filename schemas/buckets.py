"""The buckets of latencies in the contract: γ = 1.02, so whatever is in a bucket is within 1 % of what it stands for.

The mapping is DDSketch's (Masson, Rim, Lee, VLDB 2019), so histograms merge by adding. Bounds are computed with
integers, so every machine puts every latency into the same bucket.
"""

from bisect import bisect_left
from fractions import Fraction

MAX_LATENCY_US = 86_400_000_000
GAMMA = Fraction(51, 50)


def _bounds() -> tuple[int, ...]:
    bounds, power, scale = [0], 1, 1
    while bounds[-1] < MAX_LATENCY_US:
        bounds.append(power // scale)
        power, scale = power * GAMMA.numerator, scale * GAMMA.denominator
    return tuple(bounds)


# Inclusive upper bounds in µs: bucket 0 holds zero, bucket i + 1 holds up to floor(γ^i).
BOUNDS_US = _bounds()
BUCKETS = len(BOUNDS_US)


def bucket_of(latency_us: int) -> int:
    """The bucket of a latency from 0 to MAX_LATENCY_US: of those whose bound is not below it the first."""
    return bisect_left(BOUNDS_US, latency_us)


def is_bound(latency_us: int | None) -> bool:
    """Whether each bucket is on one side of the latency: then a histogram tells exactly how many took longer."""
    return latency_us is None or latency_us in BOUNDS_US[bucket_of(latency_us) :][:1]
