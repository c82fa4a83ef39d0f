"""What a node's silence means. Elementwise over nodes; times in ms on the broker's clock."""

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.int8]

STATES = ("UP", "LATE", "SUSPECT", "DOWN", "GONE")
UP, LATE, SUSPECT, DOWN, GONE = range(len(STATES))
UNTOLD = -1  # no state has been announced yet

REPORTED = ("UP", "DRAINING", "GOODBYE")  # what a heartbeat says of its node
GOODBYE = REPORTED.index("GOODBYE")

REASONS = ("heartbeat", "new-node", "new-boot", "goodbye", "missed-heartbeats")
HEARTBEAT, NEW_NODE, NEW_BOOT, SAID_GOODBYE, MISSED = range(len(REASONS))

SECOND_MS = 1_000
LEAVES_AFTER_MS = 7 * 86_400_000  # since it was due to be DOWN


def late_after_ms(interval_ms: Ints) -> Longs:
    """The silence after which a node is LATE: its interval and a grace, because heartbeats are jittered by 5 %."""
    interval = interval_ms.astype(np.int64)
    return interval + np.maximum(SECOND_MS, interval // 10)


def down_after_ms(interval_ms: Ints) -> Longs:
    """The silence after which a node is DOWN: three intervals and a second."""
    return 3 * interval_ms.astype(np.int64) + SECOND_MS


def not_up(last_seen_ms: Longs, interval_ms: Ints, reported: Bytes, now_ms: int) -> tuple[Longs, Bytes, Longs]:
    """Which nodes are not UP at `now_ms`, what they are (index into STATES) and since when."""
    # Nearly all nodes are up: a cheap look finds those that may be not.
    rows = np.flatnonzero((now_ms - last_seen_ms > interval_ms) | (reported == GOODBYE))
    last_seen_ms, interval_ms, gone = last_seen_ms[rows], interval_ms[rows], reported[rows] == GOODBYE
    late_after = late_after_ms(interval_ms)
    after = np.stack([np.zeros_like(late_after), late_after, late_after + interval_ms, down_after_ms(interval_ms)])
    silent = (now_ms - last_seen_ms >= after[LATE:]).sum(axis=0)
    since = last_seen_ms + np.where(gone, 0, after[silent, np.arange(len(rows))])
    state = np.where(gone, GONE, silent).astype(np.int8)
    found = state != UP
    return rows[found], state[found], since[found]


def leaves_at_ms(last_seen_ms: Longs, interval_ms: Ints) -> Longs:
    """When a silent node is forgotten."""
    return last_seen_ms + down_after_ms(interval_ms) + LEAVES_AFTER_MS
