"""Event time: the payload's `ts`, held within what a broker's append time makes believable."""

import numpy as np
import numpy.typing as npt

PAST_LIMIT_MS = 35 * 86_400_000
LAST_MS = 253_402_300_799_999  # the end of the year 9999
FUTURE_LIMIT_MS = 5_000

Millis = npt.NDArray[np.int64]


def clamp(ts: Millis, append: Millis) -> Millis:
    """`ts` clamped to [append − 35 d, append + 5 s], elementwise; both in ms UTC, shape (rows,).

    Everything that indexes by event time uses the clamped value, so that a wild clock can neither
    reach memory nor a ClickHouse partition of its own.
    """
    return np.clip(ts, append - PAST_LIMIT_MS, append + FUTURE_LIMIT_MS)
